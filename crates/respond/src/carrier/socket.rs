//! The carrier between two processes: a pair of SOCK_SEQPACKET sockets, made before the process splits, so that no
//! third party can ever speak on it. One JSON message per packet; outcomes come back on the same socket.
//! Invariant: a message that cannot be read is reported and dropped, and never stops the service.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tld_model::{Order, OrderId, Outcome, OutcomeKind};
use tld_sys::unix_socket::{self, Received, Seqpacket};

use super::{Carrier, DeliverError};
use crate::{LogFn, Report, Responder, RevertSelector};

/// A message on the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Order(Box<Order>),
    Revert(RevertSelector),
    Outcome(Box<Outcome>),
    Report(Report),
    Confirmed(OrderId, OutcomeKind),
    Withdrawn(OrderId),
}

/// A connected pair; one end for each process.
///
/// # Errors
/// When the system gives no sockets.
pub fn pair() -> io::Result<(Seqpacket, Seqpacket)> {
    let (one, other) = unix_socket::pair()?;
    for end in [&one, &other] {
        // Room for a burst of orders with whole alerts; the system may grant less.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, BUFFER);
    }
    Ok((one, other))
}

/// The unprivileged end.
#[derive(Debug, Clone)]
pub struct SocketCarrier {
    socket: Arc<Seqpacket>,
}

impl SocketCarrier {
    /// Takes an end of [`pair`]; outcomes that come back go to `outcomes` until the responder is gone.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(socket: Seqpacket, outcomes: Sender<Outcome>, log: LogFn) -> io::Result<Self> {
        Self::hearing(socket, log, move |message| match message {
            Message::Outcome(outcome) => Some(outcomes.send(*outcome).is_ok()),
            _ => None,
        })
    }

    /// Takes an end of [`pair`] whose other end [`serve_reports`] serves.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn reporting(socket: Seqpacket, reports: Sender<Report>, log: LogFn) -> io::Result<Self> {
        Self::hearing(socket, log, move |message| match message {
            Message::Report(report) => Some(reports.send(report).is_ok()),
            _ => None,
        })
    }

    /// `hear` answers whether it wants more; none for what it does not expect.
    fn hearing(
        socket: Seqpacket,
        log: LogFn,
        hear: impl Fn(Message) -> Option<bool> + Send + 'static,
    ) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let reading = Arc::clone(&socket);
        std::thread::Builder::new().name("outcomes".into()).spawn(move || {
            while let Some(message) = next(&reading, &log) {
                match message.map(&hear) {
                    Ok(Some(true)) => {}
                    Ok(Some(false)) => return,
                    Ok(None) => log("the responder sent something that is no outcome; it was dropped"),
                    Err(error) => log(&format!("an outcome could not be read and was dropped: {error}")),
                }
            }
        })?;
        Ok(Self { socket })
    }

    /// Hands an order over, and waits while the responder is full.
    ///
    /// # Errors
    /// When the order was not taken.
    pub fn deliver_waiting(&self, order: Order) -> Result<(), DeliverError> {
        self.put(&Message::Order(Box::new(order)), Duration::MAX)
    }

    /// Tells that a manager has stored an outcome; waits while the responder is full.
    ///
    /// # Errors
    /// When it was not taken; the outcome will be reported again.
    pub fn confirm(&self, order: OrderId, kind: OutcomeKind) -> Result<(), DeliverError> {
        self.put(&Message::Confirmed(order, kind), Duration::MAX)
    }

    /// Tells that a manager withdraws an order; waits while the responder is full.
    ///
    /// # Errors
    /// When it was not taken.
    pub fn withdraw(&self, order: OrderId) -> Result<(), DeliverError> {
        self.put(&Message::Withdrawn(order), Duration::MAX)
    }

    /// Asks the responder to lift effects.
    ///
    /// # Errors
    /// When the request was not taken.
    pub fn revert(&self, selector: RevertSelector) -> Result<(), DeliverError> {
        self.put(&Message::Revert(selector), Duration::ZERO)
    }

    /// `patience` bounds the wait for room.
    fn put(&self, message: &Message, patience: Duration) -> Result<(), DeliverError> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE {
            return Err(DeliverError::TooLong(bytes.len()));
        }
        self.socket.send(&bytes, patience).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => DeliverError::Full,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => DeliverError::Gone,
            _ => DeliverError::Socket(error),
        })
    }
}

