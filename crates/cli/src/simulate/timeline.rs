//! What happened when: counts in rows of equal length, which grows as the log turns out to be longer.
//! Invariant: memory does not depend on the length of the log.

use std::collections::BTreeMap;

use serde::Serialize;
use tld_model::Timestamp;

/// Lengths of a row in seconds, each a multiple of the one before.
const LENGTHS: &[i64] =
    &[1, 5, 15, 60, 300, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 604_800, 2_419_200, 31_449_600];
/// Rows that are held while counting.
const HELD: usize = 4_096;

/// Counts of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) alerts: u64,
    pub(super) responses: u64,
}

/// A row as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) start: Timestamp,
    pub(super) counts: Counts,
}

/// Counts by time.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Which of [`LENGTHS`].
    step: usize,
    rows: BTreeMap<i64, Counts>,
    /// The row in work, since lines of one row follow each other.
    present: Option<(i64, Counts)>,
    span: Option<(Timestamp, Timestamp)>,
}

impl Timeline {
    /// Adds to the row of that moment.
    pub(super) fn add(&mut self, at: Timestamp, counts: Counts) {
        self.span = Some(self.span.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        let number = at.secs().div_euclid(LENGTHS[self.step]);
        if let Some((present, sum)) = &mut self.present
            && *present == number
        {
            sum.add(counts);
            return;
        }
        self.flush();
        // Flushing may have made the rows longer.
        self.present = Some((at.secs().div_euclid(LENGTHS[self.step]), counts));
    }

    /// The first and the last moment.
    pub(super) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.span
    }

    /// Not more than `most` rows from the first to the last moment, empty ones too, and the length of each in seconds.
    pub(super) fn rows(&mut self, most: usize) -> (i64, Vec<Row>) {
        self.flush();
        let Some((first, last)) = self.span else { return (LENGTHS[0], Vec::new()) };
        let count = |length: i64| last.secs().div_euclid(length) - first.secs().div_euclid(length) + 1;
        let fits = |step: &usize| count(LENGTHS[*step]) <= most as i64;
        let step = (self.step..LENGTHS.len()).find(fits).unwrap_or(LENGTHS.len() - 1);
        self.coarsen(step);
        let length = LENGTHS[step];
        let row = |number: i64| Row {
            start: Timestamp::from_secs(number.saturating_mul(length)),
            counts: self.rows.get(&number).copied().unwrap_or_default(),
        };
        let begin = first.secs().div_euclid(length);
        // A stamp of a far century must not make millions of rows.
        (length, (begin..begin + count(length).min(most as i64)).map(row).collect())
    }

    fn flush(&mut self) {
        let Some((number, counts)) = self.present.take() else { return };
        self.rows.entry(number).or_default().add(counts);
        if self.rows.len() > HELD && self.step + 1 < LENGTHS.len() {
            self.coarsen(self.step + 1);
        }
    }

    fn coarsen(&mut self, step: usize) {
        let factor = LENGTHS[step] / LENGTHS[self.step];
        if factor > 1 {
            for (number, counts) in std::mem::take(&mut self.rows) {
                self.rows.entry(number.div_euclid(factor)).or_default().add(counts);
            }
        }
        self.step = step;
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.alerts += other.alerts;
        self.responses += other.responses;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(seconds: impl IntoIterator<Item = i64>) -> Timeline {
        let mut timeline = Timeline::default();
        for second in seconds {
            timeline.add(Timestamp::from_secs(second), Counts { events: 1, ..Counts::default() });
        }
        timeline
    }

    #[test]
    fn each_length_is_a_multiple_of_the_one_before() {
        assert!(LENGTHS.windows(2).all(|pair| pair[1] % pair[0] == 0));
    }

    #[test]
    fn rows_cover_the_whole_time_and_lose_nothing() {
        for (last, length) in [(9, 1), (600, 60), (86_400, 7_200), (40 * 86_400, 604_800)] {
            let (found, rows) = timeline((0..=last).step_by(3)).rows(24);
            assert_eq!(found, length, "{last}");
            assert!(rows.len() <= 24);
            assert_eq!(rows.iter().map(|row| row.counts.events).sum::<u64>(), last as u64 / 3 + 1);
        }
    }

    #[test]
    fn quiet_times_are_rows_too_and_order_does_not_matter() {
        let (length, rows) = timeline([100, 0, 50, 0]).rows(24);
        assert_eq!(length, 5);
        let busy: Vec<_> = rows.iter().map(|row| row.counts.events).filter(|events| *events > 0).collect();
        assert_eq!((rows.len(), busy), (21, vec![2, 1, 1]));
    }

    #[test]
    fn a_stamp_of_another_century_costs_neither_memory_nor_rows() {
        let mut timeline = timeline((0..20_000).map(|n| n * 1_000_003));
        assert!(timeline.rows.len() <= HELD + 1);
        assert!(timeline.rows(24).1.len() <= 24);
        assert_eq!(Timeline::default().rows(24).1, []);
    }
}
