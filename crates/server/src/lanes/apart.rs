//! Gives the events of a batch their own copy of what they share with those of other batches: the agent and the location.
//!
//! Each event counts as a user of both. While two lanes count up and down at once, the counter goes back and forth between
//! their caches, which costs more than much of the analysis. Invariant: an event says the same before and after.

use std::sync::Arc;

use tld_model::{Agent, Event};

/// What the events of one batch share.
#[derive(Debug, Default)]
pub(super) struct Apart {
    agents: Copies<Agent>,
    locations: Copies<[u8]>,
}

impl Apart {
    /// For each event of a batch.
    pub(super) fn part(&mut self, event: &mut Event) {
        self.agents.part(&mut event.agent, |agent| Arc::new(agent.clone()));
        self.locations.part(&mut event.location, |location| Arc::from(location));
    }

    /// At the end of a batch.
    pub(super) fn forget(&mut self) {
        self.agents.forget();
        self.locations.forget();
    }
}

/// Places of a table; of more agents than this in one batch each is rarely met.
const PLACES: usize = 16;

#[derive(Debug)]
struct Copies<T: ?Sized> {
    places: [Option<Met<T>>; PLACES],
    any: bool,
}

#[derive(Debug)]
struct Met<T: ?Sized> {
    /// Held, so that nothing else gets its address.
    shared: Arc<T>,
    /// Made when it is met again: a copy costs more than one use.
    own: Option<Arc<T>>,
}

impl<T: ?Sized> Default for Copies<T> {
    fn default() -> Self {
        Self { places: [const { None }; PLACES], any: false }
    }
}

impl<T: ?Sized> Copies<T> {
    fn part(&mut self, value: &mut Arc<T>, copy: impl FnOnce(&T) -> Arc<T>) {
        let address = Arc::as_ptr(value).cast::<u8>() as usize;
        // Allocations lie at multiples of 16.
        let place = &mut self.places[(address >> 4 ^ address >> 8) % PLACES];
        match place {
            Some(met) if Arc::ptr_eq(&met.shared, value) => {
                *value = Arc::clone(met.own.get_or_insert_with(|| copy(&met.shared)));
            }
            _ => *place = Some(Met { shared: Arc::clone(value), own: None }),
        }
        self.any = true;
    }

    fn forget(&mut self) {
        if self.any {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use tld_model::{AgentId, Timestamp};

    use super::*;

    #[test]
    fn events_of_two_batches_share_no_counter_and_say_the_same() {
        let agents = [7, 8].map(|id| Arc::new(Agent { id: AgentId(id), ..Agent::default() }));
        let location: Arc<[u8]> = b"/var/log/auth.log".as_slice().into();
        let mut apart = Apart::default();
        let mut batch = || {
            let events = (0..40).map(|n| {
                let mut event = Event::local("x", "text", Timestamp::EPOCH);
                (event.agent, event.location) = (Arc::clone(&agents[n % 2]), Arc::clone(&location));
                let before = event.clone();
                apart.part(&mut event);
                assert_eq!(event, before);
                event
            });
            let events: Vec<_> = events.collect();
            apart.forget();
            events
        };
        let (first, second) = (batch(), batch());
        let shared =
            |a: &Event, b: &Event| Arc::ptr_eq(&a.agent, &b.agent) || Arc::ptr_eq(&a.location, &b.location);
        // The first of each kind keeps what it came with.
        assert!(first[2..].iter().all(|a| second[2..].iter().all(|b| !shared(a, b))));
        drop((first, second));
        assert_eq!(agents.map(|agent| Arc::strong_count(&agent)), [1, 1]);
    }
}
