//! The time that a log line itself states, for replays: rules then count as they would have counted live.

use tld_model::{Event, Timestamp, Zone};

/// Reads stamps; remembers the last one, which lines without a stamp inherit.
#[derive(Debug)]
pub struct LogTime {
    zone: Zone,
    /// Reference for stamps without a year: the newest moment a line may have.
    latest: Timestamp,
    last: Option<Timestamp>,
}

impl LogTime {
    /// Stamps without zone are in `zone`; those without a year are the last such date that is not past `latest`.
    pub fn new(zone: Zone, latest: Timestamp) -> Self {
        Self { zone, latest, last: None }
    }

    /// The line's time; the line before's where it has none, the arrival where no line had one yet.
    pub fn of(&mut self, event: &Event) -> Timestamp {
        let stamp = parse(&event.text, &self.zone, self.latest);
        self.last = stamp.or(self.last);
        self.last.unwrap_or(event.received)
    }
}

/// Parses a leading BSD (`Nov  2 10:15:30`) or ISO 8601 stamp.
pub fn parse(text: &[u8], zone: &Zone, latest: Timestamp) -> Option<Timestamp> {
    iso(text, zone).or_else(|| bsd(text, zone, latest))
}

fn bsd(text: &[u8], zone: &Zone, latest: Timestamp) -> Option<Timestamp> {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let head = text.get(..15)?;
    let month = MONTHS.chunks(3).position(|name| head.starts_with(name))?;
    let month = i8::try_from(month).ok()? + 1;
    let day = number(head.get(4..6)?.trim_ascii_start())?;
    let (hour, minute, second) = clock(head.get(7..15)?)?;
    let year = i16::try_from(zone.local(latest).year).ok()?;
    // A stamp that would lie more than a day ahead is last year's.
    let this = zone.moment(year, month, day, hour, minute, second);
    match this {
        Some(at) if at <= latest.plus(std::time::Duration::from_secs(86_400)) => Some(at),
        _ => zone.moment(year - 1, month, day, hour, minute, second),
    }
}

fn iso(text: &[u8], zone: &Zone) -> Option<Timestamp> {
    let year = text.get(..4)?.iter().try_fold(0_i16, |sum, b| digit(*b).map(|d| sum * 10 + i16::from(d)))?;
    if text.get(4) != Some(&b'-') || text.get(7) != Some(&b'-') || !matches!(text.get(10), Some(b'T' | b' '))
    {
        return None;
    }
    let (month, day) = (number(text.get(5..7)?)?, number(text.get(8..10)?)?);
    let (hour, minute, second) = clock(text.get(11..19)?)?;
    let mut rest = text.get(19..)?;
    let mut nanos = 0_i64;
    if let [b'.' | b',', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        let mut unit = 100_000_000_i64;
        for byte in fraction.iter().take(digits.min(9)) {
            nanos += i64::from(byte - b'0') * unit;
            unit /= 10;
        }
        rest = fraction.get(digits..)?;
    }
    let local = match rest {
        [b'Z', ..] => Zone::utc().moment(year, month, day, hour, minute, second)?,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let east = i32::from(number(rest.get(..2)?)?) * 3600;
            let minutes = if rest.get(2) == Some(&b':') { rest.get(3..5) } else { rest.get(2..4) };
            let east = east + i32::from(number(minutes?)?) * 60;
            let east = if *sign == b'-' { -east } else { east };
            Zone::fixed(east).moment(year, month, day, hour, minute, second)?
        }
        _ => zone.moment(year, month, day, hour, minute, second)?,
    };
    Some(Timestamp::from_nanos(local.nanos() + nanos))
}

fn clock(text: &[u8]) -> Option<(i8, i8, i8)> {
    if text.get(2) != Some(&b':') || text.get(5) != Some(&b':') {
        return None;
    }
    Some((number(text.get(..2)?)?, number(text.get(3..5)?)?, number(text.get(6..8)?)?))
}

fn number(text: &[u8]) -> Option<i8> {
    if text.is_empty() || text.len() > 2 {
        return None;
    }
    text.iter().try_fold(0_i8, |sum, byte| Some(sum * 10 + digit(*byte)?))
}

fn digit(byte: u8) -> Option<i8> {
    byte.is_ascii_digit().then(|| (byte - b'0') as i8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<i64> {
        // 2026-11-22T00:00:00Z
        parse(text.as_bytes(), &Zone::utc(), Timestamp::from_secs(1_795_305_600)).map(Timestamp::secs)
    }

    #[test]
    fn both_stamps_of_syslog_are_read() {
        assert_eq!(at("Nov 21 23:59:59 web01 sshd[1]: x"), Some(1_795_305_599));
        assert_eq!(at("Nov  2 00:00:00 web01 sshd[1]: x"), Some(1_793_577_600));
        assert_eq!(at("2026-11-21T23:59:59.250000+00:00 web01 x"), Some(1_795_305_599));
        assert_eq!(at("2026-11-22T00:59:59+01:00 web01 x"), Some(1_795_305_599));
        assert_eq!(at("2026-11-21T23:59:59Z web01 x"), Some(1_795_305_599));
    }

    #[test]
    fn a_stamp_without_year_never_lies_ahead() {
        assert_eq!(at("Dec 31 00:00:00 web01 x"), Some(1_767_139_200));
    }

    #[test]
    fn a_line_without_a_stamp_has_the_time_of_the_one_before() {
        let mut times = LogTime::new(Zone::utc(), Timestamp::from_secs(1_795_305_600));
        let first = Event::local("f", "no stamp", Timestamp::from_secs(9));
        assert_eq!(times.of(&first).secs(), 9);
        let stamped = Event::local("f", "2026-11-21T23:59:59Z x", Timestamp::from_secs(10));
        assert_eq!(times.of(&stamped).secs(), 1_795_305_599);
        assert_eq!(times.of(&first).secs(), 1_795_305_599);
    }
}
