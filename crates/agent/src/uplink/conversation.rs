//! One connection: handshake, signs of life, and what the manager says.
//! Invariant: reading never waits for sending, so an order arrives also while the manager takes no events.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tld_config::ServerAddress;
use tld_sys::clock::{Clock, SystemClock};
use tld_wire::control::{FromAgent, KeepAlive, Label, QueryId, QueryTarget};
use tld_wire::event;
use tld_wire::key::AgentKey;
use tld_wire::seal::Method;
use tld_wire::session::agent::{Closing, Session, Step, Timing};

use super::lane::Confirms;
use super::link::{Channel, Incoming, Letters, Stamp};
use super::pump::Pump;
use super::status::Standing;
use super::{Errand, Notice, Progress, Uplink, shared};
use crate::identity;

/// Longest wait for a word before looking at the clock and at the wish to stop.
const TICK: Duration = Duration::from_millis(200);
/// Time for a manager to declare our extension behind its acknowledgement.
const DECLARES: Duration = Duration::from_millis(700);
/// Time for one that declared it to say what it has taken, which it does at once: a busy host must not cut it short.
const COUNTS: Duration = Duration::from_secs(20);
/// Pause between two tellings of what is not confirmed.
const AGAIN: Duration = Duration::from_secs(30);
/// Time for the last words.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// We stop.
    Stopped,
    /// The manager said no.
    Refused(String),
    /// The manager wants a new handshake.
    Asked,
    /// Anything else.
    Lost(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    pub(super) uplink: &'a Uplink,
    pub(super) server: &'a ServerAddress,
    pub(super) key: &'a AgentKey,
    /// For the connection, and for the answer to the handshake.
    pub(super) patience: Duration,
}

/// The reading side's state.
struct Talk<'a> {
    of: &'a Conversation<'a>,
    channel: &'a Channel,
    session: Session,
    version: tld_wire::version::Version,
    settle_at: Option<Duration>,
    tell_at: Duration,
    complained: bool,
}

impl Conversation<'_> {
    /// Connects and talks to the end.
    pub(super) fn hold(&self, progress: &mut Progress) -> End {
        let (uplink, server) = (self.uplink, self.server);
        uplink.voice.info(&format!("(4102): trying to connect to `{}:{}`", server.address, server.port));
        let channel = match Channel::open(&server.address, server.port, server.udp, self.patience) {
            Ok(channel) => channel,
            Err(error) => return End::Lost(error.to_string()),
        };
        let timing = Timing {
            notify: uplink.client.notify_time,
            reconnect: uplink.client.time_reconnect,
            handshake: self.patience,
        };
        let now = SystemClock.boot();
        let (session, hello) = Session::start_as(progress.version, timing, now);
        uplink.lane.begin(hello);
        let method = if uplink.client.blowfish { Method::Blowfish } else { Method::Aes };
        let numbers = std::sync::Arc::clone(&uplink.numbers);
        let mut pump = Pump {
            lane: &uplink.lane,
            spool: &uplink.spool,
            tail: &mut progress.tail,
            pace: &mut progress.pace,
            status: &uplink.status,
            channel: &channel,
            stamp: Stamp::new(self.key, method, channel.is_udp(), numbers),
            voice: &uplink.voice,
        };
        let mut talk = Talk {
            of: self,
            channel: &channel,
            session,
            version: progress.version,
            settle_at: None,
            tell_at: Duration::MAX,
            complained: false,
        };
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let sent = pump.run();
                // A reader that waits must learn that nothing can be sent any more.
                if sent.is_err() {
                    channel.shut();
                }
                sent
            });
            let end = talk.listen(Letters::new(self.key, method), || sending.is_finished());
            uplink.lane.close();
            channel.shut();
            match (sending.join(), end) {
                (Ok(Err(error)), End::Lost(_)) => End::Lost(error.to_string()),
                (_, end) => end,
            }
        })
    }
}

