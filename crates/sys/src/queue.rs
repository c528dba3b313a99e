//! A queue between threads that is bounded by the number of its items and by their bytes, because a count alone says
//! nothing about memory when one item may be a hundred times another.
//!
//! Invariants: what is queued weighs at most [`Limits::bytes`], or is one single item; items leave in the order in which
//! they came; an item is either in the queue or back in its sender's hands.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Items.
    pub items: usize,
    /// Their weights in all. One item heavier than this passes when it is alone.
    pub bytes: usize,
}

/// What a queue holds and has held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Items that wait.
    pub items: usize,
    /// Their weight.
    pub bytes: usize,
    /// Items that ever came in.
    pub passed: u64,
    /// How often a sender found it full and waited or turned back.
    pub full: u64,
    /// The greatest weight so far.
    pub peak_bytes: usize,
}

/// An item that did not get in, with the reason.
#[derive(PartialEq, Eq)]
pub enum Refused<T> {
    /// No room (in time).
    Full(T),
    /// Nobody receives any more.
    Closed(T),
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

/// Makes a queue whose items weigh what `weigh` says.
pub fn bounded<T>(limits: Limits, weigh: fn(&T) -> usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        items: VecDeque::new(),
        load: Load::default(),
        senders: 1,
        closed: false,
        receiver_waits: false,
        senders_wait: 0,
    };
    let shared = Arc::new(Shared {
        limits,
        weigh,
        state: Mutex::new(state),
        room: Condvar::new(),
        more: Condvar::new(),
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

struct Shared<T> {
    limits: Limits,
    weigh: fn(&T) -> usize,
    state: Mutex<State<T>>,
    room: Condvar,
    more: Condvar,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    load: Load,
    senders: usize,
    closed: bool,
    /// Waking costs a system call, so it is done only for somebody who sleeps.
    receiver_waits: bool,
    senders_wait: usize,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, load: &Load, weight: usize) -> bool {
        load.items == 0
            || (load.items < self.limits.items && load.bytes.saturating_add(weight) <= self.limits.bytes)
    }

    /// Senders that found it full sleep until an eighth is free again: waking them for each place would be two switches an item.
    fn worth_waking(&self, load: &Load) -> bool {
        let low = |most: usize| most - most / 8;
        load.items == 0 || (load.items <= low(self.limits.items) && load.bytes <= low(self.limits.bytes))
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, item: T, weight: usize) {
        state.items.push_back((item, weight));
        state.load.items += 1;
        state.load.bytes = state.load.bytes.saturating_add(weight);
        state.load.passed += 1;
        state.load.peak_bytes = state.load.peak_bytes.max(state.load.bytes);
        let wake = std::mem::take(&mut state.receiver_waits);
        drop(state);
        if wake {
            self.more.notify_one();
        }
    }

    fn take(&self, state: &mut MutexGuard<'_, State<T>>) -> Option<T> {
        let (item, weight) = state.items.pop_front()?;
        state.load.items -= 1;
        state.load.bytes = state.load.bytes.saturating_sub(weight);
        if state.items.is_empty() && state.items.capacity() > 1024 {
            // A burst's memory is not kept for quiet times.
            state.items.shrink_to(64);
        }
        if state.senders_wait > 0 && self.worth_waking(&state.load) {
            self.room.notify_all();
        }
        Some(item)
    }
}

/// The entrance; may be cloned for more threads.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Puts an item in, and waits for room as long as it takes.
    ///
    /// # Errors
    /// Nobody receives any more; the item comes back.
    pub fn send(&self, item: T) -> Result<(), Refused<T>> {
        self.put_by(item, None)
    }

    /// The same, but waits no longer than `patience`.
    ///
    /// # Errors
    /// No room in time, or nobody receives any more; the item comes back.
    pub fn send_timeout(&self, item: T, patience: Duration) -> Result<(), Refused<T>> {
        self.put_by(item, Some(patience))
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// No room, or nobody receives any more; the item comes back.
    pub fn try_send(&self, item: T) -> Result<(), Refused<T>> {
        let weight = (self.shared.weigh)(&item);
        let mut state = self.shared.state();
        if state.closed {
            return Err(Refused::Closed(item));
        }
        if !self.shared.has_room(&state.load, weight) {
            state.load.full += 1;
            return Err(Refused::Full(item));
        }
        self.shared.put(state, item, weight);
        Ok(())
    }

    /// What it holds now.
    pub fn load(&self) -> Load {
        self.shared.state().load
    }

    fn put_by(&self, item: T, patience: Option<Duration>) -> Result<(), Refused<T>> {
        let weight = (self.shared.weigh)(&item);
        let no_room = |state: &State<T>| !state.closed && !self.shared.has_room(&state.load, weight);
        let mut state = self.shared.state();
        if no_room(&state) {
            state.load.full += 1;
            state.senders_wait += 1;
            state = wait(&self.shared.room, state, patience, |state| no_room(state));
            state.senders_wait -= 1;
        }
        if state.closed {
            return Err(Refused::Closed(item));
        }
        if no_room(&state) {
            return Err(Refused::Full(item));
        }
        self.shared.put(state, item, weight);
        Ok(())
    }
}

fn wait<'a, S>(
    on: &Condvar,
    state: MutexGuard<'a, S>,
    patience: Option<Duration>,
    condition: impl FnMut(&mut S) -> bool,
) -> MutexGuard<'a, S> {
    match patience {
        Some(patience) => {
            on.wait_timeout_while(state, patience, condition).unwrap_or_else(PoisonError::into_inner).0
        }
        None => on.wait_while(state, condition).unwrap_or_else(PoisonError::into_inner),
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.state().senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.senders -= 1;
        let last = state.senders == 0;
        drop(state);
        if last {
            self.shared.more.notify_one();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("load", &self.load()).finish_non_exhaustive()
    }
}

/// The exit.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The oldest item; waits for one.
    ///
    /// # Errors
    /// Empty, and all senders are gone.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.take_by(None).map_err(|_gone| RecvError)
    }

    /// The oldest item; waits no longer than `patience`.
    ///
    /// # Errors
    /// Nothing came in time, or all senders are gone.
    pub fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
        self.take_by(Some(patience))
    }

    /// The oldest item if there is one.
    ///
    /// # Errors
    /// Empty now, or for ever because all senders are gone.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.shared.state();
        match self.shared.take(&mut state) {
            Some(item) => Ok(item),
            None if state.senders == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Items as they come, until all senders are gone.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// What it holds now.
    pub fn load(&self) -> Load {
        self.shared.state().load
    }

    fn take_by(&self, patience: Option<Duration>) -> Result<T, RecvTimeoutError> {
        let mut state = self.shared.state();
        if state.items.is_empty() {
            // Whoever wakes takes the flag back, so it is set anew for each sleep.
            let asleep = |state: &mut State<T>| {
                state.receiver_waits = state.items.is_empty() && state.senders > 0;
                state.receiver_waits
            };
            state = wait(&self.shared.more, state, patience, asleep);
            state.receiver_waits = false;
        }
        match self.shared.take(&mut state) {
            Some(item) => Ok(item),
            None if state.senders == 0 => Err(RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        let rest = std::mem::take(&mut state.items);
        (state.load.items, state.load.bytes) = (0, 0);
        drop(state);
        self.shared.room.notify_all();
        // Items may do anything when they are dropped, but not under the lock.
        drop(rest);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("load", &self.load()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
