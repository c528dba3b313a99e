//! `repeated_offenders`: how long a block lasts when its key was blocked before. Counts finished blocks, not
//! requests, so that a burst during one block does not jump to the last step; one step is forgotten per quiet period.
//! Invariant: an effective timeout is never shorter than the configured one.

use tld_model::Timestamp;

/// What is remembered of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offender {
    /// Blocks that ran to their end.
    pub(crate) count: u32,
    /// End of the last one.
    pub(crate) ended: Timestamp,
    /// Its length in seconds.
    pub(crate) length: u64,
}

impl Offender {
    /// Steps that still count at `now`.
    pub(crate) fn steps(&self, now: Timestamp) -> u32 {
        let quiet = now.since(self.ended).as_secs() / self.length.max(DAY);
        self.count.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX))
    }

    /// The key after one more block of `length` seconds ended at `now`.
    pub(crate) fn after(former: Option<Self>, now: Timestamp, length: u64) -> Self {
        let steps = former.map_or(0, |known| known.steps(now));
        Self { count: steps.saturating_add(1).min(MOST_STEPS), ended: now, length }
    }
}

/// Seconds that a new block lasts. `minutes` are the configured steps; a zero ends the list.
pub(crate) fn effective(
    configured: u64,
    minutes: &[u32],
    offender: Option<&Offender>,
    now: Timestamp,
) -> u64 {
    let steps = offender.map_or(0, |known| known.steps(now)) as usize;
    let usable = minutes.iter().position(|&minute| minute == 0).unwrap_or(minutes.len());
    if configured == 0 || steps == 0 || usable == 0 {
        return configured;
    }
    configured.max(u64::from(minutes[steps.min(usable) - 1]) * 60)
}

const DAY: u64 = 86_400;
const MOST_STEPS: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [u32; 3] = [1, 30, 60];

    fn offender(count: u32) -> Offender {
        Offender { count, ended: Timestamp::from_secs(1_000), length: 600 }
    }

    #[test]
    fn each_finished_block_takes_one_step_and_the_last_step_stays() {
        let now = Timestamp::from_secs(1_010);
        assert_eq!(effective(600, &STEPS, None, now), 600);
        assert_eq!(effective(600, &STEPS, Some(&offender(2)), now), 1_800);
        assert_eq!(effective(600, &STEPS, Some(&offender(3)), now), 3_600);
        assert_eq!(effective(600, &STEPS, Some(&offender(9)), now), 3_600);
    }

    #[test]
    fn a_step_shorter_than_the_configured_timeout_does_not_shorten() {
        assert_eq!(effective(600, &STEPS, Some(&offender(1)), Timestamp::from_secs(1_010)), 600);
    }

    #[test]
    fn no_timeout_and_no_list_mean_no_escalation() {
        let now = Timestamp::from_secs(1_010);
        assert_eq!(effective(0, &STEPS, Some(&offender(3)), now), 0);
        assert_eq!(effective(600, &[], Some(&offender(3)), now), 600);
        assert_eq!(effective(600, &[0, 90], Some(&offender(3)), now), 600);
    }

    #[test]
    fn a_quiet_day_forgives_one_step() {
        let known = offender(2);
        assert_eq!(known.steps(Timestamp::from_secs(1_000 + DAY as i64 - 1)), 2);
        assert_eq!(known.steps(Timestamp::from_secs(1_000 + DAY as i64)), 1);
        assert_eq!(known.steps(Timestamp::from_secs(1_000 + 9 * DAY as i64)), 0);
        let long = Offender { length: 3 * DAY, ..known };
        assert_eq!(long.steps(Timestamp::from_secs(1_000 + 2 * DAY as i64)), 2);
        assert_eq!(Offender::after(Some(known), Timestamp::from_secs(1_001), 60).count, 3);
    }
}
