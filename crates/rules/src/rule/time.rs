//! The `time` and `weekday` conditions (analysis-rules 1.2). Both ask local calendar fields of the event's moment.

use tld_model::LocalTime;

/// A span of the day in minutes, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DayTime {
    first: u16,
    last: u16,
    outside: bool,
}

impl DayTime {
    /// Reads `[!]hh[:mm] [am|pm] - hh[:mm] [am|pm]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let (first, last) = text.split_once('-')?;
        let (first, last) = (minutes(first)?, minutes(last)?);
        // A span over midnight is everything but its inside; a `!` has no say then.
        if first > last {
            return Some(Self { first: last, last: first, outside: true });
        }
        Some(Self { first, last, outside: negated })
    }

    /// Is the moment in it?
    pub(crate) fn holds(self, at: &LocalTime) -> bool {
        let now = u16::from(at.hour) * 60 + u16::from(at.minute);
        (self.first..=self.last).contains(&now) != self.outside
    }
}

fn minutes(text: &str) -> Option<u16> {
    let text = text.trim().to_ascii_lowercase();
    let (clock, half) = if let Some(rest) = text.strip_suffix("am") {
        (rest.trim_end(), Some(0))
    } else if let Some(rest) = text.strip_suffix("pm") {
        (rest.trim_end(), Some(12))
    } else {
        (text.as_str(), None)
    };
    let (hour, minute) = clock.split_once(':').unwrap_or((clock, "0"));
    let (hour, minute) = (number(hour)?, number(minute)?);
    if minute > 59 {
        return None;
    }
    let hour = match half {
        None if hour < 24 => hour,
        Some(shift) if (1..=12).contains(&hour) => hour % 12 + shift,
        _ => return None,
    };
    Some(hour * 60 + minute)
}

fn number(text: &str) -> Option<u16> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Some days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weekdays(u8);

const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

impl Weekdays {
    /// Reads a list by comma or blank of day names, `weekdays`, `weekends`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut days = 0;
        for name in text.split([',', ' ', '\t', '\n']).filter(|name| !name.is_empty()) {
            let name = name.to_ascii_lowercase();
            days |= match name.as_str() {
                "weekdays" => 0b011_1110,
                "weekends" => 0b100_0001,
                _ => 1 << DAYS.iter().position(|day| *day == name || day[..3] == name)?,
            };
        }
        (days != 0).then_some(Self(days))
    }

    /// Is the moment on one of them?
    pub(crate) fn holds(self, at: &LocalTime) -> bool {
        at.weekday < 7 && self.0 >> at.weekday & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tld_model::{Timestamp, Zone};

    fn at(hour: u8, minute: u8) -> LocalTime {
        LocalTime { hour, minute, ..Zone::utc().local(Timestamp::EPOCH) }
    }

    #[test]
    fn both_ends_of_a_span_are_inside() {
        let span = DayTime::parse("8:30 am - 6 pm").unwrap();
        for (hour, minute, inside) in [(8, 30, true), (18, 0, true), (8, 29, false), (18, 1, false)] {
            assert_eq!(span.holds(&at(hour, minute)), inside, "{hour}:{minute}");
        }
        assert!(!DayTime::parse("!08:30-18:00").unwrap().holds(&at(12, 0)));
    }

    #[test]
    fn a_span_over_midnight_excludes_the_hours_between_and_its_ends() {
        for text in ["6 pm - 8:30 am", "!18:00 - 08:30"] {
            let span = DayTime::parse(text).unwrap();
            for (hour, minute, inside) in
                [(23, 0, true), (3, 0, true), (8, 30, false), (18, 0, false), (12, 0, false)]
            {
                assert_eq!(span.holds(&at(hour, minute)), inside, "{hour}:{minute}");
            }
        }
    }

    #[test]
    fn twelve_is_the_first_hour_of_its_half() {
        assert_eq!(minutes("12 am"), Some(0));
        assert_eq!(minutes("12:05pm"), Some(725));
        for bad in ["", "24:00", "13 pm", "0 am", "7:60", "x"] {
            assert_eq!(minutes(bad), None, "{bad}");
        }
    }

    #[test]
    fn days_have_long_short_and_group_names_but_no_negation() {
        assert_eq!(Weekdays::parse("weekends"), Weekdays::parse("Sat, sunday"));
        assert_eq!(Weekdays::parse("!monday"), None);
        assert!(Weekdays::parse("thu").unwrap().holds(&at(0, 0)), "the epoch was a Thursday");
    }
}
