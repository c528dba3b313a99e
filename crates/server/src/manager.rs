//! The manager: what [`standalone`](crate::standalone) does for its own host, and besides the registry of agents, enrolment,
//! the agents' channel, whose events go the same way, the orders to agents, and the entrances for other tools.
//! Invariant: nothing is taken from agents before it can be judged, and what was taken is judged before the end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tld_config::{Remote, Settings};
use tld_sys::durable;
use tld_wire::merged::{self, ResponseLine};

use crate::channel::{self, Channel, Hub, Listener};
use crate::dispatch::fleet::control::Door;
use crate::dispatch::fleet::{self, Fleet, Own};
use crate::dispatch::ledger::LedgerError;
use crate::enrol::{self, Enrolment};
use crate::intake::{self, Intake};
use crate::load::Prepared;
use crate::log::Log;
use crate::pipeline::Counts;
use crate::reach::Attendant;
use crate::registry::{Registry, RegistryError, Upkeep};
use crate::standalone::{self, Standalone};

/// The manager could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Collectors, analysis or outputs.
    #[error(transparent)]
    Core(#[from] standalone::StartError),
    /// The agents' keys.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The thread that keeps them current.
    #[error("cannot watch the agents' keys: {0}")]
    Upkeep(#[source] io::Error),
    /// The list of responses for agents.
    #[error("cannot write `{path}`: {source}")]
    Responses {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The enrolment port.
    #[error(transparent)]
    Enrolment(#[from] enrol::StartError),
    /// The agents' port.
    #[error(transparent)]
    Channel(#[from] channel::StartError),
    /// The orders' ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The entrances for other tools.
    #[error(transparent)]
    Intake(#[from] intake::StartError),
    /// The operator's door.
    #[error("operators could not ask the manager: {0}")]
    Door(#[source] io::Error),
}

/// A running manager. Its parts end in the order in which they stand here.
#[derive(Debug)]
pub struct Manager {
    enrolment: Option<Enrolment>,
    door: Door,
    intake: Intake,
    channel: Channel,
    hub: Arc<Hub>,
    core: Standalone,
    log: Log,
    fleet: Arc<Fleet>,
    registry: Arc<Registry>,
    _upkeep: Upkeep,
}

impl Manager {
    /// Starts the analysis first and the ports last.
    ///
    /// # Errors
    /// A part does not start; the ones before it are stopped again by being dropped.
    pub fn start(mut setup: standalone::Setup) -> Result<Self, StartError> {
        let settings = Arc::clone(&setup.prepared.settings);
        let (home, log, clock) = (setup.home.clone(), setup.log.clone(), Arc::clone(&setup.clock));
        // Before the groups' files are looked at for the first time.
        let group = home.join("etc/shared/default");
        durable::create_dirs(&group, 0o770)
            .map_err(|source| StartError::Responses { path: group, source })?;
        write_responses(&home, &settings)?;
        let registry = Registry::open(crate::registry::Setup {
            home: setup.home.clone(),
            clock: Arc::clone(&clock),
            zone: setup.zone.clone(),
            warn: {
                let log = log.clone();
                Arc::new(move |text: &str| log.warning(text))
            },
        })?;
        let registry = Arc::new(registry);
        registry.reset_connections();
        let upkeep = Upkeep::start(Arc::clone(&registry)).map_err(StartError::Upkeep)?;
        let (events, incoming) = standalone::entrance();
        let hub = Hub::new(channel::Setup {
            registry: Arc::clone(&registry),
            events: events.clone(),
            clock: Arc::clone(&clock),
            log: log.clone(),
            options: options(&home, &settings),
        })?;
        let own = Own::new(setup.carrier);
        setup.carrier = Box::new(own.clone());
        let fleet = Fleet::start(fleet::Setup {
            home: setup.home.clone(),
            registry: Arc::clone(&registry),
            own,
            policy: Arc::clone(&setup.prepared.policy),
            clock: Arc::clone(&clock),
            log: log.clone(),
        })?;
        setup.fleet = Some(Arc::clone(&fleet));
        let entrance = events.clone();
        let core = Standalone::start_on(setup, (events, incoming))?;
        fleet.connect(Arc::<Hub>::clone(&hub));
        let channel =
            Channel::start(Arc::clone(&hub), Some(Arc::<Fleet>::clone(&fleet) as Arc<dyn Attendant>))?;
        let intake = Intake::start(&intake::Setup {
            home: home.clone(),
            events: Arc::new(move |event| entrance.send(event).is_ok()),
            registry: Arc::clone(&registry),
            fleet: Arc::clone(&fleet),
            clock,
            log: log.clone(),
            remotes: settings.remotes.clone(),
        })?;
        hub.count_also(intake.counts());
        let door = Door::open(&home, Arc::clone(&fleet)).map_err(StartError::Door)?;
        let enrolment = if settings.auth.disabled {
            None
        } else {
            Some(enrol::start(Arc::clone(&registry), &enrol::Options::of(&settings.auth), log.clone())?)
        };
        tell(&log, &channel, enrolment.as_ref());
        for address in intake.addresses() {
            log.info(&format!("syslog is heard on {address}"));
        }
        Ok(Self { enrolment, door, intake, channel, hub, core, log, fleet, registry, _upkeep: upkeep })
    }

    /// See [`Standalone::reload`].
    #[must_use]
    pub fn reload(&self, prepared: &Prepared) -> bool {
        if !self.core.reload(prepared) {
            return false;
        }
        match write_responses(self.registry.home(), &prepared.settings) {
            Ok(true) => self.channel.refresh(),
            Ok(false) => {}
            Err(error) => self.log.error(&error.to_string()),
        }
        true
    }

    /// Output failures since the last call.
    pub fn failures(&self) -> Vec<String> {
        self.core.failures()
    }

    /// The agents.
    pub const fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The orders.
    pub const fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Closes the ports, judges what was taken, writes it out. Blocks stay.
    pub fn stop(self) -> Counts {
        drop(self.enrolment);
        drop(self.door);
        drop(self.intake);
        drop(self.channel);
        // The hub holds an entrance to the analysis, which ends when there is none any more.
        self.fleet.disconnect();
        drop(self.hub);
        let counts = self.core.stop();
        // What the last events caused is written down and sent after the next start.
        self.fleet.stop();
        counts
    }
}

fn tell(log: &Log, channel: &Channel, enrolment: Option<&Enrolment>) {
    let list: Vec<_> = channel.addresses().iter().map(ToString::to_string).collect();
    if list.is_empty() {
        log.warning("no `<remote>` with connection `secure` is configured: no agent can connect");
    } else {
        log.info(&format!("agents may connect to {}", list.join(", ")));
    }
    match enrolment {
        Some(enrolment) => log.info(&format!("agents may enrol at {}", enrolment.address())),
        None => log.info("enrolment is off"),
    }
}

fn options(home: &Path, settings: &Settings) -> channel::Options {
    let (tunables, _) = tld_config::internal_options(home);
    let secure: Vec<_> = settings.remotes.iter().filter(|remote| !remote.syslog).collect();
    let defaults = channel::Options::default();
    channel::Options {
        listeners: secure.iter().map(|remote| listener(remote)).collect(),
        disconnection_time: settings.global.agents_disconnection_time.max(Duration::from_secs(1)),
        alert_time: settings.global.agents_disconnection_alert_time,
        overtake: secure.last().map_or(defaults.overtake, |remote| remote.overtake),
        verify_counters: tunables.value("remoted.verify_msg_id") == Some(1),
        allow_higher_versions: secure.iter().any(|remote| remote.allow_higher_versions),
        node: settings.global.node_name.clone(),
        shared_reload: tunables
            .value("remoted.shared_reload")
            .map_or(defaults.shared_reload, |seconds| Duration::from_secs(seconds.into())),
        ..defaults
    }
}

/// Writes `etc/shared/ar.conf` if it says something else: every change of it makes every agent read its configuration anew.
fn write_responses(home: &Path, settings: &Settings) -> Result<bool, StartError> {
    let line = |response: &tld_config::Response| ResponseLine {
        name: response.name.clone(),
        executable: response.executable.clone(),
        timeout: response.timeout_secs,
    };
    let lines: Vec<_> = settings.responses.iter().map(line).collect();
    let text = merged::print_responses(&lines);
    let path = home.join("etc/shared/ar.conf");
    if durable::read_bounded(&path, merged::BUNDLE_LIMIT).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    let written = durable::replace(&path, text.as_bytes(), 0o640);
    written.map_err(|source| StartError::Responses { path, source })?;
    Ok(true)
}

const fn listener(remote: &Remote) -> Listener {
    Listener {
        address: remote.local_ip,
        port: remote.port,
        tcp: remote.tcp,
        udp: remote.udp,
        ipv6: remote.ipv6,
    }
}
