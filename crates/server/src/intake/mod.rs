//! What other tools and hosts hand to a manager besides its agents: events on `queue/sockets/queue`, messages to agents on
//! `queue/alerts/ar`, and syslog from the network. One thread for each entrance.
//! Invariant: a full pipeline makes a sender wait, and never this process grow.

mod queue;
mod routed;
pub mod syslog;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_config::Remote;
use tld_model::{Event, Timestamp};
use tld_sys::clock::Clock;
use tld_sys::{privilege, unix_socket};

use crate::dispatch::fleet::Fleet;
use crate::log::Log;
use crate::registry::Registry;

/// Where events go. Waits when the pipeline is full; false once it takes none any more.
pub type Entrance = Arc<dyn Fn(Event) -> bool + Send + Sync>;

/// How often a thread looks whether it is to end.
const TICK: Duration = Duration::from_millis(250);
/// Bytes that may wait on a local socket; how many datagrams is the system's to say.
const WAITING: usize = 4 << 20;
/// Owner's group of the contract's sockets.
const GROUP: &str = "wazuh";

/// What the entrances need.
#[derive(Clone)]
pub struct Setup {
    /// Home directory.
    pub home: PathBuf,
    /// The pipeline.
    pub events: Entrance,
    /// The agents, whose names stand in events that tools bring.
    pub registry: Arc<Registry>,
    /// Orders.
    pub fleet: Arc<Fleet>,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// The service's log.
    pub log: Log,
    /// `<remote>` blocks; those of agents are passed over.
    pub remotes: Vec<Remote>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("home", &self.home)
            .field("remotes", &self.remotes)
            .finish_non_exhaustive()
    }
}

impl Setup {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }
}

/// An entrance cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A local socket.
    #[error("cannot listen on `{}`: {source}", path.display())]
    Local {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A port.
    #[error("cannot listen for syslog on {address}: {source}")]
    Port {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread.
    #[error("cannot start the thread of an entrance: {0}")]
    Thread(#[source] io::Error),
}

/// Counters.
#[derive(Debug, Default)]
pub struct Counts {
    /// Events handed over.
    pub events: AtomicU64,
    /// Messages that were none, or of senders who are not heard.
    pub dropped: AtomicU64,
    /// Messages for agents.
    pub routed: AtomicU64,
}

impl Counts {
    fn handed(&self, over: bool) {
        let counter = if over { &self.events } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The open entrances. Dropping it closes them.
#[derive(Debug)]
pub struct Intake {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    paths: Vec<PathBuf>,
    addresses: Vec<SocketAddr>,
}

impl Intake {
    /// Opens them.
    ///
    /// # Errors
    /// One cannot be had; those before it are closed again.
    pub fn start(setup: &Setup) -> Result<Self, StartError> {
        let mut intake = Self {
            counts: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
            paths: Vec::new(),
            addresses: Vec::new(),
        };
        let socket = intake.local(setup, "queue/sockets/queue")?;
        intake.spawn(setup, "event-socket", move |setup, counts, stop| {
            queue::serve(&socket, setup, counts, stop);
        })?;
        let socket = intake.local(setup, "queue/alerts/ar")?;
        intake.spawn(setup, "ar-socket", move |setup, counts, stop| {
            routed::serve(&socket, setup, counts, stop);
        })?;
        for remote in setup.remotes.iter().filter(|remote| remote.syslog) {
            let port = syslog::Port::open(remote)?;
            intake.addresses.push(port.address());
            intake.spawn(setup, "syslog", move |setup, counts, stop| port.serve(setup, counts, stop))?;
        }
        Ok(intake)
    }

    /// Where syslog is listened for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Counters.
    pub const fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    fn local(&mut self, setup: &Setup, path: &str) -> Result<UnixDatagram, StartError> {
        let path = setup.home.join(path);
        let socket = bind(&path).map_err(|source| StartError::Local { path: path.clone(), source })?;
        self.paths.push(path);
        Ok(socket)
    }

    fn spawn(
        &mut self,
        setup: &Setup,
        name: &str,
        work: impl FnOnce(&Setup, &Counts, &AtomicBool) + Send + 'static,
    ) -> Result<(), StartError> {
        let (setup, counts, stop) = (setup.clone(), Arc::clone(&self.counts), Arc::clone(&self.stop));
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || work(&setup, &counts, &stop))
            .map_err(StartError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
    }
}

/// A datagram socket that members of the group may send to. Made beside its place and renamed, so that nobody meets it before
/// it has its mode; a live one of somebody else is not replaced.
fn bind(path: &Path) -> io::Result<UnixDatagram> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if UnixDatagram::unbound()?.connect(path).is_ok() => {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        _ => {}
    }
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixDatagram::bind(&fresh)?;
    if let Some(group) = privilege::group(GROUP) {
        // Without privilege the group stays ours, and so do the senders.
        let _ = chown(&fresh, None, Some(group));
    }
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))?;
    unix_socket::enlarge_receive_buffer(&socket, WAITING)?;
    fs::rename(&fresh, path)?;
    Ok(socket)
}

/// Datagrams of a local socket until the end is asked for. Waiting ones are taken first.
fn datagrams(
    socket: &UnixDatagram,
    most: usize,
    what: &str,
    log: &Log,
    stop: &AtomicBool,
    mut take: impl FnMut(Option<&[u8]>),
) {
    use unix_socket::Received;
    loop {
        match unix_socket::recv_from_peer(socket, most, TICK) {
            Ok((Received::Message(datagram), _)) => take(Some(&datagram)),
            Ok((Received::TooLong, _)) => take(None),
            Ok((Received::TimedOut | Received::Closed, _)) => {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
            Err(error) => {
                log.error(&format!("(1210): cannot read {what}: {error}"));
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::sleep(TICK);
            }
        }
    }
}
