//! What waits to be sent on the present connection: control messages first, then events from the spool. Other threads
//! put things in; the sending thread takes them out.
//! Invariant: an event counts as delivered only when the manager said so (our own managers), or when it was handed to
//! the network (others, which say nothing).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tld_wire::counter::Counter;

/// Events that may be on their way unconfirmed; the manager confirms every second.
const WINDOW: usize = 200_000;
/// Control messages that may wait. Beyond it the oldest is given up: what matters is said again.
const URGENT: usize = 4096;

/// How the manager confirms events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirms {
    /// It may still declare itself.
    Unknown,
    /// It says what it has taken.
    Yes,
    /// What is sent is delivered.
    No,
}

/// Events on their way: everything below `first` is delivered, and these have left with these counters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Flight {
    pub(crate) first: u64,
    pub(crate) pairs: VecDeque<(Counter, u64)>,
}

impl Flight {
    /// Takes out what the manager has; answers the first number that it may not have.
    fn taken(&mut self, upto: Counter) -> u64 {
        while let Some((_, number)) = self.pairs.pop_front_if(|(pair, _)| *pair <= upto) {
            self.first = number + 1;
        }
        self.first
    }
}

/// What the sending thread does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Control(Vec<u8>),
    /// Events, from this number if one is given, else from where it was.
    Events(Option<u64>),
    Nothing,
    Close,
}

#[derive(Debug)]
struct State {
    urgent: VecDeque<Vec<u8>>,
    closing: bool,
    /// Both sides have declared our extension.
    extended: bool,
    confirms: Confirms,
    flight: Flight,
    /// Where sending begins on this connection, until it has begun.
    resume: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
}

impl Lane {
    /// `flight` is what an earlier process left on its way.
    pub(crate) fn new(flight: Flight) -> Self {
        let (urgent, confirms) = (VecDeque::new(), Confirms::Unknown);
        let state = State { urgent, closing: true, extended: false, confirms, flight, resume: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), dropped: AtomicU64::new(0) }
    }

    /// A connection begins with this message.
    pub(crate) fn begin(&self, first: Vec<u8>) {
        let mut state = self.lock();
        state.urgent = VecDeque::from([first]);
        state.closing = false;
        state.extended = false;
        state.confirms = Confirms::Unknown;
    }

    /// The connection ends; nothing more is sent on it.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Sends a control message before any event.
    pub(crate) fn urge(&self, payload: Vec<u8>) {
        self.put(self.lock(), payload);
    }

    /// The manager has declared our extension.
    pub(crate) fn extend(&self) {
        self.lock().extended = true;
    }

    /// Sends a message of our extension, unless the manager does not speak it; then it is told on a later connection.
    pub(crate) fn report(&self, payload: Vec<u8>) {
        let state = self.lock();
        if state.extended {
            self.put(state, payload);
        }
    }

    fn put(&self, mut state: MutexGuard<'_, State>, payload: Vec<u8>) {
        if state.closing {
            return;
        }
        if state.urgent.len() >= URGENT {
            state.urgent.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        state.urgent.push_back(payload);
        drop(state);
        self.changed.notify_all();
    }

    /// There may be events.
    pub(crate) fn nudge(&self) {
        self.changed.notify_all();
    }

    pub(crate) fn has_urgent(&self) -> bool {
        let state = self.lock();
        state.closing || !state.urgent.is_empty()
    }

    /// Settles how the manager confirms. From now on events may be sent, the first that it may not have first.
    pub(crate) fn settle(&self, confirms: Confirms) {
        let mut state = self.lock();
        let was = std::mem::replace(&mut state.confirms, confirms);
        // A declaration that comes late is good for what is sent from now on.
        if was != Confirms::Unknown {
            return;
        }
        state.resume = Some(state.flight.first);
        state.flight.pairs.clear();
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn confirms(&self) -> Confirms {
        self.lock().confirms
    }

    /// Notes an event that is handed to the network; answers the number below which all are delivered.
    pub(crate) fn sent(&self, number: u64, pair: Counter) -> u64 {
        let mut state = self.lock();
        match state.confirms {
            Confirms::No => state.flight = Flight { first: number + 1, pairs: VecDeque::new() },
            Confirms::Yes | Confirms::Unknown => state.flight.pairs.push_back((pair, number)),
        }
        state.flight.first
    }

    /// The manager has taken everything up to that pair; answers the number below which all are delivered.
    pub(crate) fn taken(&self, upto: Counter) -> u64 {
        let first = self.lock().flight.taken(upto);
        self.changed.notify_all();
        first
    }

    pub(crate) fn flight(&self) -> Flight {
        self.lock().flight.clone()
    }

    /// Waits for something to do; `ready` says whether there are events
    /// that may go now, from the number given or from where it was.
    pub(crate) fn next(&self, patience: Duration, ready: impl Fn(Option<u64>) -> bool) -> Work {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            if state.closing {
                return Work::Close;
            }
            if let Some(payload) = state.urgent.pop_front() {
                return Work::Control(payload);
            }
            let settled = state.confirms != Confirms::Unknown;
            if settled && state.flight.pairs.len() < WINDOW && ready(state.resume) {
                return Work::Events(state.resume.take());
            }
            if waited {
                return Work::Nothing;
            }
            let (guard, time) =
                self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            waited = time.timed_out();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(local: u16) -> Counter {
        Counter { global: 1, local }
    }

    #[test]
    fn only_what_the_manager_has_not_taken_is_sent_again() {
        let lane = Lane::new(Flight::default());
        lane.begin(b"hello".to_vec());
        lane.settle(Confirms::Yes);
        for number in 0..5 {
            assert_eq!(lane.sent(number, pair(10 + number as u16)), 0);
        }
        assert_eq!(lane.taken(pair(11)), 2);
        lane.close();
        // The next connection: the manager had one more.
        lane.begin(b"hello".to_vec());
        lane.taken(pair(12));
        lane.settle(Confirms::Yes);
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Control(b"hello".to_vec()));
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Events(Some(3)));
        assert_eq!(lane.sent(3, pair(20)), 3);
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Events(None));
    }

    #[test]
    fn to_a_manager_that_confirms_nothing_sent_is_delivered() {
        let lane = Lane::new(Flight::default());
        lane.begin(Vec::new());
        lane.settle(Confirms::No);
        assert_eq!(lane.sent(7, pair(1)), 8);
    }

    #[test]
    fn a_manager_that_declares_itself_late_confirms_from_then_on_and_gets_nothing_twice() {
        let lane = Lane::new(Flight::default());
        lane.begin(b"hello".to_vec());
        lane.settle(Confirms::No);
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Control(b"hello".to_vec()));
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Events(Some(0)));
        assert_eq!(lane.sent(0, pair(1)), 1);
        lane.settle(Confirms::Yes);
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Events(None));
        assert_eq!(lane.sent(1, pair(2)), 1);
        assert_eq!(lane.taken(pair(2)), 2);
    }

    #[test]
    fn control_goes_before_events_and_events_wait_until_it_is_settled() {
        let lane = Lane::new(Flight::default());
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Close);
        lane.begin(b"hello".to_vec());
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Control(b"hello".to_vec()));
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Nothing);
        lane.settle(Confirms::No);
        lane.urge(b"x".to_vec());
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Control(b"x".to_vec()));
        assert_eq!(lane.next(Duration::ZERO, |_| true), Work::Events(Some(0)));
        assert_eq!(lane.next(Duration::ZERO, |_| false), Work::Nothing);
    }
}
