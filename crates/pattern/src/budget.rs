//! What backtracking searches may cost one event, over all its patterns.
//!
//! A pattern with look-around may have to look at a long line once for each of its places. A search of a long subject that
//! takes too many steps ends without a match, and after it no other such search is begun for the same event. The count is
//! kept per thread, because one thread works on one event at a time. Invariant: nothing but the subject's length, the
//! pattern and the searches since [`begin`] decides, so that equal events have equal answers.

use std::cell::Cell;

/// Bytes that the searches of one event may look at, each search being charged [`PASSES`] times its subject.
const EVENT: u64 = 1 << 30;
/// A search that found its end is taken to have looked at its subject so many times.
const PASSES: u64 = 64;

#[derive(Debug, Clone, Copy)]
struct Budget {
    left: u64,
    ended: u32,
}

thread_local! {
    static BUDGET: Cell<Budget> = const { Cell::new(Budget { left: EVENT, ended: 0 }) };
}

/// Begins another event (or another step of the work on one).
pub fn begin() {
    BUDGET.set(Budget { left: EVENT, ended: 0 });
}

/// How many searches were ended or not begun since [`begin`]: their answer "no match" is not certain.
pub fn ended() -> u32 {
    BUDGET.get().ended
}

/// Runs a search of `length` bytes unless the budget is used up; an error is its end before its time.
pub(crate) fn search<T, E>(length: usize, run: impl FnOnce() -> Result<Option<T>, E>) -> Option<T> {
    let budget = BUDGET.get();
    if budget.left == 0 {
        BUDGET.set(Budget { ended: budget.ended.saturating_add(1), ..budget });
        return None;
    }
    match run() {
        Ok(found) => {
            let cost = (length as u64).saturating_mul(PASSES);
            BUDGET.set(Budget { left: budget.left.saturating_sub(cost), ..budget });
            found
        }
        Err(_too_long) => {
            BUDGET.set(Budget { left: 0, ended: budget.ended.saturating_add(1) });
            None
        }
    }
}
