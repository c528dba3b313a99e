//! One client of the enrolment port: handshake, one line, one answer, goodbye, all within one deadline.
//! Invariant: a client costs at most one thread, one buffer of the line limit, and the patience given.

use std::io::{self, Read, Write as _};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, Stream};
use tld_sys::tcp::Timed;
use tld_wire::enrol::LINE_LIMIT;

use super::admit::Admission;
use crate::tls;

/// How long the peer's own goodbye is waited for, so that our answer is not overtaken by a reset.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes read away meanwhile.
const FAREWELL_LIMIT: usize = 1 << 20;

/// How clients are treated.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) tls: Arc<ServerConfig>,
    pub(super) patience: Duration,
    pub(super) verify_host: bool,
}

/// Why a client got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no TLS session: {0}")]
    Handshake(#[source] io::Error),
    #[error("its certificate does not name its address")]
    Host,
    #[error("its request had no line end")]
    Unterminated,
    #[error("its request was too long")]
    TooLong,
    #[error("it went away: {0}")]
    Lost(#[source] io::Error),
    #[error("it asked for nothing")]
    Silent,
}

/// Serves a client to its end.
pub(super) fn serve(
    stream: &TcpStream,
    peer: IpAddr,
    terms: &Terms,
    admission: &Admission,
) -> Result<(), ClientError> {
    let mut socket = Timed::new(stream, terms.patience);
    let refused = |error: rustls::Error| ClientError::Handshake(io::Error::other(error));
    let mut connection = ServerConnection::new(Arc::clone(&terms.tls)).map_err(refused)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(ClientError::Handshake)?;
    }
    if terms.verify_host {
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        if !certificate.is_some_and(|certificate| tls::names_address(certificate, peer)) {
            return Err(ClientError::Host);
        }
    }
    let line = request(&mut Stream::new(&mut connection, &mut socket))?;
    let answer = zeroize::Zeroizing::new(admission.answer(&line, peer).to_text());
    // Deciding may have taken its time; the answer gets its own.
    socket.renew(terms.patience);
    let mut session = Stream::new(&mut connection, &mut socket);
    session.write_all(answer.as_bytes()).and_then(|()| session.flush()).map_err(ClientError::Lost)?;
    connection.send_close_notify();
    while connection.wants_write() {
        connection.write_tls(&mut socket).map_err(ClientError::Lost)?;
    }
    part(stream);
    Ok(())
}

/// The bytes up to the first line end.
fn request(session: &mut impl Read) -> Result<Vec<u8>, ClientError> {
    let mut line = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        let count = match session.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if line.is_empty() => return Err(ClientError::Lost(error)),
            Err(_) => return Err(ClientError::Unterminated),
        };
        let read = chunk.get(..count).unwrap_or_default();
        if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            line.extend(read.iter().take(end));
            return Ok(line);
        }
        match (count, line.is_empty()) {
            (0, true) => return Err(ClientError::Silent),
            (0, false) => return Err(ClientError::Unterminated),
            _ => line.extend(read),
        }
        if line.len() > LINE_LIMIT {
            return Err(ClientError::TooLong);
        }
    }
}

fn part(stream: &TcpStream) {
    let mut rest = Timed::new(stream, FAREWELL);
    let mut buffer = [0; 4_096];
    let mut seen = 0;
    if stream.shutdown(Shutdown::Write).is_ok() {
        while seen < FAREWELL_LIMIT {
            match rest.read(&mut buffer) {
                Ok(count @ 1..) => seen += count,
                _ => return,
            }
        }
    }
}
