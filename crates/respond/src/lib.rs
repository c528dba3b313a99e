//! Durable execution of responses on one endpoint: blocked means blocked, until the time is over, whatever dies.
//!
//! Start-up: [`Responder::start`] opens the journal under its lock, opens the firewall, makes the world match the
//! journal, and only then takes orders. One thread owns all state ([`executor`]); files of the operator, the guard's
//! look at the system, the log and the firewall's notifications have threads of their own, and none of them can
//! make it wait.

mod actions;
mod bus;
pub mod carrier;
pub mod control;
mod dialect;
mod escalation;
mod executable;
mod executor;
mod guard;
mod heard;
pub mod installation;
mod iptables;
pub mod journal;
mod kernel;
mod log;
mod member;
pub mod multicall;
mod offline;
pub mod once;
pub mod ossec_log;
mod reconcile;
pub mod rehearsal;
mod scheduler;
mod script;
mod sessions;
mod together;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tld_config::InternalOptions;
pub use tld_config::executable::ResolveError;
use tld_model::{Order, OrderId, Outcome, OutcomeKind, Target, Timestamp, Zone};
pub use tld_pattern::Network;
use tld_sys::child;
use tld_sys::clock::Clock;
use tld_sys::group::{Bounds, Groups};

pub use actions::{Places, Takes, takes};
pub use control::Status;
pub use executable::{Hash, self_hash};
pub use journal::{JournalError, Kind, Listed, State};
pub use log::Rotation;
pub use offline::{OfflineError, revert_offline};

use executor::{Executor, Input, Parts, Settings};
use guard::Guard;
use journal::Journal;
use kernel::Kernel;

/// Takes lines for ossec.log.
pub type LogFn = Arc<dyn Fn(&str) + Send + Sync>;

/// Whether effects are real.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Real,
    /// The kernel is left alone; the text says why, in plain words. Operators' files still run.
    DryRun(String),
}

/// Bounds of time and number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A file must send its key line within this time (where a timeout is set), and read what it is sent.
    pub key_line: Duration,
    /// A file must end within this time.
    pub total: Duration,
    /// After this time without a key line the input of a file without timeout is closed.
    pub stdin_grace: Duration,
    /// Memory of one process of a file, in bytes; 0 = any.
    pub memory: u64,
    /// Processes of one file at once; 0 = any.
    pub processes: u64,
    /// How the log of responses is kept from growing.
    pub rotation: Rotation,
    /// Files that run at once.
    pub concurrent: usize,
    /// Files that rest or run for longer than half a second, beside those. Each takes four descriptors and a thread.
    pub slow: usize,
    /// Bytes of memory that those may hold together.
    pub slow_memory: u64,
    /// Undo runs of files at once, beside those.
    pub concurrent_reverts: usize,
    /// Orders that wait.
    pub queue: usize,
    /// Effects at once.
    pub live: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_line: Duration::from_secs(60),
            total: Duration::from_secs(300),
            stdin_grace: Duration::from_secs(5),
            memory: 512 << 20,
            processes: 64,
            rotation: Rotation::default(),
            concurrent: 64,
            slow: 2_048,
            slow_memory: (tld_sys::host::memory() / 4).max(64 << 20),
            concurrent_reverts: 16,
            queue: 16_384,
            live: 1_200_000,
        }
    }
}

impl Limits {
    /// The defaults, with what the tunables of the installation say.
    pub fn of(options: &InternalOptions) -> Self {
        let defaults = Self::default();
        let value = |name: &str| options.value(name).map(u64::from);
        let secs = |name: &str, default| value(name).map_or(default, Duration::from_secs);
        let total = secs("execd.script_timeout", defaults.total);
        Self {
            key_line: secs("execd.script_key_timeout", defaults.key_line).min(total),
            total,
            memory: value("execd.script_memory").map_or(defaults.memory, |megabytes| megabytes << 20),
            processes: value("execd.script_processes").unwrap_or(defaults.processes),
            concurrent: value("execd.max_scripts").map_or(defaults.concurrent, |count| count as usize),
            rotation: Rotation::of(options),
            ..defaults
        }
    }

    /// The number of processes is not among them: the system would count all of the user's, not those of one file.
    fn of_script(&self) -> child::Limits {
        child::Limits { data_bytes: (self.memory > 0).then_some(self.memory), ..child::Limits::none() }
    }

    /// Of one file with all that it starts.
    fn of_group(&self) -> Bounds {
        let set = |bound: u64| (bound > 0).then_some(bound);
        Bounds { processes: set(self.processes), memory_bytes: set(self.memory) }
    }
}

/// A step at which tests kill the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// The intent is durable, nothing is done.
    BeforeApply,
    /// Done, not yet recorded.
    AfterApplyBeforeCommit,
    /// Recorded.
    WhileActive,
    /// The intent to undo is durable, nothing is undone.
    WhileReverting,
    /// Undone, not yet recorded.
    AfterRevert,
}