impl Talk<'_> {
    fn listen(&mut self, mut letters: Letters, ended: impl Fn() -> bool) -> End {
        let uplink = self.of.uplink;
        let mut incoming = Incoming::new(self.channel);
        let force = uplink.client.force_reconnect_interval.map(|interval| SystemClock.boot() + interval);
        loop {
            if uplink.stopping() {
                self.part(&ended);
                return End::Stopped;
            }
            let now = SystemClock.boot();
            if ended() {
                return End::Lost("nothing can be sent".into());
            }
            if force.is_some_and(|at| now >= at) {
                return End::Asked;
            }
            let message = match incoming.next(self.session.deadline().saturating_sub(now).min(TICK)) {
                Ok(message) => message,
                Err(error) => return End::Lost(error.to_string()),
            };
            let now = SystemClock.boot();
            let mut steps = self.session.on_time(now);
            if let Some(message) = message {
                steps.extend(self.open(&mut letters, &message, now));
            }
            for step in steps {
                if let Some(end) = self.step(step, now) {
                    return end;
                }
            }
            self.timers(now);
        }
    }

    fn open(&mut self, letters: &mut Letters, message: &[u8], now: Duration) -> Vec<Step> {
        if message == tld_wire::frame::PONG {
            return Vec::new();
        }
        match letters.open(message) {
            Ok(payload) => {
                self.of.uplink.status.heard();
                self.session.on_payload(&payload, now)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    self.of.uplink.voice.warning(&format!("a message of the manager was dropped: {error}"));
                }
                Vec::new()
            }
        }
    }

    fn timers(&mut self, now: Duration) {
        let uplink = self.of.uplink;
        if self.settle_at.is_some_and(|at| now >= at) {
            self.settle_at = None;
            if uplink.lane.confirms() == Confirms::Unknown {
                uplink.lane.settle(Confirms::No);
            }
        }
        if now >= self.tell_at {
            self.tell(now);
        }
    }

    fn tell(&mut self, now: Duration) {
        self.tell_at = now + AGAIN;
        for message in self.of.uplink.outcomes.messages() {
            self.of.uplink.lane.report(message);
        }
    }

    fn step(&mut self, step: Step, now: Duration) -> Option<End> {
        let uplink = self.of.uplink;
        match step {
            Step::Send(payload) => uplink.lane.urge(payload),
            Step::Connected => self.connected(now),
            Step::Extended => {
                uplink.lane.extend();
                self.settle_at = self.settle_at.map(|_| now + COUNTS);
                uplink.voice.info("the manager takes reports of what becomes of its orders");
                self.tell(now);
            }
            Step::KeepAlive => {
                uplink.lane.urge(FromAgent::KeepAlive(self.keep_alive()).to_bytes());
                uplink.status.kept_alive();
            }
            Step::Execd(json, ticket) => self.errand(Errand::Order(json, ticket)),
            Step::Confirmed(order, kind) => {
                uplink.outcomes.confirmed(&order, kind);
                self.errand(Errand::Confirmed(order, kind));
            }
            Step::Cancel(order) => self.errand(Errand::Cancel(order)),
            Step::Taken(pair) => {
                let delivered = uplink.lane.taken(pair);
                if uplink.lane.confirms() != Confirms::Yes {
                    uplink.lane.settle(Confirms::Yes);
                }
                uplink.spool.release(delivered);
            }
            Step::File { name, content } => self.file(&name, &content),
            Step::BadFile(name) => {
                uplink.voice.warning(&format!("the manager's file `{name}` came damaged; it is dropped"));
                shared::forget(&uplink.home, &name);
            }
            Step::Query(id, target, text) => self.query(id, target, text),
            Step::Forward(_) => uplink.voice.debug(|| "a request for a module that is not here".into()),
            Step::Close(why) => {
                return Some(match why {
                    Closing::HandshakeTimeout => End::Lost("no answer to the handshake".into()),
                    Closing::Silent => End::Lost("the manager has been silent".into()),
                    Closing::Refused(reason) => End::Refused(reason),
                    Closing::Asked => End::Asked,
                });
            }
        }
        None
    }

    fn errand(&self, errand: Errand) {
        // A full queue makes the manager wait, which is better than an order less.
        if self.of.uplink.errands.send(errand).is_err() {
            self.of.uplink.voice.error("nobody takes the manager's orders any more");
        }
    }

    fn connected(&mut self, now: Duration) {
        let (uplink, server) = (self.of.uplink, self.of.server);
        uplink.status.stands(Standing::Connected);
        let kind = if server.udp { "udp" } else { "tcp" };
        uplink
            .voice
            .info(&format!("(4102): connected to the server `{}:{}/{kind}`", server.address, server.port));
        uplink.accepted(self.version);
        self.settle_at = Some(now + DECLARES);
        if !uplink.started.swap(true, Ordering::SeqCst) {
            uplink.lane.urge(event::agent_started(self.of.key));
        }
    }

    fn keep_alive(&self) -> KeepAlive {
        let uplink = self.of.uplink;
        let labels = uplink.labels.iter().map(|label| Label {
            system: false,
            hidden: label.hidden,
            key: label.key.clone(),
            value: label.value.clone(),
        });
        KeepAlive {
            system: identity::system(),
            product: Some(format!("Wazuh {}", self.version)),
            config_sum: shared::sum(&uplink.home, "agent.conf"),
            labels: labels.collect(),
            merged_sum: shared::sum(&uplink.home, "merged.mg"),
            ip: self.channel.local_ip(),
        }
    }

    fn file(&self, name: &str, content: &[u8]) {
        let uplink = self.of.uplink;
        match shared::take(&uplink.home, name, content) {
            Ok(changed) => {
                uplink.voice.info(&format!("the manager's `{name}` was taken, {} bytes", content.len()));
                if shared::tells_orders(name) {
                    self.errand(Errand::Files);
                }
                if changed {
                    let _ = uplink.notices.send(Notice::Configuration);
                }
            }
            Err(error) => uplink.voice.error(&format!("the manager's `{name}` is not used: {error}")),
        }
    }

    fn query(&self, id: QueryId, target: QueryTarget, text: Vec<u8>) {
        let uplink = self.of.uplink;
        if self.channel.is_udp() {
            uplink.lane.urge(FromAgent::QueryReceived(id.clone()).to_bytes());
        }
        let lane = std::sync::Arc::clone(&uplink.lane);
        uplink.answers.ask(target, text, move |text| {
            lane.urge(FromAgent::Answer { id, text }.to_bytes());
        });
    }

    /// The goodbye, and a moment for it to leave.
    fn part(&self, ended: &impl Fn() -> bool) {
        let uplink = self.of.uplink;
        if !self.session.is_connected() || uplink.quiet.load(Ordering::SeqCst) {
            return;
        }
        uplink.lane.urge(FromAgent::Shutdown.to_bytes());
        let until = SystemClock.boot() + FAREWELL;
        while uplink.lane.has_urgent() && !ended() && SystemClock.boot() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
