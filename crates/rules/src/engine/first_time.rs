//! Which combinations of values were seen before (analysis-decoders 9): the memory of `if_fts`.
//! Invariant: at most `most` keys; the oldest is forgotten first.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Longest key in bytes.
pub(crate) const KEY_LIMIT: usize = 256;

/// Seen keys.
#[derive(Debug, Default)]
pub(crate) struct FirstTime {
    seen: HashSet<Arc<[u8]>>,
    order: VecDeque<Arc<[u8]>>,
    /// The last keys of intrusion detection events.
    recent: VecDeque<Arc<[u8]>>,
}

/// Limits of the memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) most: usize,
    pub(crate) recent: usize,
    pub(crate) cut: usize,
}

impl FirstTime {
    /// Stores a key; the key as stored when it is new.
    pub(crate) fn store(&mut self, mut key: Vec<u8>, ids: bool, limits: Limits) -> Option<Arc<[u8]>> {
        if self.seen.contains(&*key) {
            return None;
        }
        if ids {
            let similar = self.recent.iter().filter(|known| shared_prefix(known, &key) > limits.cut).count();
            if similar > 2 {
                key.truncate(limits.cut);
            }
            self.recent.push_back(key.as_slice().into());
            while self.recent.len() > limits.recent {
                self.recent.pop_front();
            }
        }
        self.insert(&key, limits.most)
    }

    /// Takes in a key that an earlier process stored.
    pub(crate) fn restore(&mut self, key: &[u8], most: usize) {
        self.insert(&key[..key.len().min(KEY_LIMIT)], most);
    }

    fn insert(&mut self, key: &[u8], most: usize) -> Option<Arc<[u8]>> {
        let key: Arc<[u8]> = key.into();
        if !self.seen.insert(Arc::clone(&key)) {
            return None;
        }
        self.order.push_back(Arc::clone(&key));
        while self.order.len() > most {
            if let Some(oldest) = self.order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
        Some(key)
    }
}

fn shared_prefix(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { most: 4, recent: 32, cut: 3 };

    #[test]
    fn a_key_is_new_once() {
        let mut seen = FirstTime::default();
        assert!(seen.store(b"a".to_vec(), false, LIMITS).is_some());
        assert!(seen.store(b"a".to_vec(), false, LIMITS).is_none());
    }

    #[test]
    fn the_fourth_similar_detection_is_cut_and_hides_those_that_follow() {
        let mut seen = FirstTime::default();
        let limits = Limits { most: 100, ..LIMITS };
        let mut stored = |key: &str| seen.store(key.into(), true, limits).map(|key| key.to_vec());
        for key in ["abcd1", "abcd2", "abcd3"] {
            assert_eq!(stored(key), Some(key.into()));
        }
        assert_eq!(stored("abcd4"), Some(b"abc".to_vec()));
        assert_eq!(stored("abcd5"), None);
    }

    #[test]
    fn the_oldest_key_is_forgotten_when_there_are_too_many() {
        let mut seen = FirstTime::default();
        for key in [b"a", b"b", b"c", b"d", b"e"] {
            seen.store(key.to_vec(), false, LIMITS);
        }
        assert!(seen.store(b"a".to_vec(), false, LIMITS).is_some());
        assert!(seen.store(b"e".to_vec(), false, LIMITS).is_none());
    }
}
