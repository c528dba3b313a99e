//! The agents' channel: sealed messages over TCP and UDP, from thousands of agents at once.
//!
//! A few threads ([`lane`]) each wait for many sockets and never for one: what an agent does not read waits in its own
//! bounded queue, and what the pipeline cannot take yet waits in the agent's socket, so that nobody else is delayed.
//! [`Hub`] is what all threads share, and the way to agents for the rest of the manager ([`Reach`](crate::reach::Reach)).
//! Invariant: an agent is spoken to only over the connection that last proved its key with a control message.

mod connection;
mod control;
mod counters;
mod keeper;
mod lane;
mod orders;
mod peer;
mod queries;
mod receive;
mod shared;
mod taken;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender as Ending, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_model::{AgentId, Event, Timestamp};
use tld_sys::clock::Clock;
use tld_sys::poller::{Poller, Waker};
use tld_sys::queue::Sender;
use tld_sys::tcp;
use tld_wire::session::manager::Session;
use tld_wire::version::Version;

use crate::log::{Level, Log};
use crate::reach::Attendant;
use crate::registry::{Agent, Registry};
use counters::Counters;
use lane::{Command, Lane};
use peer::Peer;
use queries::{Queries, QuerySocket};
use shared::{Builder, Shared};
use taken::TakenPairs;

/// Connections at one time, unless the configuration says otherwise.
const CONNECTIONS: usize = 65_536;
/// Descriptors that the rest of the manager needs.
const OTHER_FILES: usize = 1_024;
/// Threads that serve sockets, at most.
const LANES: usize = 4;
/// Faults of peers that are logged within [`LOG_WINDOW`]; the rest is counted.
const LOGGED: u32 = 20;
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// One port to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Address; none = all of IPv4, and of IPv6 with `ipv6`.
    pub address: Option<IpAddr>,
    /// Number; 0 = any.
    pub port: u16,
    /// Streams.
    pub tcp: bool,
    /// Datagrams.
    pub udp: bool,
    /// IPv6 as well.
    pub ipv6: bool,
}

/// How the channel behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// Silence after which an agent counts as disconnected.
    pub disconnection_time: Duration,
    /// Further silence after which that is reported.
    pub alert_time: Duration,
    /// Silence of a connection after which another one may take its place; zero = never.
    pub overtake: Duration,
    /// Messages must carry rising counters.
    pub verify_counters: bool,
    /// Agents may be newer than the contract's version.
    pub allow_higher_versions: bool,
    /// Connections at one time.
    pub connections: usize,
    /// Name of this node.
    pub node: Option<String>,
    /// Between two looks for changed files of groups.
    pub shared_reload: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            disconnection_time: Duration::from_secs(900),
            alert_time: Duration::ZERO,
            overtake: Duration::from_secs(60),
            verify_counters: false,
            allow_higher_versions: false,
            connections: CONNECTIONS,
            node: None,
            shared_reload: Duration::from_secs(10),
        }
    }
}

/// What the channel needs.
pub struct Setup {
    /// Who may speak.
    pub registry: Arc<Registry>,
    /// Where events go.
    pub events: Sender<Event>,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// The manager's log.
    pub log: Log,
    /// How it behaves.
    pub options: Options,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The channel cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error("cannot listen on `{address}`: {source}")]
    Listen {
        /// With its number.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The counters of earlier messages.
    #[error("cannot use `{path}`: {source}")]
    Counters {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The socket for tools of this host.
    #[error("cannot listen on `{path}`: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A thread or a set of sockets.
    #[error("cannot start the agents' channel: {0}")]
    Thread(#[source] io::Error),
}

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    received: AtomicU64,
    events: AtomicU64,
    control: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    sent: AtomicU64,
    stalls: AtomicU64,
}

/// Counts of a channel since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were opened.
    pub received: u64,
    /// Events among them.
    pub events: u64,
    /// Control messages among them.
    pub control: u64,
    /// Messages that were not opened: unknown sender, wrong key, damage.
    pub refused: u64,
    /// Messages that were opened but are no events.
    pub dropped: u64,
    /// Messages sealed and sent.
    pub sent: u64,
    /// How often an agent had to wait since the pipeline was full.
    pub stalls: u64,
    /// Connections now.
    pub connections: u64,
}

