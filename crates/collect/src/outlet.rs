//! The one way out: a bounded channel that makes readers wait when it is full.
//!
//! Invariant: a message is either in the channel when [`Outlet::send`] says so, or the caller still has its source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use tld_model::{Agent, Event, QUEUE_LOCAL, Timestamp};
use tld_sys::clock::Clock;

/// Longest pause between two looks at a full channel.
const PAUSE: Duration = Duration::from_micros(500);

/// Counts of what happened, readable at any time.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Messages handed to the channel.
    pub(crate) sent: AtomicU64,
    /// Lines dropped because they held a NUL byte.
    pub(crate) nul_lines: AtomicU64,
    /// Messages held back by `ignore` or `restrict`.
    pub(crate) filtered: AtomicU64,
}

/// Where all readers put their events.
#[derive(Clone)]
pub(crate) struct Outlet {
    channel: SyncSender<Event>,
    stop: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    agent: Arc<Agent>,
    pub(crate) counters: Arc<Counters>,
}

/// The pipeline is gone or the collector stops: read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

impl Outlet {
    /// A way into `channel` that closes when `stop` is set.
    pub(crate) fn new(channel: SyncSender<Event>, stop: Arc<AtomicBool>, clock: Arc<dyn Clock>) -> Self {
        Self { channel, stop, clock, agent: Arc::default(), counters: Arc::default() }
    }

    /// Waits until there is room.
    pub(crate) fn send(&self, location: &Arc<[u8]>, text: Vec<u8>) -> Result<(), Closed> {
        let mut event = Event {
            queue: QUEUE_LOCAL,
            location: Arc::clone(location),
            agent: Arc::clone(&self.agent),
            text,
            received: self.now(),
        };
        let mut pause = Duration::from_micros(20);
        loop {
            match self.channel.try_send(event) {
                Ok(()) => {
                    self.counters.sent.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.stop.store(true, Ordering::Relaxed);
                    return Err(Closed);
                }
                Err(TrySendError::Full(_)) if self.stopping() => return Err(Closed),
                Err(TrySendError::Full(back)) => event = back,
            }
            // A plain `send` could not be left at a stop while nobody takes.
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// Whether readers should end.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Wall-clock time.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }

    /// Time since boot.
    pub(crate) fn boot(&self) -> Duration {
        self.clock.boot()
    }
}
