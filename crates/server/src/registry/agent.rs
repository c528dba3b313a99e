//! One registered agent: its entry in the key file, which never changes, and what is known of its connection, which does.
//! Invariant: the origin that events carry agrees with the activity it was made from.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tld_model::{AgentId, Timestamp};
use tld_wire::key::{AgentKey, SealingKeys};

/// How an agent stands with the manager (wire contract 3.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum State {
    /// Registered, and that is all.
    #[default]
    NeverConnected,
    /// Its start was accepted.
    Pending,
    /// Its keep-alives come.
    Active,
    /// It said goodbye or fell silent.
    Disconnected,
}

impl State {
    /// All of them, for filters and stored values.
    pub const ALL: [Self; 4] = [Self::NeverConnected, Self::Pending, Self::Active, Self::Disconnected];

    /// The contract's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverConnected => "never_connected",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Disconnected => "disconnected",
        }
    }

    /// The state of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an agent is in its state; the numbers are the contract's `status_code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// Nothing is wrong.
    #[default]
    Fine,
    /// Refused, since its version is newer than the manager's.
    VersionTooNew,
    /// Refused, since it did not tell its version.
    VersionUnknown,
    /// It said that it stops.
    ShutDown,
    /// No keep-alive came for too long.
    NoKeepAlive,
    /// The manager itself was started anew.
    ResetByManager,
}

impl Status {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::Fine,
        Self::VersionTooNew,
        Self::VersionUnknown,
        Self::ShutDown,
        Self::NoKeepAlive,
        Self::ResetByManager,
    ];

    /// The contract's number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::VersionTooNew => 1,
            Self::VersionUnknown => 2,
            Self::ShutDown => 3,
            Self::NoKeepAlive => 4,
            Self::ResetByManager => 5,
        }
    }

    /// The status of that number.
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

/// What is known of an agent beyond its key. Survives restarts in the registry's store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Activity {
    /// Its state.
    pub state: State,
    /// Why.
    pub status: Status,
    /// Moment of the last keep-alive.
    pub last_keep_alive: Option<Timestamp>,
    /// Moment when it became disconnected.
    pub disconnected_at: Option<Timestamp>,
    /// Its version as it reports it, such as `v4.14.7`.
    pub version: Option<String>,
    /// Its system, the first line of its keep-alive.
    pub os: Option<String>,
    /// Its own address as it reports it, shown in alerts.
    pub ip: Option<String>,
    /// MD5 of the shared files it has.
    pub merged_sum: Option<String>,
    /// MD5 of its own configuration.
    pub config_sum: Option<String>,
    /// Node of the cluster that it speaks to.
    pub node: Option<String>,
    /// Groups in order; the later ones win.
    pub groups: Vec<String>,
    /// Visible labels, shown in alerts.
    pub labels: Vec<(String, String)>,
}

#[derive(Debug)]
struct Live {
    activity: Activity,
    origin: Arc<tld_model::Agent>,
}

/// One agent. Shared between the registry's tables of all generations while its line stays the same.
#[derive(Debug)]
pub struct Agent {
    /// Number; look-ups go by it. The text as written is `key.id`.
    pub id: AgentId,
    /// The entry of the key file.
    pub key: AgentKey,
    /// When it was added, if that is known.
    pub registered: Option<Timestamp>,
    sealing: OnceLock<SealingKeys>,
    live: Mutex<Live>,
    unsaved: AtomicBool,
}

impl Agent {
    pub(super) fn new(
        id: AgentId,
        key: AgentKey,
        registered: Option<Timestamp>,
        activity: Activity,
    ) -> Arc<Self> {
        let origin = origin(id, &key, &activity);
        Arc::new(Self {
            id,
            key,
            registered,
            sealing: OnceLock::new(),
            live: Mutex::new(Live { activity, origin }),
            unsaved: AtomicBool::new(false),
        })
    }

    /// What is known of it now.
    pub fn activity(&self) -> Activity {
        self.live().activity.clone()
    }

    /// Its state now; cheaper than [`Self::activity`].
    pub fn state(&self) -> State {
        self.live().activity.state
    }

    /// Its groups now; cheaper than [`Self::activity`].
    pub fn groups(&self) -> Vec<String> {
        self.live().activity.groups.clone()
    }

    /// Whether it is in no group.
    pub fn has_no_group(&self) -> bool {
        self.live().activity.groups.is_empty()
    }

    /// Changes what is known of it; stored with the registry's next [`flush`](super::Registry::flush).
    pub fn update<R>(&self, change: impl FnOnce(&mut Activity) -> R) -> R {
        let mut live = self.live();
        let result = change(&mut live.activity);
        if live.origin.ip != live.activity.ip || live.origin.labels != live.activity.labels {
            live.origin = origin(self.id, &self.key, &live.activity);
        }
        drop(live);
        self.unsaved.store(true, Ordering::Release);
        result
    }

    /// The sender of its events, as rules and alerts see it.
    pub fn origin(&self) -> Arc<tld_model::Agent> {
        Arc::clone(&self.live().origin)
    }

    /// The keys of its channel, derived once.
    pub fn sealing(&self) -> &SealingKeys {
        self.sealing.get_or_init(|| self.key.sealing())
    }

    /// Whether a peer at that address may speak for it.
    pub fn may_speak_from(&self, address: IpAddr) -> bool {
        self.key.ip.contains(address)
    }

    pub(super) fn take_unsaved(&self) -> bool {
        self.unsaved.swap(false, Ordering::AcqRel)
    }

    pub(super) fn mark_unsaved(&self) {
        self.unsaved.store(true, Ordering::Release);
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn origin(id: AgentId, key: &AgentKey, activity: &Activity) -> Arc<tld_model::Agent> {
    Arc::new(tld_model::Agent {
        id,
        name: key.name.clone(),
        registered_ip: key.ip.to_string(),
        ip: activity.ip.clone(),
        labels: activity.labels.clone(),
    })
}