/// What the channel's threads share.
pub struct Hub {
    registry: Arc<Registry>,
    events: Sender<Event>,
    clock: Arc<dyn Clock>,
    log: Log,
    options: Options,
    counters: Counters,
    taken: TakenPairs,
    shared: Shared,
    queries: Queries,
    peers: RwLock<HashMap<AgentId, Arc<Peer>>>,
    posts: OnceLock<Vec<Post>>,
    attendant: OnceLock<Arc<dyn Attendant>>,
    /// Counters of the entrances for other tools, which open after the channel.
    intake: OnceLock<Arc<crate::intake::Counts>>,
    open: AtomicUsize,
    tally: Tally,
    muffler: Mutex<(Duration, u32)>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("options", &self.options)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

/// The way to one lane from other threads.
struct Post {
    inbox: Mutex<Vec<Command>>,
    called: AtomicBool,
    waker: Waker,
}

impl Post {
    fn send(&self, command: Command) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        if !self.called.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Everything that was sent; empty at the price of one load if nothing was.
    fn take(&self) -> Vec<Command> {
        if !self.called.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hub {
    /// The shared part, before anything listens: orders for agents find nobody connected.
    ///
    /// # Errors
    /// The counters of earlier messages cannot be read or secured.
    pub fn new(setup: Setup) -> Result<Arc<Self>, StartError> {
        let Setup { registry, events, clock, log, options } = setup;
        let counters = Counters::open(registry.home(), options.verify_counters)
            .map_err(|(path, source)| StartError::Counters { path, source })?;
        Ok(Arc::new(Self {
            taken: TakenPairs::open(registry.home()),
            shared: Shared::default(),
            queries: Queries::default(),
            registry,
            events,
            clock,
            log,
            options,
            counters,
            peers: RwLock::default(),
            posts: OnceLock::new(),
            attendant: OnceLock::new(),
            intake: OnceLock::new(),
            open: AtomicUsize::new(0),
            tally: Tally::default(),
            muffler: Mutex::default(),
        }))
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.tally;
        Counts {
            received: read(&tally.received),
            events: read(&tally.events),
            control: read(&tally.control),
            refused: read(&tally.refused),
            dropped: read(&tally.dropped),
            sent: read(&tally.sent),
            stalls: read(&tally.stalls),
            connections: self.open.load(Ordering::Relaxed) as u64,
        }
    }

    /// Has the entrances' counters told among the channel's own.
    pub fn count_also(&self, intake: &Arc<crate::intake::Counts>) {
        let _ = self.intake.set(Arc::clone(intake));
    }

    /// What came in by the entrances for other tools; null before they are open.
    fn entrances(&self) -> Option<serde_json::Value> {
        let counts = self.intake.get()?;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(serde_json::json!({
            "events": read(&counts.events), "discarded": read(&counts.dropped), "routed": read(&counts.routed),
        }))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }

    fn session(&self) -> Session {
        Session::new(Version::CONTRACT, self.options.allow_higher_versions)
    }

    fn attendant(&self) -> Option<&dyn Attendant> {
        self.attendant.get().map(|attendant| &**attendant)
    }

    fn peer(&self, id: AgentId) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The agent's place, made if it has none yet. Only for agents that proved their key.
    fn peer_of(&self, agent: &Arc<Agent>) -> Arc<Peer> {
        if let Some(peer) = self.peer(agent.id).filter(|peer| Arc::ptr_eq(&peer.agent, agent)) {
            return peer;
        }
        let (replay, taken) = (self.counters.stored(agent.id), self.taken.of(agent.id));
        let fresh = Arc::new(Peer::new(Arc::clone(agent), self.session(), replay, taken));
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        match peers.get(&agent.id).filter(|peer| Arc::ptr_eq(&peer.agent, agent)) {
            Some(peer) => Arc::clone(peer),
            None => {
                peers.insert(agent.id, Arc::clone(&fresh));
                fresh
            }
        }
    }

    /// Gives up the place of an agent that is no longer registered.
    fn forget(&self, peer: &Arc<Peer>) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.get(&peer.id()).is_some_and(|known| Arc::ptr_eq(known, peer)) {
            peers.remove(&peer.id());
        }
    }

    fn peers(&self) -> Vec<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn post(&self, lane: usize, command: Command) {
        if let Some(post) = self.posts.get().and_then(|posts| posts.get(lane)) {
            post.send(command);
        }
    }

    /// Strangers can fail as often as they like; the log takes only some of it.
    fn complain(&self, level: Level, text: &str) {
        let now = self.clock.boot();
        let mut muffler = lock(&self.muffler);
        if now >= muffler.0 {
            let kept_back = muffler.1.saturating_sub(LOGGED);
            if kept_back > 0 {
                self.log.warning(&format!("agents' channel: {kept_back} more faults"));
            }
            *muffler = (now + LOG_WINDOW, 0);
        }
        muffler.1 = muffler.1.saturating_add(1);
        let muffled = muffler.1 > LOGGED;
        drop(muffler);
        if !muffled {
            self.log.line(level, &format!("agents' channel: {text}"));
        }
    }
}

/// A running channel. Dropping it closes every connection.
#[derive(Debug)]
pub struct Channel {
    hub: Arc<Hub>,
    addresses: Vec<SocketAddr>,
    socket: Option<QuerySocket>,
    /// The keeper and the builder of shared files, which end with their senders.
    helpers: Vec<(Ending<()>, JoinHandle<()>)>,
    lanes: Vec<JoinHandle<()>>,
}

impl Channel {
    /// Opens the ports and begins to serve. `attendant` is told what agents do.
    ///
    /// # Errors
    /// A port or a thread cannot be had.
    pub fn start(hub: Arc<Hub>, attendant: Option<Arc<dyn Attendant>>) -> Result<Self, StartError> {
        if let Some(attendant) = attendant {
            let _ = hub.attendant.set(attendant);
        }
        let wanted = hub.options.connections + OTHER_FILES;
        let files = tcp::raise_open_files(wanted as u64);
        if files < wanted as u64 {
            hub.log.warning(&format!(
                "agents' channel: {files} open files are allowed here, {wanted} would serve {} agents",
                hub.options.connections
            ));
        }
        let room = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES).max(16);
        let most = hub.options.connections.min(room);
        let (streams, datagrams, addresses) = open(&hub.options)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = (cores / 2).clamp(1, LANES);
        let pollers =
            (0..count).map(|_| Poller::new()).collect::<io::Result<Vec<_>>>().map_err(StartError::Thread)?;
        let post = |poller: &Poller| Post {
            inbox: Mutex::default(),
            called: AtomicBool::new(false),
            waker: poller.waker(),
        };
        let _ = hub.posts.set(pollers.iter().map(post).collect());
        let mut this =
            Self { hub: Arc::clone(&hub), addresses, socket: None, helpers: Vec::new(), lanes: Vec::new() };
        this.share()?;
        let mut sockets = Some((streams, datagrams));
        for (index, poller) in pollers.into_iter().enumerate() {
            let (streams, datagrams) = sockets.take().unwrap_or_default();
            let lane = Lane::new(index, Arc::clone(&hub), poller, streams, datagrams, most)
                .map_err(StartError::Thread)?;
            let thread = std::thread::Builder::new().name(format!("agents-{index}"));
            this.lanes.push(thread.spawn(move || lane.serve()).map_err(StartError::Thread)?);
        }
        let path = hub.registry.home().join("queue/sockets/remote");
        let serving = queries::serve(path.clone(), Arc::clone(&hub));
        this.socket = Some(serving.map_err(|source| StartError::Socket { path, source })?);
        this.help("agents-keeper", move |ended| keeper::keep(&hub, ended))?;
        Ok(this)
    }