impl CrashPoint {
    /// Parses the name used by tests (`before-apply`, `after-apply`, `while-active`, `while-reverting`,
    /// `after-revert`).
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "before-apply" => Self::BeforeApply,
            "after-apply" => Self::AfterApplyBeforeCommit,
            "while-active" => Self::WhileActive,
            "while-reverting" => Self::WhileReverting,
            "after-revert" => Self::AfterRevert,
            _ => return None,
        })
    }
}

/// What a responder is told at start.
#[derive(Clone)]
pub struct Setup {
    /// Home directory.
    pub home: PathBuf,
    /// Name of the nftables table.
    pub table: String,
    /// Real or not.
    pub mode: Mode,
    /// Escalation steps in minutes.
    pub repeated_offenders: Vec<u32>,
    /// Networks that are never blocked.
    pub protected: Vec<Network>,
    /// Names or addresses of this host's managers, never blocked and always in reach.
    pub managers: Vec<String>,
    /// Where this host keeps what actions change.
    pub places: Places,
    /// Bounds.
    pub limits: Limits,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Name of the present boot; the system's own if `None`.
    pub boot_id: Option<String>,
    /// Zone of log lines.
    pub zone: Zone,
    /// Content hash of our own executable ([`self_hash`]); without it nothing runs in process.
    pub self_hash: Option<Hash>,
    /// Lines for ossec.log.
    pub log: LogFn,
    /// Takes what becomes of orders that are to be [reported](tld_model::OrderOptions::reported), those of earlier
    /// lives too, until they are [confirmed](Responder::confirm).
    pub reports: Option<Sender<Report>>,
    /// For tests only.
    pub crash_at: Option<CrashPoint>,
}

impl Setup {
    /// The usual setup of a home.
    pub fn new(home: PathBuf, clock: Arc<dyn Clock>, log: LogFn) -> Self {
        Self {
            home,
            table: TABLE.into(),
            mode: Mode::Real,
            repeated_offenders: Vec::new(),
            protected: Vec::new(),
            managers: Vec::new(),
            places: Places::default(),
            limits: Limits::default(),
            clock,
            boot_id: None,
            zone: Zone::system(),
            self_hash: None,
            log,
            reports: None,
            crash_at: None,
        }
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("home", &self.home).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// The responder cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal is unusable.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// The order was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many orders wait.
    #[error("the responder's queue is full")]
    Full,
    /// It is stopping.
    #[error("the responder has stopped")]
    Stopped,
}

/// What to lift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevertSelector {
    /// The effect of one order.
    Order(OrderId),
    /// Every effect on an address.
    Address(IpAddr),
    /// Every effect on what lists show as this: an account, a file.
    Target(String),
    /// Every effect.
    All,
}

/// What a manager is told of its orders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The order is in the journal; it need not be sent again.
    Received(OrderId),
    /// What became of it; told again after every start, until it is confirmed.
    Outcome(Box<Outcome>),
}

/// An effect that is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveEffect {
    /// Order that began it.
    pub order: OrderId,
    /// Response name.
    pub response: String,
    /// Executable relative to the home.
    pub program: String,
    /// Entry key.
    pub key: String,
    /// Target.
    pub target: Target,
    /// `active` or `reverting`.
    pub state: State,
    /// End; none = without end.
    pub until: Option<Timestamp>,
}

