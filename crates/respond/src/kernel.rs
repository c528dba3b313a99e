//! The firewall as the responder sees it: a set of addresses or single ports to them, each with or without a remaining time. A thin seam over
//! `tld_sys::nft`, so that the state machine is tested without root.
//! Invariant: an address in the set is dropped in every direction the implementation covers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use tld_sys::nft::{Event, Firewall, Monitor, NftError, Spot};

use crate::LogFn;
use crate::executor::Input;
use crate::reconcile::Disturbance;

/// One wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Drop this address; the kernel itself forgets it after the lease, if there is one.
    Block(Spot, Option<Duration>),
    /// The same for what is most likely not there yet.
    Create(Spot, Option<Duration>),
    /// Let it pass again. That it was absent is success.
    Unblock(Spot),
}

/// What the kernel says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not in the set.
    Absent,
    /// In the set; `None` = without end.
    Present(Option<Duration>),
}

/// The kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct KernelError(pub(crate) String);

/// A firewall.
pub(crate) trait Kernel: Send {
    /// Where effects stand, for evidence: `inet threatlockdown`.
    fn place(&self) -> String;
    /// Carries out all changes, in one transaction where that is possible. One answer per change.
    fn change(&mut self, changes: &[Change]) -> Vec<Result<(), KernelError>>;
    /// Reads back: one answer for each.
    fn look(&mut self, spots: &[Spot]) -> Result<Vec<Seen>, KernelError>;
    /// Reads all back. May take long where there are many.
    fn list(&mut self) -> Result<Vec<(Spot, Option<Duration>)>, KernelError>;
    /// Puts back table, sets and rules if somebody removed them.
    fn ensure(&mut self) -> Result<(), KernelError>;
    /// Whether it forgets addresses by itself at the end of their lease.
    fn keeps_leases(&self) -> bool {
        true
    }
    /// How often to compare where nobody tells of changes.
    fn poll(&self) -> Duration {
        Duration::from_secs(30)
    }
    /// Our name in the kernel's notifications.
    fn port(&self) -> Option<u32> {
        None
    }
}

impl fmt::Debug for dyn Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

/// The running kernel's nf_tables.
struct Nftables {
    firewall: Firewall,
    table: String,
}

impl Kernel for Nftables {
    fn place(&self) -> String {
        format!("inet {}", self.table)
    }

    fn change(&mut self, changes: &[Change]) -> Vec<Result<(), KernelError>> {
        let mut blocks = Vec::new();
        let mut creates = Vec::new();
        let mut unblocks = Vec::new();
        for change in changes {
            match *change {
                Change::Block(spot, lease) => blocks.push((spot, lease)),
                Change::Create(spot, lease) => creates.push((spot, lease)),
                Change::Unblock(spot) => unblocks.push(spot),
            }
        }
        let removed =
            if unblocks.is_empty() { Ok(()) } else { self.firewall.unblock_spots(&self.table, &unblocks) };
        let added = if blocks.is_empty() { Ok(()) } else { self.firewall.block_spots(&self.table, &blocks) };
        let created =
            if creates.is_empty() { Ok(()) } else { self.firewall.block_new(&self.table, &creates) };
        let (removed, added, created) =
            (removed.map_err(error), added.map_err(error), created.map_err(error));
        let answers = changes.iter().map(|change| match change {
            Change::Block(..) => added.clone(),
            Change::Create(..) => created.clone(),
            Change::Unblock(_) => removed.clone(),
        });
        answers.collect()
    }

    fn look(&mut self, spots: &[Spot]) -> Result<Vec<Seen>, KernelError> {
        let found = self.firewall.lookup_all(&self.table, spots).map_err(error)?;
        let seen = |element: Option<tld_sys::nft::Element>| {
            element.map_or(Seen::Absent, |element| Seen::Present(element.remaining))
        };
        Ok(found.into_iter().map(seen).collect())
    }

    fn list(&mut self) -> Result<Vec<(Spot, Option<Duration>)>, KernelError> {
        self.firewall.list_spots(&self.table).map_err(error)
    }

