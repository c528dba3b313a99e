//! The `ignore` window of a rule (analysis-rules 5), and ours per value of some fields (`ignore_by`), which keeps one
//! attacker from silencing a rule for all others. Invariant: at most [`MOST`] values at a time; when there are more,
//! the one that began first is forgotten, which can only make a rule alert earlier.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::Decoded;
use crate::rule::subject::Subject;

/// Values that one rule keeps windows for.
const MOST: usize = 65_536;
/// Longer keys end in a hash.
const KEY_LIMIT: usize = 256;

/// The daemon and logtest differ in what opens the next window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowMode {
    /// The first win behind a window opens the next one.
    Reopens,
    /// Only the win after that does.
    Rests,
}

/// Open windows by value.
#[derive(Debug, Default)]
pub(crate) struct Window {
    opened: HashMap<Box<[u8]>, i64>,
    order: VecDeque<(i64, Box<[u8]>)>,
}

impl Window {
    /// Is a win now inside a window? If not, it opens one as the mode says.
    pub(crate) fn covers(&mut self, key: Box<[u8]>, now: i64, length: i64, mode: WindowMode) -> bool {
        if let Some(&opened) = self.opened.get(&key) {
            if now - opened < length {
                return true;
            }
            if mode == WindowMode::Rests {
                self.opened.remove(&key);
                return false;
            }
        }
        self.opened.insert(key.clone(), now);
        self.order.push_back((now, key));
        self.tidy(now, length);
        false
    }

    fn tidy(&mut self, now: i64, length: i64) {
        while let Some((opened, key)) = self.order.front() {
            let current = self.opened.get(key) == Some(opened);
            let over = now - opened >= length;
            // A lone window stays, so that logtest still finds it when it is over.
            if current && !(over && self.order.len() > MOST / 16) && self.order.len() <= MOST {
                break;
            }
            if current {
                self.opened.remove(key);
            }
            self.order.pop_front();
        }
    }
}

/// The key of an event's window: empty for a rule-wide one.
pub(crate) fn key(subjects: &[Subject], event: &Decoded<'_>) -> Box<[u8]> {
    let mut key = Vec::new();
    for subject in subjects {
        // Lengths keep neighbouring values apart; a missing value is one of its own.
        match subject.value(event) {
            Some(value) => {
                key.extend_from_slice(&(value.len() as u64 + 1).to_le_bytes());
                key.extend_from_slice(value);
            }
            None => key.extend_from_slice(&0_u64.to_le_bytes()),
        }
    }
    if key.len() > KEY_LIMIT {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        key.truncate(KEY_LIMIT);
        key.extend_from_slice(&hasher.finish().to_le_bytes());
    }
    key.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_silences_until_it_is_over_and_reopens() {
        let mut window = Window::default();
        let mut covers = |now| window.covers(Box::default(), now, 60, WindowMode::Reopens);
        let answers: Vec<bool> = [0, 59, 60, 61, 119, 120].into_iter().map(&mut covers).collect();
        assert_eq!(answers, [false, true, false, true, true, false]);
    }

    #[test]
    fn in_logtest_the_second_win_behind_a_window_opens_the_next() {
        let mut window = Window::default();
        let mut covers = |now| window.covers(Box::default(), now, 60, WindowMode::Rests);
        let answers: Vec<bool> = [0, 59, 60, 61, 62].into_iter().map(&mut covers).collect();
        assert_eq!(answers, [false, true, false, false, true]);
    }

    #[test]
    fn windows_of_different_values_do_not_meet_and_are_bounded() {
        let mut window = Window::default();
        for value in 0..200_000_u32 {
            assert!(!window.covers(Box::new(value.to_le_bytes()), 0, 60, WindowMode::Reopens));
        }
        assert!(window.opened.len() <= MOST);
        assert!(window.covers(Box::new(199_999_u32.to_le_bytes()), 1, 60, WindowMode::Reopens));
    }
}
