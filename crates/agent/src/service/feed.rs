//! From the collectors and the local socket into the spool.
//! Invariant: an event is in the spool before its source is told to forget it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use tld_model::Event;
use tld_sys::queue::Receiver;
use tld_sys::unix_socket::{self, Received};
use tld_wire::event::{self, LIMIT, Parts};

use crate::responder::listen::Admission;
use crate::responder::voice::Voice;
use crate::spool::Spool;
use crate::uplink::lane::Lane;
use crate::uplink::status::Status;

/// Events written at once.
const BATCH: usize = 1024;
const TICK: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_secs(1);

/// The way into the spool.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    pub(super) spool: Arc<Spool>,
    pub(super) lane: Arc<Lane>,
    pub(super) status: Arc<Status>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) voice: Voice,
    /// Events of the collectors that are in the spool.
    pub(super) taken: Arc<AtomicU64>,
}

impl Feed {
    /// Takes what the collectors bring, until they are gone.
    pub(super) fn collected(&self, events: &Receiver<Event>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            match events.recv_timeout(TICK) {
                Ok(first) => {
                    batch.push(event::to_bytes(&first));
                    let rest = std::iter::from_fn(|| events.try_recv().ok());
                    batch.extend(rest.take(BATCH - 1).map(|event| event::to_bytes(&event)));
                    let count = batch.len() as u64;
                    if !self.put(&batch) {
                        return;
                    }
                    batch.clear();
                    self.taken.fetch_add(count, Ordering::SeqCst);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Serves `queue/sockets/queue` until the stop.
    pub(super) fn local(&self, socket: &UnixDatagram, admission: Admission) {
        while !self.stop.load(Ordering::SeqCst) {
            match unix_socket::recv_from_peer(socket, LIMIT, TICK) {
                Ok((Received::Message(datagram), Some(peer))) if admission.admits(peer) => {
                    match Parts::parse(&datagram) {
                        Ok(parts) => drop(self.put(&[parts.to_bytes()])),
                        Err(error) => self.voice.debug(|| format!("a local event was dropped: {error}")),
                    }
                }
                Ok((Received::Message(_), _)) => {
                    self.voice.warning("a local event was dropped: its sender is not of this installation");
                }
                Ok(_) => {}
                Err(error) => {
                    self.voice.error(&format!("(1210): cannot read local events: {error}"));
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Waits until they are in the spool; false at the stop.
    fn put(&self, events: &[Vec<u8>]) -> bool {
        let mut complained = false;
        loop {
            match self.spool.append(events, &self.stop) {
                Ok(taken) => {
                    self.status.offered(events.len() as u64);
                    self.lane.nudge();
                    return taken;
                }
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        self.voice.error(&format!("events cannot be put into the spool, they wait: {error}"));
                    }
                    if error.kind() == io::ErrorKind::Interrupted {
                        continue;
                    }
                    if self.stop.load(Ordering::SeqCst) {
                        return false;
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}
