//! The firewall as the responder sees it: a set of addresses, each with or without a remaining time. A thin seam over
//! `tld_sys::nft`, so that the state machine is tested without root.
//! Invariant: an address in the set is dropped in every direction the implementation covers.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use tld_sys::nft::{Event, Firewall, Monitor, NftError};

use crate::LogFn;
use crate::executor::Input;

/// One wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Drop this address; the kernel itself forgets it after the lease, if there is one.
    Block(IpAddr, Option<Duration>),
    /// Let it pass again. That it was absent is success.
    Unblock(IpAddr),
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
    /// Reads one address back.
    fn lookup(&mut self, address: IpAddr) -> Result<Seen, KernelError>;
    /// Reads all back.
    fn list(&mut self) -> Result<Vec<(IpAddr, Option<Duration>)>, KernelError>;
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
        let mut unblocks = Vec::new();
        for change in changes {
            match *change {
                Change::Block(address, lease) => blocks.push((address, lease)),
                Change::Unblock(address) => unblocks.push(address),
            }
        }
        let removed =
            if unblocks.is_empty() { Ok(()) } else { self.firewall.unblock(&self.table, &unblocks) };
        let added = if blocks.is_empty() { Ok(()) } else { self.firewall.block(&self.table, &blocks) };
        let (removed, added) = (removed.map_err(error), added.map_err(error));
        let answers = changes.iter().map(|change| match change {
            Change::Block(..) => added.clone(),
            Change::Unblock(_) => removed.clone(),
        });
        answers.collect()
    }

    fn lookup(&mut self, address: IpAddr) -> Result<Seen, KernelError> {
        let found = self.firewall.lookup(&self.table, address).map_err(error)?;
        Ok(found.map_or(Seen::Absent, |element| Seen::Present(element.remaining)))
    }

    fn list(&mut self) -> Result<Vec<(IpAddr, Option<Duration>)>, KernelError> {
        self.firewall.list(&self.table).map_err(error)
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
        let (mut dirty, mut others) = (false, false);
        while !ended.load(Ordering::SeqCst) {
            let by = match monitor.next(again) {
                Ok(Some(Event::Committed { process, .. })) => process,
                Ok(Some(event)) => {
                    dirty |= concerns(&event, &table);
                    others |= OTHERS.iter().any(|table| concerns(&event, table));
                    continue;
                }
                Ok(None) => None,
                Err(error) => {
                    work_log(&format!("changes of the firewall by others are now found by polling: {error}"));
                    return;
                }
            };
            if dirty && inbox.send(Input::KernelChanged(by)).is_err() {
                return;
            }
            if others && inbox.send(Input::LocalChanged).is_err() {
                return;
            }
            (dirty, others) = (false, false);
        }
    };
    std::thread::Builder::new().name("firewall-watch".into()).spawn(work).ok()
}

/// Tables in which actions outside our own table have their effect: a reload of firewalld forgets its rules.
const OTHERS: [&str; 2] = ["firewalld", "threatlockdown_isolation"];

fn concerns(event: &Event, ours: &str) -> bool {
    match event {
        Event::TableGone(table) | Event::RulesGone(table) => table == ours,
        Event::SetGone { table, .. } | Event::ElementGone { table, .. } => table == ours,
        Event::Overrun => true,
        _ => false,
    }
}
