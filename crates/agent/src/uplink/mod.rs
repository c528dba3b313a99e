//! The agent's connection to its manager: which server, with which key, under which version, and what is said on it.
//!
//! `conversation` is one connection, `pump` its sending half, `lane` what waits to be sent, `link` the socket.
//! Invariant: whatever a manager does, the next attempt comes after a pause, and events wait in the spool until then.

mod conversation;
pub(crate) mod lane;
mod link;
mod outcomes;
mod pump;
pub(crate) mod query;
mod shared;
pub(crate) mod status;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tld_config::{Client, Label, ServerAddress};
use tld_model::{OrderId, OutcomeKind};
use tld_sys::clock::Deadline;
use tld_sys::durable;
use tld_wire::control::VERSION_TOO_NEW;
use tld_wire::extension::Ticket;
use tld_wire::key::AgentKey;
use tld_wire::version::Version;

use crate::enrol::{self, EnrolError};
use crate::key::{self, Numbers};
use crate::responder::explain;
use crate::responder::voice::Voice;
use crate::spool::{Spool, Tail};
use conversation::{Conversation, End};
use lane::Lane;
pub(crate) use outcomes::{Outcomes, received};
use pump::Pace;
use query::Answers;
use status::{Standing, Status};

/// Versions under which the agent is accepted somewhere, newest first.
const VERSIONS: [Version; 4] =
    [Version::CONTRACT, Version::new(4, 9, 0), Version::new(4, 4, 0), Version::new(4, 2, 5)];
const ACCEPTED: &str = "queue/threatlockdown/version";
/// A connection that held so long was a good one: the next attempt is made at once.
const GOOD: Duration = Duration::from_secs(30);
/// Pauses between rounds of enrolment grow by this, up to its twelvefold.
const ENROL_PAUSE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(200);

/// What reaches the thread that hands orders to the responder.
#[derive(Debug)]
pub(crate) enum Errand {
    /// A message of the manager for the execution daemon.
    Order(Vec<u8>, Option<Ticket>),
    /// The manager's files are here, among them the one that tells what orders name.
    Files,
    /// An order is withdrawn.
    Cancel(OrderId),
    /// An outcome is stored at the manager.
    Confirmed(OrderId, OutcomeKind),
}

/// What the uplink tells the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The manager has pushed another configuration.
    Configuration,
}

/// Everything that an uplink works with.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) home: PathBuf,
    pub(crate) client: Client,
    pub(crate) labels: Vec<Label>,
    pub(crate) patience: Duration,
    pub(crate) rate: Option<u32>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) status: Arc<Status>,
    pub(crate) outcomes: Arc<Outcomes>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) errands: SyncSender<Errand>,
    pub(crate) notices: Sender<Notice>,
    pub(crate) numbers: Arc<Mutex<Numbers>>,
    pub(crate) voice: Voice,
    pub(crate) stop: Arc<AtomicBool>,
    /// At the stop nobody is told goodbye.
    pub(crate) quiet: Arc<AtomicBool>,
    /// A manager was told that this process started.
    pub(crate) started: Arc<AtomicBool>,
}

/// What changes from connection to connection.
#[derive(Debug)]
struct Progress {
    tail: Tail,
    pace: Pace,
    version: Version,
    /// The last failure that was logged, so that an hour of silence is not a thousand lines.
    said: String,
}

impl Uplink {
    /// Connects, and connects again, until it is to stop.
    pub(crate) fn run(&self) {
        let mut progress = Progress {
            tail: Tail::new(Arc::clone(&self.spool)),
            pace: Pace::new(self.rate),
            version: self.version(),
            said: String::new(),
        };
        if self.client.servers.is_empty() {
            self.voice.error("(4112): no <client><server> is configured: events wait in the spool");
            return;
        }
        if !self.has_key() {
            if !self.first_key() {
                return;
            }
            if let Some(server) = self.client.servers.first() {
                self.try_new_key(server, &mut progress);
            }
        }
        for server in self.client.servers.iter().cycle() {
            self.serve(server, &mut progress);
            if self.stopping() {
                return;
            }
            self.pause(server.retry_interval);
            self.voice.warning(&format!(
                "(4101): waiting for server reply; the next is `{}`",
                self.behind(server).map_or("", |next| next.address.as_str())
            ));
        }
    }

