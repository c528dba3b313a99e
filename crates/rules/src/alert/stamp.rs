//! Times in alerts, written without the machinery of `fmt`.
//! Invariant: the same text as [`LocalTime::alert_stamp`] and [`LocalTime::plain_stamp`]; years beyond four digits take those.

use tld_model::LocalTime;

use super::page::digits_into;

/// What an alert begins with, up to the quote behind its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin([u8; 43]);

impl Begin {
    const ZERO: Self = Self(*b"{\"timestamp\":\"0000-00-00T00:00:00.000+0000\"");
    const MILLIS: usize = 34;

    /// None for a year of more than four digits.
    pub(super) fn new(at: &LocalTime) -> Option<Self> {
        let year = u32::try_from(at.year).ok().filter(|year| *year <= 9999)?;
        let minutes = at.offset.unsigned_abs() / 60;
        let Self(mut text) = Self::ZERO;
        digits_into(year, &mut text[14..18]);
        digits_into(u32::from(at.month), &mut text[19..21]);
        digits_into(u32::from(at.day), &mut text[22..24]);
        digits_into(u32::from(at.hour), &mut text[25..27]);
        digits_into(u32::from(at.minute), &mut text[28..30]);
        digits_into(u32::from(at.second), &mut text[31..33]);
        if at.offset < 0 {
            text[37] = b'-';
        }
        digits_into(minutes / 60, &mut text[38..40]);
        digits_into(minutes % 60, &mut text[40..42]);
        let mut this = Self(text);
        this.set_millis(at.millis);
        Some(this)
    }

    pub(super) fn set_millis(&mut self, millis: u32) {
        digits_into(millis, &mut self.0[Self::MILLIS..Self::MILLIS + 3]);
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }
}

/// `2026 Mar 02 10:15:30`, the form of alerts.log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain([u8; 20]);

impl Plain {
    /// None for a year of more than four digits.
    pub(super) fn new(at: &LocalTime) -> Option<Self> {
        let year = u32::try_from(at.year).ok().filter(|year| *year <= 9999)?;
        let mut text = *b"0000 Jan 00 00:00:00";
        digits_into(year, &mut text[..4]);
        text.get_mut(5..8)?.copy_from_slice(at.month_name().as_bytes().get(..3)?);
        digits_into(u32::from(at.day), &mut text[9..11]);
        digits_into(u32::from(at.hour), &mut text[12..14]);
        digits_into(u32::from(at.minute), &mut text[15..17]);
        digits_into(u32::from(at.second), &mut text[18..20]);
        Some(Self(text))
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tld_model::{Timestamp, Zone};

    use super::*;

    proptest! {
        #[test]
        fn times_are_written_as_the_model_writes_them(nanos: i64, east in -50_000_i32..50_000) {
            let at = Zone::fixed(east).local(Timestamp::from_nanos(nanos));
            let begin = format!("{{\"timestamp\":\"{}\"", at.alert_stamp());
            let made = Begin::new(&at).unwrap();
            prop_assert_eq!(made.text(), begin.as_bytes());
            let mut other = Begin::new(&LocalTime { millis: 7, ..at }).unwrap();
            other.set_millis(at.millis);
            prop_assert_eq!(other.text(), begin.as_bytes());
            let plain = at.plain_stamp().to_string();
            let made = Plain::new(&at).unwrap();
            prop_assert_eq!(made.text(), plain.as_bytes());
        }
    }

    #[test]
    fn a_year_of_five_digits_goes_the_long_way() {
        let at = LocalTime { year: 10_000, ..Zone::utc().local(Timestamp::EPOCH) };
        assert!(Begin::new(&at).is_none() && Plain::new(&at).is_none());
    }
}
