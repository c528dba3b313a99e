//! Enrolment: the TLS port (1515) where agents ask for a key, and the local socket where tools of this host do.
//!
//! Each client has a thread of its own, with a deadline and within [`CLIENTS`]; a thread that waits costs some kilobytes, and
//! a silent client delays nobody. Clients beyond the bound are turned away, and no single address may hold all places.
//! Invariant: what is granted stands in `etc/client.keys` before it is told.

mod admit;
mod client;
mod local;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_sys::clock::Deadline;
use tld_sys::durable;
use tld_wire::enrol::decide::{Force, Settings};
use tld_wire::enrol::{PASSWORD_FILE_LIMIT, password_of_file};
use tld_wire::key::Secret;
use tld_wire::version::Version;

use crate::log::Log;
use crate::registry::Registry;
use crate::tls::{self, Files, TlsError};
use admit::Admission;
use client::Terms;

/// Clients at one time.
pub const CLIENTS: usize = 999;
/// Clients at one time from one address.
const CLIENTS_OF_ONE: usize = 500;
/// Time a client has for handshake and request.
const PATIENCE: Duration = Duration::from_secs(60);
/// Stack of a client's thread; a handshake with certificates on both sides stays far below.
const STACK: usize = 512 << 10;
/// Failures of clients that are logged within [`LOG_WINDOW`]; the rest is counted.
const LOGGED: u32 = 20;
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// How enrolment is offered.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address listened on; none = all of both families.
    pub address: Option<IpAddr>,
    /// Port listened on; 0 = any.
    pub port: u16,
    /// Agents must know the password of `etc/authd.pass`.
    pub use_password: bool,
    /// Register the peer's address when a request names none.
    pub use_source_ip: bool,
    /// When a duplicate gives way.
    pub force: Force,
    /// Lines of replaced agents vanish, and so does the memory of their ids.
    pub purge: bool,
    /// Agents may be newer than the contract's version.
    pub allow_higher_versions: bool,
    /// Certificate, key and clients' authority; relative paths are below the home.
    pub files: Files,
    /// A client's certificate must name the address it comes from.
    pub verify_host: bool,
    /// Clients at one time.
    pub clients: usize,
    /// Time a client has.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: None,
            port: 1515,
            use_password: false,
            use_source_ip: false,
            force: Force::default(),
            purge: false,
            allow_higher_versions: false,
            files: Files {
                certificate: PathBuf::from("etc/sslmanager.cert"),
                key: PathBuf::from("etc/sslmanager.key"),
                client_authority: None,
            },
            verify_host: false,
            clients: CLIENTS,
            patience: PATIENCE,
        }
    }
}

impl Options {
    /// What the configuration says, the contract's defaults for the rest.
    pub fn of(auth: &tld_config::Auth) -> Self {
        let defaults = Self::default();
        let path = |path: &Option<String>| path.as_ref().map(PathBuf::from);
        Self {
            port: auth.port,
            use_password: auth.use_password,
            use_source_ip: auth.use_source_ip,
            force: Force {
                enabled: auth.force.enabled,
                key_mismatch: auth.force.key_mismatch,
                disconnected_secs: auth.force.disconnected,
                after_registration_secs: auth.force.after_registration,
            },
            purge: auth.purge,
            allow_higher_versions: auth.allow_higher_versions,
            files: Files {
                certificate: path(&auth.certificate).unwrap_or(defaults.files.certificate),
                key: path(&auth.key).unwrap_or(defaults.files.key),
                client_authority: path(&auth.agent_ca),
            },
            verify_host: auth.verify_host,
            ..Self::default()
        }
    }
}

/// Enrolment cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The password file exists and holds none.
    #[error("`{0}` holds no password: its first line must have at least two characters")]
    Password(PathBuf),
    /// A file or directory of the home.
    #[error("cannot {verb} `{path}`: {source}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No password could be made up.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// The host of a certificate must be verified, but certificates are not asked for.
    #[error("clients' addresses can be verified only with an authority for their certificates")]
    HostWithoutAuthority,
    /// The local socket.
    #[error("cannot listen on `{path}`: {source}")]
    Local {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The port.
    #[error("cannot listen on port {port}: {source}")]
    Listen {
        /// Its number.
        port: u16,
        /// Why not.
        source: io::Error,
    },
}