    fn behind(&self, server: &ServerAddress) -> Option<&ServerAddress> {
        let at = self.client.servers.iter().position(|one| one == server)?;
        self.client.servers.get((at + 1) % self.client.servers.len())
    }

    fn has_key(&self) -> bool {
        key::load(&self.home).is_ok_and(|key| key.is_some())
    }

    /// All attempts at one server, until they have failed.
    fn serve(&self, server: &ServerAddress, progress: &mut Progress) {
        let mut tries = 0;
        while tries < server.max_retries && !self.stopping() {
            if tries > 0 {
                self.pause(server.retry_interval);
            }
            tries = self.attempt(server, progress, tries);
        }
        if self.stopping() || !self.client.enrollment.enabled {
            return;
        }
        if self.enrol(&server.address, progress.version) {
            self.try_new_key(server, progress);
            self.attempt(server, progress, tries);
        }
    }

    /// Lets the manager learn a new key. Ours knows it at once, so this time is not spent idle.
    fn try_new_key(&self, server: &ServerAddress, progress: &mut Progress) {
        let delay = self.client.enrollment.delay_after_enrollment;
        let end = Deadline::after(delay);
        // Over UDP a manager that does not know the key is only silent.
        if !server.udp && !delay.is_zero() {
            self.attempt_within(server, progress, 0, delay.min(self.patience));
        }
        self.pause(end.remaining().unwrap_or(delay));
    }

    fn attempt(&self, server: &ServerAddress, progress: &mut Progress, tries: u32) -> u32 {
        self.attempt_within(server, progress, tries, self.patience)
    }

    /// One connection from its beginning to its end; answers how many attempts are used up now.
    fn attempt_within(
        &self,
        server: &ServerAddress,
        progress: &mut Progress,
        tries: u32,
        patience: Duration,
    ) -> u32 {
        let Some(key) = self.key() else { return u32::MAX };
        let age = Deadline::after(GOOD);
        let conversation = Conversation { uplink: self, server, key: &key, patience };
        let end = conversation.hold(progress);
        let was_connected = self.status.standing() == Standing::Connected;
        self.status.stands(Standing::Disconnected);
        match end {
            End::Stopped => u32::MAX,
            End::Refused(reason) if reason == VERSION_TOO_NEW => self.older(progress, tries, &reason),
            End::Refused(reason) => self.failed(server, progress, tries, &format!("{reason} (from manager)")),
            End::Asked => 0,
            End::Lost(reason) if was_connected => {
                self.voice
                    .warning(&format!("(4104): the connection to `{}` is lost: {reason}", server.address));
                progress.said.clear();
                if !age.passed() && !self.stopping() {
                    self.pause(server.retry_interval.min(Duration::from_secs(2)));
                }
                0
            }
            End::Lost(reason) => self.failed(server, progress, tries, &reason),
        }
    }

    fn failed(&self, server: &ServerAddress, progress: &mut Progress, tries: u32, reason: &str) -> u32 {
        let said = format!("(1216): cannot connect to `{}:{}`: {reason}", server.address, server.port);
        if progress.said == said {
            self.voice.debug(|| said);
        } else {
            self.voice.error(&said);
            progress.said = said;
        }
        tries.saturating_add(1)
    }

    /// The manager is older than the version that was told: the next one down, at once.
    fn older(&self, progress: &mut Progress, tries: u32, reason: &str) -> u32 {
        let refused = progress.version;
        let fixed = self.client.report_version.is_some();
        match VERSIONS.iter().find(|version| **version < refused).filter(|_| !fixed) {
            Some(next) => {
                self.voice.info(&format!("the manager refuses version {refused}; trying {next}"));
                progress.version = *next;
                tries
            }
            None => {
                self.voice.error(&format!("(4108): version {refused} is refused: {reason} (from manager)"));
                progress.version = self.newest();
                tries.saturating_add(1)
            }
        }
    }

