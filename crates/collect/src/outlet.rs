//! The one way out: a bounded channel that makes readers wait when it is full.
//!
//! Invariant: a message is either in the channel when [`Outlet::send`] says so, or the caller still has its source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tld_model::{Agent, Event, QUEUE_LOCAL, Timestamp};
use tld_sys::clock::Clock;
use tld_sys::queue::{Refused, Sender};

/// Time between two looks whether to stop while the channel is full.
const LOOK: Duration = Duration::from_millis(50);

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
    channel: Sender<Event>,
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
    pub(crate) fn new(channel: Sender<Event>, stop: Arc<AtomicBool>, clock: Arc<dyn Clock>) -> Self {
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
        loop {
            match self.channel.send_timeout(event, LOOK) {
                Ok(()) => {
                    self.counters.sent.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(Refused::Closed(_)) => {
                    self.stop.store(true, Ordering::Relaxed);
                    return Err(Closed);
                }
                Err(Refused::Full(_)) if self.stopping() => return Err(Closed),
                Err(Refused::Full(back)) => event = back,
            }
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