    /// Builds the shared files before the first agent comes, and keeps them current.
    fn share(&mut self) -> Result<(), StartError> {
        let hub = Arc::clone(&self.hub);
        let mut builder = Builder::new(hub.registry.home().to_path_buf(), hub.log.clone());
        builder.look(&hub.shared, &hub.registry);
        let period = hub.options.shared_reload;
        self.help("agents-files", move |asked| {
            shared::keep(&hub.shared, builder, &hub.registry, period, asked);
        })
    }

    fn help(
        &mut self,
        name: &str,
        act: impl FnOnce(&Receiver<()>) + Send + 'static,
    ) -> Result<(), StartError> {
        let (end, ended) = channel();
        let thread = std::thread::Builder::new().name(name.into());
        let thread = thread.spawn(move || act(&ended)).map_err(StartError::Thread)?;
        self.helpers.push((end, thread));
        Ok(())
    }

    /// Has the files of groups looked at now instead of at the next time.
    pub fn refresh(&self) {
        if let Some((builder, _)) = self.helpers.first() {
            let _ = builder.send(());
        }
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        for post in self.hub.posts.get().into_iter().flatten() {
            post.send(Command::Stop);
        }
        for lane in self.lanes.drain(..) {
            let _ = lane.join();
        }
        drop(self.socket.take());
        for (end, helper) in self.helpers.drain(..) {
            drop(end);
            let _ = helper.join();
        }
    }
}

type Sockets = (Vec<std::net::TcpListener>, Vec<std::net::UdpSocket>, Vec<SocketAddr>);

/// Messages of some seconds for a fleet over UDP.
const DATAGRAM_BUFFER: usize = 8 << 20;

fn open(options: &Options) -> Result<Sockets, StartError> {
    let (mut streams, mut datagrams, mut addresses) = Sockets::default();
    for listener in &options.listeners {
        let mut hosts = vec![listener.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())];
        if listener.ipv6 && listener.address.is_none() {
            hosts.push(Ipv6Addr::UNSPECIFIED.into());
        }
        for host in hosts {
            let address = SocketAddr::new(host, listener.port);
            let failed = |source| StartError::Listen { address, source };
            if listener.tcp {
                let socket = tcp::listen(address).map_err(failed)?;
                addresses.push(socket.local_addr().map_err(failed)?);
                streams.push(socket);
            }
            if listener.udp {
                let socket = tcp::datagrams(address, DATAGRAM_BUFFER).map_err(failed)?;
                addresses.push(socket.local_addr().map_err(failed)?);
                datagrams.push(socket);
            }
        }
    }
    Ok((streams, datagrams, addresses))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