    /// The version to begin with: the configured one, the one that was accepted last, or the newest.
    fn version(&self) -> Version {
        let stored = durable::read_bounded(&self.home.join(ACCEPTED), 64).ok();
        let stored = stored.and_then(|text| String::from_utf8_lossy(&text).trim().parse().ok());
        let known =
            stored.filter(|version| VERSIONS.contains(version) && self.client.report_version.is_none());
        known.unwrap_or_else(|| self.newest())
    }

    fn newest(&self) -> Version {
        let Some(text) = &self.client.report_version else { return Version::CONTRACT };
        text.parse().unwrap_or_else(|error| {
            self.voice.warning(&format!("<report_version> is not used: {error}"));
            Version::CONTRACT
        })
    }

    fn accepted(&self, version: Version) {
        if version == self.version() {
            return;
        }
        self.voice.info(&format!("the manager accepts version {version}; it is told from now on"));
        let path = self.home.join(ACCEPTED);
        if let Err(error) = durable::replace(&path, version.to_string().as_bytes(), 0o640) {
            self.voice.warning(&format!("`{ACCEPTED}` cannot be written: {error}"));
        }
    }

    fn key(&self) -> Option<AgentKey> {
        key::load(&self.home).unwrap_or_else(|error| {
            self.voice.error(&format!("(1103): cannot read `{}`: {error}", key::KEYS));
            None
        })
    }

    /// Without a key: asks everywhere, again and again; false when there will be none.
    fn first_key(&self) -> bool {
        let settings = &self.client.enrollment;
        if !settings.enabled {
            self.voice.error("(4109): there is no key in `etc/client.keys` and enrolment is disabled");
            return false;
        }
        let servers = self.client.servers.iter().map(|server| server.address.as_str());
        let hosts: Vec<&str> = settings.manager_address.as_deref().into_iter().chain(servers).collect();
        let mut pause = ENROL_PAUSE;
        loop {
            for host in &hosts {
                if self.stopping() {
                    return false;
                }
                if self.has_key() {
                    return true;
                }
                if self.enrol(host, self.version()) {
                    return true;
                }
            }
            self.pause(pause);
            pause = (pause + ENROL_PAUSE).min(ENROL_PAUSE * 12);
        }
    }

    /// A request for a key, again under an older version as long as the manager says that this is the reason.
    fn enrol(&self, host: &str, mut version: Version) -> bool {
        loop {
            match self.request_key(host, version) {
                Ok(()) => return true,
                Err(Some(EnrolError::Refused(reason))) if reason.contains(VERSION_TOO_NEW) => {}
                Err(_) => return false,
            }
            let fixed = self.client.report_version.is_some();
            let Some(next) = VERSIONS.iter().find(|next| **next < version).filter(|_| !fixed) else {
                return false;
            };
            self.voice.info(&format!("the manager refuses version {version}; trying {next}"));
            version = *next;
        }
    }

    /// One request for a key; what came of it is in the log.
    fn request_key(&self, host: &str, version: Version) -> Result<(), Option<EnrolError>> {
        let settings = &self.client.enrollment;
        let port = settings.port;
        self.voice.info(&format!("requesting a key from server: {host}"));
        if settings.server_ca_path.is_none() {
            self.voice
                .debug(|| "no authority is configured: the manager's certificate is not verified".into());
        }
        let own = self.key();
        let asked = enrol::ask(&self.home, settings, host, own.as_ref(), version, self.patience);
        let failed = |reason: &str| self.voice.error(&format!("no key from `{host}:{port}`: {reason}"));
        let key = asked.map_err(|error| {
            failed(&explain(&error));
            Some(error)
        })?;
        if let Err(error) = key::store(&self.home, &key) {
            failed(&format!("cannot write `{}`: {error}", key::KEYS));
            return Err(None);
        }
        self.voice.info(&format!("valid key received, this agent is {}", key.id));
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn pause(&self, time: Duration) {
        let end = Deadline::after(time);
        while !self.stopping() {
            match end.remaining() {
                Some(Duration::ZERO) => return,
                left => std::thread::sleep(left.unwrap_or(TICK).min(TICK)),
            }
        }
    }
}