impl Carrier for SocketCarrier {
    fn deliver(&self, order: &Order) -> Result<(), DeliverError> {
        self.put(&Message::Order(Box::new(order.clone())), Duration::ZERO)
    }
}

/// Serves the privileged end: orders and reverts go to `responder`, its outcomes back. The first thread ends when the
/// other process is gone, the second when the responder stops.
///
/// # Errors
/// When no thread can be started.
pub fn serve(
    socket: Seqpacket,
    responder: Arc<Responder>,
    outcomes: Receiver<Outcome>,
    log: LogFn,
) -> io::Result<[JoinHandle<()>; 2]> {
    let messages = outcomes.into_iter().map(|outcome| Message::Outcome(Box::new(outcome)));
    serve_with(socket, responder, messages, log)
}

/// Serves the privileged end for a manager's orders: instead of all outcomes, reports go back.
///
/// # Errors
/// When no thread can be started.
pub fn serve_reports(
    socket: Seqpacket,
    responder: Arc<Responder>,
    reports: Receiver<Report>,
    log: LogFn,
) -> io::Result<[JoinHandle<()>; 2]> {
    serve_with(socket, responder, reports.into_iter().map(Message::Report), log)
}

fn serve_with(
    socket: Seqpacket,
    responder: Arc<Responder>,
    messages: impl Iterator<Item = Message> + Send + 'static,
    log: LogFn,
) -> io::Result<[JoinHandle<()>; 2]> {
    let socket = Arc::new(socket);
    let (writing, writer_log) = (Arc::clone(&socket), Arc::clone(&log));
    let writer = std::thread::Builder::new().name("outcomes".into()).spawn(move || {
        for message in messages {
            let bytes = serde_json::to_vec(&message).unwrap_or_default();
            // After the peer is gone outcomes stay in the journal.
            if let Err(error) = writing.send(&bytes, PATIENCE)
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                writer_log(&format!("an outcome could not be sent: {error}"));
            }
        }
    })?;
    let reader = std::thread::Builder::new().name("orders".into()).spawn(move || {
        while let Some(message) = next(&socket, &log) {
            match message {
                // Waiting here fills the socket, which the sender sees as `Full`.
                Ok(Message::Order(order)) => {
                    if responder.submit_waiting(*order).is_err() {
                        return;
                    }
                }
                Ok(Message::Revert(selector)) => responder.revert(selector),
                Ok(Message::Confirmed(order, kind)) => responder.confirm(order, kind),
                Ok(Message::Withdrawn(order)) => responder.withdraw(order),
                Ok(Message::Outcome(_) | Message::Report(_)) => {
                    log("an outcome was sent to the responder; it was dropped");
                }
                Err(error) => log(&format!("an order could not be read and was dropped: {error}")),
            }
        }
    })?;
    Ok([reader, writer])
}

/// The next message; none when the other side is gone.
fn next(socket: &Seqpacket, log: &LogFn) -> Option<Result<Message, String>> {
    loop {
        match socket.recv(MESSAGE, Duration::MAX) {
            Ok(Received::Message(bytes)) => {
                return Some(serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
            }
            Ok(Received::TooLong) => return Some(Err(format!("it has more than {MESSAGE} bytes"))),
            Ok(Received::TimedOut) => {}
            Ok(Received::Closed) => return None,
            Err(error) => {
                log(&format!("the socket between the processes failed: {error}"));
                return None;
            }
        }
    }
}

/// Longest message: an alert of 64 KiB, escaped, with room to spare.
const MESSAGE: usize = 256 * 1024;
const BUFFER: usize = 1 << 20;
/// A peer that reads no outcome for so long has hung; the outcome stays in the journal.
const PATIENCE: Duration = Duration::from_secs(10);
