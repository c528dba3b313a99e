//! Message counters: what a sender stamps on its messages and what a receiver may check.
//! Invariant: a sender's pairs rise strictly, or it refuses to go on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// From this local count on the next message starts a new round.
pub const ROUND: u16 = 9_997;

/// One pair. Order is lexicographic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Counter {
    /// Rounds.
    pub global: u32,
    /// Messages in the round; up to four digits.
    pub local: u16,
}

/// The text is not `global:local:`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a message counter")]
pub struct ParseCounter(String);

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.global, self.local)
    }
}

impl FromStr for Counter {
    type Err = ParseCounter;

    /// The text of a counter file. An empty file is a pair that was never written: 0:0.
    fn from_str(text: &str) -> Result<Self, ParseCounter> {
        let bad = || ParseCounter(text.chars().take(40).collect());
        let trimmed = text.trim_ascii();
        if trimmed.is_empty() {
            return Ok(Self::default());
        }
        let (global, rest) = trimmed.split_once(':').ok_or_else(bad)?;
        let local = rest.split(':').next().unwrap_or_default();
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(global) || !digits(local) {
            return Err(bad());
        }
        let local = local.parse().ok().filter(|local| *local <= 9_999).ok_or_else(bad)?;
        Ok(Self { global: global.parse().ok().ok_or_else(bad)?, local })
    }
}

/// The sender has used up every pair; only a new key helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message counter is used up")]
pub struct CounterExhausted;

/// The one counter of a process, for all its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderCounter {
    last: Counter,
}

impl SenderCounter {
    /// Goes on behind the last pair that was used.
    pub const fn after(last: Counter) -> Self {
        Self { last }
    }

    /// Goes on when the stored pair may lie behind the last one used: a new round is begun. Safe if the pair is
    /// stored at least whenever [`Counter::global`] has changed, before the message leaves.
    ///
    /// # Errors
    /// When no round is left.
    pub fn after_restart(stored: Counter) -> Result<Self, CounterExhausted> {
        let global = stored.global.checked_add(1).ok_or(CounterExhausted)?;
        Ok(Self { last: Counter { global, local: 0 } })
    }

    /// The last pair given out.
    pub const fn last(&self) -> Counter {
        self.last
    }

    /// The pair for the next message.
    ///
    /// # Errors
    /// When the last round is used up.
    pub fn advance(&mut self) -> Result<Counter, CounterExhausted> {
        if self.last.local >= ROUND {
            self.last =
                Counter { global: self.last.global.checked_add(1).ok_or(CounterExhausted)?, local: 0 };
        }
        self.last.local += 1;
        Ok(self.last)
    }
}

/// Why a checked pair is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Replay {
    /// The round is the last one's, the count is not above it.
    #[error("the message counter is duplicated")]
    Duplicate,
    /// The round is an older one; the contract reports this like a wrong key.
    #[error("the message counter is of an older round")]
    Older,
}

/// What a receiver remembers of one sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverCounter {
    last: Counter,
}

impl ReceiverCounter {
    /// Goes on behind the stored pair.
    pub const fn after(last: Counter) -> Self {
        Self { last }
    }

    /// The last pair recorded.
    pub const fn last(&self) -> Counter {
        self.last
    }

    /// Records a pair without a check, as the shipped default does.
    pub const fn record(&mut self, pair: Counter) {
        self.last = pair;
    }

    /// Records a pair if it lies above the last.
    ///
    /// # Errors
    /// When it does not; nothing is recorded then.
    pub fn check(&mut self, pair: Counter) -> Result<(), Replay> {
        if pair > self.last {
            self.last = pair;
            Ok(())
        } else if pair.global == self.last.global {
            Err(Replay::Duplicate)
        } else {
            Err(Replay::Older)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fresh_sender_starts_at_one_and_rolls_over_at_9997() {
        let mut sender = SenderCounter::default();
        assert_eq!(sender.advance(), Ok(Counter { global: 0, local: 1 }));
        let mut sender = SenderCounter::after(Counter { global: 3, local: 9_996 });
        assert_eq!(sender.advance(), Ok(Counter { global: 3, local: 9_997 }));
        assert_eq!(sender.advance(), Ok(Counter { global: 4, local: 1 }));
    }

    #[test]
    fn a_used_up_counter_stops_instead_of_repeating() {
        let mut sender = SenderCounter::after(Counter { global: u32::MAX, local: ROUND });
        assert_eq!(sender.advance(), Err(CounterExhausted));
        assert_eq!(sender.advance(), Err(CounterExhausted));
        assert!(SenderCounter::after_restart(sender.last()).is_err());
    }

    #[test]
    fn a_restart_skips_to_a_new_round() {
        let mut sender = SenderCounter::after_restart(Counter { global: 5, local: 10 }).unwrap();
        assert_eq!(sender.advance(), Ok(Counter { global: 6, local: 1 }));
    }

    #[test]
    fn files_may_be_empty_and_end_in_a_line_end() {
        assert_eq!("".parse(), Ok(Counter::default()));
        assert_eq!("5:10:\n".parse(), Ok(Counter { global: 5, local: 10 }));
        assert_eq!("5:10".parse(), Ok(Counter { global: 5, local: 10 }));
        for bad in ["5", ":", "a:1:", "1:-1:", "4294967296:1:", "1:10000:", "+1:1:"] {
            assert!(bad.parse::<Counter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn unchecked_pairs_are_just_recorded() {
        let mut receiver = ReceiverCounter::after(Counter { global: 5, local: 5 });
        receiver.record(Counter { global: 1, local: 1 });
        assert_eq!(receiver.last(), Counter { global: 1, local: 1 });
    }

    proptest! {
        #[test]
        fn senders_rise_for_every_checking_receiver(global in 0u32..5, local in 0u16..9_999, steps in 1usize..50) {
            let start = Counter { global, local };
            let (mut sender, mut receiver) = (SenderCounter::after(start), ReceiverCounter::after(start));
            for _ in 0..steps {
                let pair = sender.advance().unwrap();
                prop_assert_eq!(receiver.check(pair), Ok(()));
                prop_assert_eq!(receiver.check(pair), Err(Replay::Duplicate));
            }
        }

        #[test]
        fn text_round_trips(global: u32, local in 0u16..10_000) {
            let pair = Counter { global, local };
            prop_assert_eq!(pair.to_string().parse(), Ok(pair));
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,40}") {
            let _ = text.parse::<Counter>();
        }
    }
}
