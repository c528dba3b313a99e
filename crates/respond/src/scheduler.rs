//! When which effect is due: a heap of moments on the boot-time clock. An entry that was superseded stays in the
//! heap and is recognised by its stale generation when it surfaces, so that moving an end costs one push.
//! Invariant: every effect has at most one live generation.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// Moments at which effects need attention.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    heap: BinaryHeap<Reverse<(Duration, u64, i64)>>,
    live: HashMap<i64, u64>,
    generation: u64,
}

impl Scheduler {
    /// Plans `effect` for `due`, in place of what was planned for it before.
    pub(crate) fn plan(&mut self, effect: i64, due: Duration) {
        self.generation += 1;
        self.live.insert(effect, self.generation);
        self.heap.push(Reverse((due, self.generation, effect)));
        self.compact();
    }

    /// Forgets what was planned.
    pub(crate) fn cancel(&mut self, effect: i64) {
        self.live.remove(&effect);
    }

    /// Moment of the next live entry.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        while let Some(Reverse((due, generation, effect))) = self.heap.peek().copied() {
            if self.live.get(&effect) == Some(&generation) {
                return Some(due);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes up to `most` effects that are due at `now`, the earliest first.
    pub(crate) fn due(&mut self, now: Duration, most: usize) -> Vec<i64> {
        let mut ready = Vec::new();
        while ready.len() < most && self.next().is_some_and(|due| due <= now) {
            if let Some(Reverse((_, _, effect))) = self.heap.pop() {
                self.live.remove(&effect);
                ready.push(effect);
            }
        }
        ready
    }

    /// Stale entries must not outgrow the live ones when one attacker's block is extended again and again.
    fn compact(&mut self) {
        if self.heap.len() > 1024 && self.heap.len() > self.live.len() * 4 {
            let live = &self.live;
            self.heap.retain(|Reverse((_, generation, effect))| live.get(effect) == Some(generation));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_earliest_comes_first_and_only_when_due() {
        let mut scheduler = Scheduler::default();
        scheduler.plan(1, secs(30));
        scheduler.plan(2, secs(10));
        assert_eq!(scheduler.next(), Some(secs(10)));
        assert!(scheduler.due(secs(9), 10).is_empty());
        assert_eq!(scheduler.due(secs(30), 10), [2, 1]);
        assert_eq!(scheduler.next(), None);
    }

    #[test]
    fn a_moved_end_replaces_the_former_one() {
        let mut scheduler = Scheduler::default();
        scheduler.plan(1, secs(10));
        scheduler.plan(1, secs(60));
        assert!(scheduler.due(secs(59), 10).is_empty());
        assert_eq!(scheduler.due(secs(60), 10), [1]);
        scheduler.plan(1, secs(70));
        scheduler.cancel(1);
        assert_eq!(scheduler.next(), None);
    }

    #[test]
    fn endless_extension_does_not_grow_the_heap() {
        let mut scheduler = Scheduler::default();
        for second in 0..100_000 {
            scheduler.plan(1, secs(second));
        }
        assert!(scheduler.heap.len() <= 1025);
    }
}
