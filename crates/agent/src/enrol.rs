//! Asking a manager for a key: one TLS session, one line, one answer.
//! Invariant: without a configured authority any certificate is taken, as the contract has it, and that is said; with
//! one, a certificate that it did not sign or that names another host ends the attempt before the password is sent.

mod trust;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, Stream};
use tld_config::Enrollment;
use tld_sys::durable;
use tld_sys::tcp::Timed;
use tld_wire::enrol::{Answer, AnswerError, LINE_LIMIT, PASSWORD_FILE_LIMIT, Request, RequestedIp};
use tld_wire::key::AgentKey;
use tld_wire::name::agent_name_of_host;
use tld_wire::version::Version;

/// No key was given.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A file of the configuration cannot be used.
    #[error("cannot use `{}`: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The configuration asks for what cannot be sent.
    #[error("{0}")]
    Setting(String),
    /// The manager is not reached.
    #[error("cannot reach `{address}`: {source}")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// No TLS session, or it broke.
    #[error("the session with `{address}` failed: {reason}")]
    Session {
        /// With whom.
        address: String,
        /// Why.
        reason: String,
    },
    /// The manager said no.
    #[error("{0} (from manager)")]
    Refused(String),
    /// Its answer is not one.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// Asks the manager at `host` for a key.
///
/// # Errors
/// When there is none; the key file is not touched here.
pub fn ask(
    home: &Path,
    settings: &Enrollment,
    host: &str,
    own: Option<&AgentKey>,
    version: Version,
    patience: Duration,
) -> Result<AgentKey, EnrolError> {
    let line = request(settings, own, version)?.to_line(password(home, settings)?.as_ref());
    let config = trust::config(home, settings, host)?;
    let address = if host.contains(':') {
        format!("[{host}]:{}", settings.port)
    } else {
        format!("{host}:{}", settings.port)
    };
    let stream = connect(host, settings.port, patience)
        .map_err(|source| EnrolError::Connect { address: address.clone(), source })?;
    let answer = talk(&stream, config, host, line.as_bytes(), patience)
        .map_err(|error| EnrolError::Session { address, reason: error.to_string() })?;
    match Answer::parse(&answer)? {
        Answer::Granted(key) => Ok(key),
        Answer::Refused(reason) => Err(EnrolError::Refused(reason)),
    }
}

/// A connection to one of the addresses that a name stands for.
pub(crate) fn connect(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn request(settings: &Enrollment, own: Option<&AgentKey>, version: Version) -> Result<Request, EnrolError> {
    let name = match &settings.agent_name {
        Some(name) => name.clone(),
        None => {
            let host = tld_sys::host::name();
            if host == "localhost" {
                let text = "a host called `localhost` is not enrolled: set <agent_name>";
                return Err(EnrolError::Setting(text.into()));
            }
            agent_name_of_host(&host).ok_or_else(|| {
                EnrolError::Setting(format!("the host's name `{host}` gives no agent name: set <agent_name>"))
            })?
        }
    };
    let groups = settings.groups.as_deref().unwrap_or_default();
    let given = settings.agent_address.as_deref().map(|text| {
        text.parse()
            .map(RequestedIp::Given)
            .map_err(|_no_address| EnrolError::Setting(format!("<agent_address> `{text}` is no address")))
    });
    Ok(Request {
        version: Some(version.to_string()),
        groups: groups.split(',').map(|group| group.trim().to_owned()).filter(|g| !g.is_empty()).collect(),
        ip: if settings.use_source_ip { Some(RequestedIp::Source) } else { given.transpose()? },
        key_hash: own.map(AgentKey::hash),
        ..Request::new(name)
    })
}

fn password(home: &Path, settings: &Enrollment) -> Result<Option<tld_wire::key::Secret>, EnrolError> {
    let path = home.join(&settings.authorization_pass_path);
    match durable::read_bounded(&path, PASSWORD_FILE_LIMIT) {
        Ok(text) => {
            let text = zeroize::Zeroizing::new(String::from_utf8_lossy(&text).into_owned());
            Ok(tld_wire::enrol::password_of_file(&text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EnrolError::File { path, reason: error.to_string() }),
    }
}

fn talk(
    stream: &TcpStream,
    config: Arc<ClientConfig>,
    host: &str,
    line: &[u8],
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let mut socket = Timed::new(stream, patience);
    let mut connection = ClientConnection::new(config, trust::server_name(host)).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    let mut session = Stream::new(&mut connection, &mut socket);
    session.write_all(line)?;
    session.flush()?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    // Managers end the session behind their answer, some of them without a goodbye.
    while answer.len() <= LINE_LIMIT && !matches!(Answer::parse(&answer), Ok(Answer::Granted(_))) {
        match session.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if !answer.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    connection.send_close_notify();
    let _ = connection.write_tls(&mut socket);
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer"));
    }
    Ok(answer)
}
