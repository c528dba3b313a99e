//! Work of many threads on one thing, done in one go: the first one that comes does it for all who wait by then. A burst
//! of orders then costs as many rewrites of a file, or dumps of a table, as there are rounds, not orders.
//! Invariant: whatever is answered was begun after it was asked for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// One thing that is worked on.
#[derive(Debug)]
pub(crate) struct Together<Q, A> {
    waiting: Mutex<Vec<(Q, Sender<A>)>>,
    turn: Mutex<()>,
}

impl<Q, A> Default for Together<Q, A> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: Mutex::default() }
    }
}

impl<Q, A> Together<Q, A> {
    /// Has `question` answered by `work`, which is called here or by another thread and answers every question that it
    /// is given, in their order. None only if it does not.
    pub(crate) fn ask(&self, question: Q, work: impl FnOnce(&[Q]) -> Vec<A>) -> Option<A> {
        let (reply, answer) = channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((question, reply));
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Who had the turn before answered all whom it found.
        if let Ok(answer) = answer.try_recv() {
            return Some(answer);
        }
        let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let (questions, replies): (Vec<Q>, Vec<Sender<A>>) = taken.into_iter().unzip();
        for (reply, answer) in replies.into_iter().zip(work(&questions)) {
            // Nobody stops waiting.
            let _ = reply.send(answer);
        }
        answer.try_recv().ok()
    }
}

/// The things by their names. There are few: one on a host, one for each place in tests.
#[derive(Debug)]
pub(crate) struct Places<K, Q, A>(Mutex<Option<Named<K, Q, A>>>);

type Named<K, Q, A> = HashMap<K, Arc<Together<Q, A>>>;

impl<K: Hash + Eq, Q, A> Places<K, Q, A> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn at(&self, place: K) -> Arc<Together<Q, A>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.get_or_insert_default().entry(place).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn everybody_gets_his_own_answer_and_many_share_one_round() {
        let together = Together::<usize, usize>::default();
        let (rounds, asking) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for question in 0..32 {
                let (together, rounds, asking) = (&together, &rounds, &asking);
                scope.spawn(move || {
                    asking.fetch_add(1, Ordering::SeqCst);
                    let answer = together.ask(question, |all| {
                        rounds.fetch_add(1, Ordering::SeqCst);
                        // The first one works until all others have come.
                        while asking.load(Ordering::SeqCst) < 32 {
                            std::thread::yield_now();
                        }
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        all.iter().map(|one| one * 2).collect()
                    });
                    assert_eq!(answer, Some(question * 2));
                });
            }
        });
        assert!(rounds.load(Ordering::SeqCst) < 16, "{rounds:?}");
    }

    #[test]
    fn a_worker_that_answers_nobody_leaves_nobody_waiting() {
        let together = Together::<(), ()>::default();
        assert_eq!(together.ask((), |_| Vec::new()), None);
    }
}