/// A running enrolment. Dropping it ends it.
#[derive(Debug)]
pub struct Enrolment {
    address: SocketAddr,
    shared: Arc<Shared>,
    wake: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
    _local: local::LocalSocket,
}

#[derive(Debug)]
struct Shared {
    clients: Mutex<HashMap<u64, Arc<TcpStream>>>,
    gone: Condvar,
    muffler: Mutex<Muffler>,
}

#[derive(Debug)]
struct Muffler {
    window: Deadline,
    told: u32,
}

/// Starts to listen. Makes the certificate at the first start, and the directory of the group `default`.
///
/// # Errors
/// Certificate, password or port cannot be had.
pub fn start(registry: Arc<Registry>, options: &Options, log: Log) -> Result<Enrolment, StartError> {
    let home = registry.home().to_path_buf();
    let files = Files {
        certificate: home.join(&options.files.certificate),
        key: home.join(&options.files.key),
        client_authority: options.files.client_authority.as_ref().map(|path| home.join(path)),
    };
    if options.verify_host && files.client_authority.is_none() {
        return Err(StartError::HostWithoutAuthority);
    }
    let host = tld_sys::host::name();
    if tls::ensure_certificate(&files, &host, &tld_sys::host::own_addresses(), registry.now())? {
        log.info(&format!("enrolment: made the certificate `{}`", files.certificate.display()));
    }
    // Requests may name this group on any manager.
    let group = home.join("etc/shared/default");
    durable::create_dirs(&group, 0o770).map_err(|source| StartError::File {
        verb: "make",
        path: group,
        source,
    })?;
    let listen = |source| StartError::Listen { port: options.port, source };
    let terms = Terms {
        tls: tls::server_config(&files)?,
        patience: options.patience,
        verify_host: options.verify_host,
    };
    let password = if options.use_password { Some(password(&home, &log)?) } else { None };
    let settings = Settings {
        manager_host: host,
        manager_version: Version::CONTRACT,
        allow_higher_versions: options.allow_higher_versions,
        use_source_ip: options.use_source_ip,
        force: options.force,
    };
    let admission = Arc::new(Admission { registry, settings, password, purge: options.purge, log });
    let listener = bind(options.address, options.port).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let (asleep, wake) = io::pipe().map_err(listen)?;
    let path = home.join("queue/sockets/auth");
    let local = local::serve(path.clone(), Arc::clone(&admission))
        .map_err(|source| StartError::Local { path, source })?;
    let shared = Arc::new(Shared {
        clients: Mutex::default(),
        gone: Condvar::new(),
        muffler: Mutex::new(Muffler { window: Deadline::after(LOG_WINDOW), told: 0 }),
    });
    let door =
        Door { listener, asleep, shared: Arc::clone(&shared), terms, admission, clients: options.clients };
    let thread =
        std::thread::Builder::new().name("enrolment".into()).spawn(move || door.keep()).map_err(listen)?;
    Ok(Enrolment { address, shared, wake: Some(wake), thread: Some(thread), _local: local })
}

