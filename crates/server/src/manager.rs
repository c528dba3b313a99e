//! The manager: what [`standalone`](crate::standalone) does for its own host, and besides the registry of agents, enrolment
//! and the agents' channel, whose events go the same way.
//! Invariant: nothing is taken from agents before it can be judged, and what was taken is judged before the end.

use std::io;
use std::sync::Arc;

use tld_config::{Remote, Settings};

use crate::channel::{self, Channel, Hub, Listener};
use crate::enrol::{self, Enrolment};
use crate::load::Prepared;
use crate::log::Log;
use crate::pipeline::Counts;
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
    /// The enrolment port.
    #[error(transparent)]
    Enrolment(#[from] enrol::StartError),
    /// The agents' port.
    #[error(transparent)]
    Channel(#[from] channel::StartError),
}

/// A running manager. Its parts end in the order in which they stand here.
#[derive(Debug)]
pub struct Manager {
    enrolment: Option<Enrolment>,
    channel: Channel,
    hub: Arc<Hub>,
    core: Standalone,
    registry: Arc<Registry>,
    _upkeep: Upkeep,
}

impl Manager {
    /// Starts the analysis first and the ports last.
    ///
    /// # Errors
    /// A part does not start; the ones before it are stopped again by being dropped.
    pub fn start(setup: standalone::Setup) -> Result<Self, StartError> {
        let settings = Arc::clone(&setup.prepared.settings);
        let (log, clock) = (setup.log.clone(), Arc::clone(&setup.clock));
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
            clock,
            log: log.clone(),
            options: options(&settings),
        })?;
        let core = Standalone::start_on(setup, (events, incoming))?;
        let channel = Channel::start(Arc::clone(&hub), None)?;
        let enrolment = if settings.auth.disabled {
            None
        } else {
            Some(enrol::start(Arc::clone(&registry), &enrol::Options::of(&settings.auth), log.clone())?)
        };
        tell(&log, &channel, enrolment.as_ref());
        Ok(Self { enrolment, channel, hub, core, registry, _upkeep: upkeep })
    }

    /// See [`Standalone::reload`].
    #[must_use]
    pub fn reload(&self, prepared: &Prepared) -> bool {
        self.core.reload(prepared)
    }

    /// Output failures since the last call.
    pub fn failures(&self) -> Vec<String> {
        self.core.failures()
    }

    /// The agents.
    pub const fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Closes the ports, judges what was taken, writes it out. Blocks stay.
    pub fn stop(self) -> Counts {
        drop(self.enrolment);
        drop(self.channel);
        // The hub holds an entrance to the analysis, which ends when there is none any more.
        drop(self.hub);
        self.core.stop()
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

fn options(settings: &Settings) -> channel::Options {
    let secure = settings.remotes.iter().filter(|remote| !remote.syslog);
    channel::Options {
        listeners: secure.map(listener).collect(),
        disconnection_time: settings.global.agents_disconnection_time,
        alert_time: settings.global.agents_disconnection_alert_time,
        node: settings.global.node_name.clone(),
        ..channel::Options::default()
    }
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