    fn ensure(&mut self) -> Result<(), KernelError> {
        self.firewall.ensure(&self.table).map_err(error)
    }

    fn port(&self) -> Option<u32> {
        Some(self.firewall.port_id())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn error(error: NftError) -> KernelError {
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    KernelError(format!("{error}{}", source.unwrap_or_default()))
}

/// Why there is no firewall.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unable {
    /// It is there, but not for this process.
    #[error("{0}")]
    NotPermitted(String),
    /// Nothing here can block an address.
    #[error("{0}")]
    Missing(String),
}

/// Opens the firewall in the network namespace of the calling thread and puts our table in place; where there is no
/// nf_tables, the older tools serve.
pub(crate) fn open(table: &str) -> Result<Box<dyn Kernel>, Unable> {
    let opened = Firewall::open().and_then(|mut firewall| firewall.ensure(table).map(|()| firewall));
    match opened {
        Ok(firewall) => Ok(Box::new(Nftables { firewall, table: table.into() })),
        Err(NftError::Permission) => Err(Unable::NotPermitted(error(NftError::Permission).0)),
        Err(NftError::Missing) => match crate::iptables::Iptables::open(table) {
            Ok(tables) => Ok(Box::new(tables)),
            Err(other) => Err(Unable::Missing(format!("{}; {other}", error(NftError::Missing)))),
        },
        Err(other) => Err(Unable::Missing(error(other).0)),
    }
}

/// Starts the thread that tells the executor when others change our table. Without notifications the slow poll of
/// the reconciler remains.
pub(crate) fn watch(
    table: &str,
    own: u32,
    inbox: SyncSender<Input>,
    ended: Arc<AtomicBool>,
    log: &LogFn,
) -> Option<JoinHandle<()>> {
    let mut monitor = match Monitor::open(&[own]) {
        Ok(monitor) => monitor,
        Err(error) => {
            log(&format!("changes of the firewall by others are only found by polling: {error}"));
            return None;
        }
    };
    let table = table.to_owned();
    let (again, work_log) = (Duration::from_millis(500), Arc::clone(log));
    let work = move || {
        let (mut what, mut others) = (Disturbance::default(), false);
        while !ended.load(Ordering::SeqCst) {
            match monitor.next(again) {
                Ok(Some(Event::Committed { process, .. })) => what.by = process,
                Ok(Some(event)) => {
                    others |= OTHERS.iter().any(|table| concerns(&event, table));
                    note(&mut what, event, &table);
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    work_log(&format!("changes of the firewall by others are now found by polling: {error}"));
                    return;
                }
            }
            let told = std::mem::take(&mut what);
            if told.concerns() && inbox.send(Input::KernelChanged(told)).is_err() {
                return;
            }
            if others && inbox.send(Input::LocalChanged).is_err() {
                return;
            }
            others = false;
        }
    };
    std::thread::Builder::new().name("firewall-watch".into()).spawn(work).ok()
}

/// Tables in which actions outside our own table have their effect: a reload of firewalld forgets its rules.
const OTHERS: [&str; 2] = ["firewalld", "threatlockdown_isolation"];

fn concerns(event: &Event, table: &str) -> bool {
    let mut what = Disturbance::default();
    note(&mut what, event.clone(), table);
    what.concerns()
}

fn note(what: &mut Disturbance, event: Event, ours: &str) {
    match event {
        Event::TableGone(table) | Event::SetGone { table, .. } if table == ours => what.all = true,
        Event::RulesGone(table) if table == ours => what.rules = true,
        Event::ElementGone { table, spot, .. } if table == ours && what.spots.len() < MOST_TOLD => {
            what.spots.push(spot);
        }
        Event::ElementGone { table, .. } if table == ours => what.all = true,
        Event::Overrun => what.all = true,
        _ => {}
    }
}

/// Elements of one transaction that are told one by one.
const MOST_TOLD: usize = 10_000;