impl Enrolment {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Clients at this moment.
    pub fn clients(&self) -> usize {
        self.shared.clients().len()
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut clients = self.shared.clients();
        for stream in clients.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let deadline = Deadline::after(Duration::from_secs(5));
        while !clients.is_empty() {
            let Some(left) = deadline.remaining().filter(|left| !left.is_zero()) else { return };
            let waited = self.shared.gone.wait_timeout(clients, left);
            clients = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Arc<TcpStream>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Strangers can fail as often as they like; the log takes only some of it.
    fn complain(&self, log: &Log, text: &str) {
        let mut muffler = self.muffler.lock().unwrap_or_else(PoisonError::into_inner);
        if muffler.window.passed() {
            let kept_back = muffler.told.saturating_sub(LOGGED);
            if kept_back > 0 {
                log.warning(&format!("enrolment: {kept_back} more clients failed"));
            }
            *muffler = Muffler { window: Deadline::after(LOG_WINDOW), told: 0 };
        }
        muffler.told = muffler.told.saturating_add(1);
        if muffler.told <= LOGGED {
            log.warning(&format!("enrolment: {text}"));
        }
    }
}

/// The accepting side.
struct Door {
    listener: TcpListener,
    asleep: io::PipeReader,
    shared: Arc<Shared>,
    terms: Terms,
    admission: Arc<Admission>,
    clients: usize,
}

impl Door {
    fn keep(&self) {
        let mut number = 0;
        loop {
            let fds = [self.listener.as_fd(), self.asleep.as_fd()];
            match tld_sys::ready::readable(&fds, Duration::from_secs(3_600)).as_deref() {
                Ok([_, true]) => return,
                Ok([true, _]) => {}
                Ok(_) => continue,
                Err(error) => {
                    self.admission.log.error(&format!("enrolment: stopped: {error}"));
                    return;
                }
            }
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    number += 1;
                    self.receive(number, stream, peer.ip().to_canonical());
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => {}
                Err(error) => {
                    self.shared.complain(&self.admission.log, &format!("cannot accept: {error}"));
                    // Out of descriptors: the listener stays readable, so only time helps.
                    let _ = tld_sys::ready::readable(&[self.asleep.as_fd()], Duration::from_millis(100));
                }
            }
        }
    }

    fn receive(&self, number: u64, stream: TcpStream, peer: IpAddr) {
        let stream = Arc::new(stream);
        let log = &self.admission.log;
        {
            let mut clients = self.shared.clients();
            let from = |other: &&Arc<TcpStream>| {
                other.peer_addr().is_ok_and(|address| address.ip().to_canonical() == peer)
            };
            // Counting asks the kernel for each client, so only when it can matter.
            let greedy =
                || clients.len() >= CLIENTS_OF_ONE && clients.values().filter(from).count() >= CLIENTS_OF_ONE;
            if clients.len() >= self.clients || greedy() {
                drop(clients);
                self.shared.complain(log, &format!("turned `{peer}` away, too many clients"));
                return;
            }
            clients.insert(number, Arc::clone(&stream));
        }
        let (shared, terms, admission) =
            (Arc::clone(&self.shared), self.terms.clone(), Arc::clone(&self.admission));
        let place = Place { shared, number };
        let serve = move || {
            let result = stream
                .set_nonblocking(false)
                .map_err(client::ClientError::Lost)
                .and_then(|()| client::serve(&stream, peer, &terms, &admission));
            if let Err(error) = result {
                place.shared.complain(&admission.log, &format!("no answer for `{peer}`: {error}"));
            }
            drop(place);
        };
        let thread = std::thread::Builder::new().name("enrolling".into()).stack_size(STACK).spawn(serve);
        if let Err(error) = thread {
            self.shared.complain(log, &format!("no thread for `{peer}`: {error}"));
        }
    }
}

/// A client's entry; leaves with it, however its thread ends.
struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.clients().remove(&self.number);
        self.shared.gone.notify_all();
    }
}

fn bind(address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match address {
        Some(address) => TcpListener::bind((address, port)),
        // The IPv6 wildcard takes IPv4 as well, except on hosts without IPv6.
        None => TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))),
    }
}

fn password(home: &Path, log: &Log) -> Result<Secret, StartError> {
    let path = home.join("etc/authd.pass");
    match durable::read_bounded(&path, 1 << 20) {
        Ok(bytes) => {
            let bytes = zeroize::Zeroizing::new(bytes);
            let text = bytes.get(..PASSWORD_FILE_LIMIT).unwrap_or(&bytes);
            let text = zeroize::Zeroizing::new(String::from_utf8_lossy(text).into_owned());
            password_of_file(&text).ok_or(StartError::Password(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(StartError::Random)?;
            let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            log.info(&format!(
                "enrolment: `{}` does not exist; the password until the next start is {text}",
                path.display()
            ));
            Ok(Secret::new(text))
        }
        Err(source) => Err(StartError::File { verb: "read", path, source }),
    }
}