/// A running responder.
#[derive(Debug)]
pub struct Responder {
    inbox: SyncSender<Input>,
    threads: Vec<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Responder {
    /// Starts it; when this returns, the world matches the journal.
    ///
    /// # Errors
    /// When the journal or a thread is not to be had. Without a firewall it starts; orders that need one are answered
    /// with the reason.
    pub fn start(setup: Setup, outcomes: Sender<Outcome>) -> Result<Self, StartError> {
        let kernel = match &setup.mode {
            Mode::DryRun(_) => Ok(None),
            Mode::Real => kernel::open(&setup.table).map(Some),
        };
        let (kernel, unable) = match kernel {
            Ok(kernel) => (kernel, None),
            Err(unable) => {
                (setup.log)(&format!("ALARM: no address can be blocked on this host: {unable}"));
                (None, Some(unable))
            }
        };
        let port = kernel.as_ref().and_then(|kernel| kernel.port());
        let table = setup.table.clone();
        let log = Arc::clone(&setup.log);
        let (hosts_deny, home) = (setup.places.hosts_deny.clone(), setup.home.clone());
        let mut responder = Self::start_with(setup, kernel, unable, Box::new(guard::live), outcomes)?;
        let (inbox, ended) = (responder.inbox.clone(), Arc::clone(&responder.ended));
        responder.threads.extend(executor::watch_files(&hosts_deny, inbox, ended));
        let (inbox, ended) = (responder.inbox.clone(), Arc::clone(&responder.ended));
        responder.threads.extend(control::open(&home, inbox, ended, &log));
        if let Some(port) = port {
            let (inbox, ended) = (responder.inbox.clone(), Arc::clone(&responder.ended));
            responder.threads.extend(kernel::watch(&table, port, inbox, ended, &log));
        }
        Ok(responder)
    }

    fn start_with(
        setup: Setup,
        kernel: Option<Box<dyn Kernel>>,
        unable: Option<kernel::Unable>,
        probe: guard::Probe,
        outcomes: Sender<Outcome>,
    ) -> Result<Self, StartError> {
        let boot_id = setup.boot_id.or_else(tld_sys::clock::boot_id).unwrap_or_default();
        let (journal, damage) = Journal::open(&setup.home, &boot_id)?;
        let (inbox, inputs) = sync_channel(setup.limits.queue);
        let files = tld_sys::tcp::raise_open_files(OPEN_FILES);
        let mut limits = setup.limits;
        limits.slow = limits.slow.min(usize::try_from(files / FILES_OF_SLOW).unwrap_or(usize::MAX));
        let parts = Parts {
            journal,
            kernel,
            guard: Guard::start(setup.protected, &setup.managers, probe)?,
            recogniser: executable::Recogniser::new(setup.self_hash),
            writer: log::Writer::start(
                &setup.home,
                Arc::clone(&setup.log),
                log::Keeper::new(&setup.home, limits.rotation, &setup.zone, Arc::clone(&setup.clock)),
            )?,
            clock: setup.clock,
            outcomes,
            inbox: inbox.clone(),
            settings: Settings {
                home: setup.home,
                repeated_offenders: setup.repeated_offenders,
                limits,
                zone: setup.zone,
                crash_at: setup.crash_at,
                log: setup.log,
                boot_id,
                places: setup.places,
                unable,
                groups: Groups::find(),
                dry_run: match setup.mode {
                    Mode::Real => None,
                    Mode::DryRun(reason) => Some(reason),
                },
            },
        };
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let mut executor = Executor::new(parts);
        executor.report_to(setup.reports);
        executor.replay(damage.as_deref())?;
        executor.report_untold();
        let work = move || {
            executor.run(&inputs);
            flag.store(true, Ordering::SeqCst);
        };
        let thread = std::thread::Builder::new().name("responder".into()).spawn(work)?;
        Ok(Self { inbox, threads: vec![thread], ended })
    }

    /// Takes an order, or says at once that it cannot.
    ///
    /// # Errors
    /// When too many orders wait, or the responder has stopped.
    pub fn submit(&self, order: Order) -> Result<(), Refused> {
        self.inbox.try_send(Input::Order(Box::new(order))).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Disconnected(_) => Refused::Stopped,
        })
    }

    /// Takes an order, waiting for room: for a caller whose own sender feels the wait.
    ///
    /// # Errors
    /// When the responder has stopped.
    pub fn submit_waiting(&self, order: Order) -> Result<(), Refused> {
        // A send error only means that the receiver is gone; it carries the order back, which nobody needs.
        self.inbox.send(Input::Order(Box::new(order))).map_err(|_stopped| Refused::Stopped)
    }

    /// Lifts effects before their time. Outcomes tell when it is done.
    pub fn revert(&self, selector: RevertSelector) {
        let _ = self.inbox.send(Input::Revert(selector));
    }

    /// A manager has stored an outcome; it need not be reported again.
    pub fn confirm(&self, order: OrderId, kind: OutcomeKind) {
        let _ = self.inbox.send(Input::Confirmed(order, kind));
    }

    /// A manager withdraws an order: not begun yet, it never is; in force, it is undone.
    pub fn withdraw(&self, order: OrderId) {
        let _ = self.inbox.send(Input::Withdrawn(order));
    }

    /// Carries out an operator's wish.
    pub fn control(&self, request: control::Request) -> control::Reply {
        control::put(&self.inbox, request)
    }

    /// What is in place.
    pub fn active(&self) -> Vec<ActiveEffect> {
        let (reply, answer) = channel();
        if self.inbox.send(Input::Active(reply)).is_err() {
            return Vec::new();
        }
        answer.recv().unwrap_or_default()
    }

    /// Stops. Blocks stay; the next start goes on from the journal.
    pub fn stop(self) {
        let _ = self.inbox.send(Input::Stop);
        self.ended.store(true, Ordering::SeqCst);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Default name of the nftables table.
pub const TABLE: &str = "threatlockdown";
/// Files that this process wants to be able to open.
const OPEN_FILES: u64 = 16_384;
/// One for each so many may be a slow file's place: it takes four, and the rest of this process needs the others.
const FILES_OF_SLOW: u64 = 8;
