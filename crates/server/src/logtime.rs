//! The time that a log line itself states, for replays: rules then count as they would have counted live.
//!
//! Known are the stamps of syslog (both forms, also behind `<PRI>`), web servers, the audit daemon, squid, and `timestamp`,
//! `@timestamp` or `time` of JSON records. Invariant: pure; a line never changes what another line's own stamp means.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use tld_model::{Event, Timestamp, Zone};

/// Reads stamps; remembers the last one, which lines without a stamp inherit.
#[derive(Debug)]
pub struct LogTime {
    zone: Zone,
    /// Reference for stamps without a year: the newest moment a line may have.
    latest: Timestamp,
    last: Option<Timestamp>,
    /// Lines of one minute follow each other, and asking the zone costs more than reading the stamp.
    known: Option<(Minute, Timestamp)>,
}

impl LogTime {
    /// Stamps without zone are in `zone`; those without a year are the last such date that is not past `latest`.
    pub fn new(zone: Zone, latest: Timestamp) -> Self {
        Self { zone, latest, last: None, known: None }
    }

    /// The line's time; the line before's where it has none, the arrival where no line had one yet.
    pub fn of(&mut self, event: &Event) -> Timestamp {
        self.read(&event.text).or(self.last).unwrap_or(event.received)
    }

    /// The line's own time, if it has one.
    pub fn read(&mut self, text: &[u8]) -> Option<Timestamp> {
        let stamp = find(text)?;
        let minute = match self.known {
            Some((minute, at)) if minute == stamp.minute => at,
            _ => {
                let at = stamp.minute.start(&self.zone, self.latest)?;
                self.known = Some((stamp.minute, at));
                at
            }
        };
        let at = Timestamp::from_nanos(minute.nanos().saturating_add(stamp.nanos));
        self.last = Some(at);
        self.last
    }

    /// The newest time read.
    pub fn last(&self) -> Option<Timestamp> {
        self.last
    }
}

/// A minute as a line writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Minute {
    Civil {
        /// None where the stamp has no year.
        year: Option<i16>,
        month: i8,
        day: i8,
        hour: i8,
        minute: i8,
        /// Seconds east of UTC; none = local time.
        east: Option<i32>,
    },
    /// Minutes since the epoch.
    Epoch(i64),
}

#[derive(Debug, Clone, Copy)]
struct Stamp {
    minute: Minute,
    /// Since its start.
    nanos: i64,
}

impl Minute {
    fn start(self, zone: &Zone, latest: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Epoch(minutes) => Some(Timestamp::from_secs(minutes.saturating_mul(60))),
            Self::Civil { year: Some(year), month, day, hour, minute, east } => match east {
                Some(east) => Zone::fixed(east).moment(year, month, day, hour, minute, 0),
                None => zone.moment(year, month, day, hour, minute, 0),
            },
            Self::Civil { year: None, month, day, hour, minute, .. } => {
                let year = i16::try_from(zone.local(latest).year).ok()?;
                // A stamp that would lie more than a day ahead is last year's.
                match zone.moment(year, month, day, hour, minute, 0) {
                    Some(at) if at <= latest.plus(std::time::Duration::from_secs(86_400)) => Some(at),
                    _ => zone.moment(year - 1, month, day, hour, minute, 0),
                }
            }
        }
    }
}

fn find(text: &[u8]) -> Option<Stamp> {
    let text = behind_priority(text);
    match text.first()? {
        b'0'..=b'9' => iso(text).or_else(|| epoch(text)).or_else(|| web(text)),
        b'{' => record(text),
        b't' if text.starts_with(b"type=") => audit(text),
        _ => bsd(text).or_else(|| web(text)),
    }
}

/// Behind `<PRI>` and the version of RFC 5424.
fn behind_priority(text: &[u8]) -> &[u8] {
    let Some(rest) = text.strip_prefix(b"<") else { return text };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match rest.get(digits..) {
        Some([b'>', b'1', b' ', rest @ ..] | [b'>', rest @ ..]) if (1..=3).contains(&digits) => rest,
        _ => text,
    }
}

fn bsd(text: &[u8]) -> Option<Stamp> {
    let head = text.get(..15)?;
    let month = month(head.get(..3)?)?;
    let day = number(head.get(4..6)?.trim_ascii_start())?;
    let (hour, minute, second) = clock(head.get(7..15)?)?;
    let minute = Minute::Civil { year: None, month, day, hour, minute, east: None };
    Some(Stamp { minute, nanos: i64::from(second) * SECOND })
}

/// `2026-11-22T20:51:03.25+01:00`, also with a space, a comma, slashes, or without a zone.
fn iso(text: &[u8]) -> Option<Stamp> {
    let year = year(text.get(..4)?)?;
    let (a, b) = (text.get(4)?, text.get(7)?);
    if a != b || !matches!(a, b'-' | b'/') || !matches!(text.get(10), Some(b'T' | b' ')) {
        return None;
    }
    let (month, day) = (number(text.get(5..7)?)?, number(text.get(8..10)?)?);
    let (hour, minute, second) = clock(text.get(11..19)?)?;
    let mut rest = text.get(19..)?;
    let mut nanos = i64::from(second) * SECOND;
    if let [b'.' | b',', digits @ ..] = rest {
        let (fraction, behind) = fraction(digits);
        nanos += fraction;
        rest = behind;
    }
    let east = match rest {
        [b'Z', ..] => Some(0),
        [b'+' | b'-', ..] => Some(offset(rest)?),
        _ => None,
    };
    Some(Stamp { minute: Minute::Civil { year: Some(year), month, day, hour, minute, east }, nanos })
}

/// `1795381200.123`: seconds of the epoch with a fraction, as squid and the audit daemon write them.
fn epoch(text: &[u8]) -> Option<Stamp> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let [b'.', rest @ ..] = text.get(digits..)? else { return None };
    if digits != 10 || !rest.first()?.is_ascii_digit() {
        return None;
    }
    let seconds = text[..digits].iter().fold(0_i64, |sum, byte| sum * 10 + i64::from(byte - b'0'));
    let nanos = seconds % 60 * SECOND + fraction(rest).0;
    Some(Stamp { minute: Minute::Epoch(seconds / 60), nanos })
}

/// `audit(1795381200.123:456)` somewhere near the start.
fn audit(text: &[u8]) -> Option<Stamp> {
    static FINDER: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"audit("));
    epoch(behind(text, &FINDER, NEAR)?)
}

/// `[22/Nov/2026:20:51:03 +0100]` somewhere near the start.
fn web(text: &[u8]) -> Option<Stamp> {
    let near = text.get(..NEAR).unwrap_or(text);
    memchr::memchr_iter(b'[', near).find_map(|at| {
        let text = text.get(at + 1..at + 27)?;
        let (b'/', b'/', b':', b' ') = (text[2], text[6], text[11], text[20]) else { return None };
        let (day, month, year) = (number(&text[..2])?, month(&text[3..6])?, year(&text[7..11])?);
        let (hour, minute, second) = clock(&text[12..20])?;
        let east = Some(offset(&text[21..26])?);
        let minute = Minute::Civil { year: Some(year), month, day, hour, minute, east };
        Some(Stamp { minute, nanos: i64::from(second) * SECOND })
    })
}

fn record(text: &[u8]) -> Option<Stamp> {
    const NAMES: [&[u8]; 3] = [b"\"timestamp\":", b"\"@timestamp\":", b"\"time\":"];
    static FINDERS: LazyLock<[Finder<'_>; 3]> = LazyLock::new(|| NAMES.map(Finder::new));
    FINDERS.iter().find_map(|name| {
        let value = behind(text, name, FAR)?.trim_ascii_start();
        value.strip_prefix(b"\"").and_then(iso)
    })
}

/// Behind the first place of a needle that lies wholly within so many bytes.
fn behind<'t>(text: &'t [u8], needle: &Finder<'_>, within: usize) -> Option<&'t [u8]> {
    let near = text.get(..within).unwrap_or(text);
    let at = needle.find(near)?;
    text.get(at + needle.needle().len()..)
}

/// Nanoseconds of the digits behind a decimal point, and what follows them.
fn fraction(text: &[u8]) -> (i64, &[u8]) {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(count);
    let mut unit = SECOND / 10;
    let mut nanos = 0;
    for byte in digits.iter().take(9) {
        nanos += i64::from(byte - b'0') * unit;
        unit /= 10;
    }
    (nanos, rest)
}

/// `+0100` or `+01:00` in seconds.
fn offset(text: &[u8]) -> Option<i32> {
    let [sign, rest @ ..] = text else { return None };
    let hours = number(rest.get(..2)?)?;
    let minutes = if rest.get(2) == Some(&b':') { rest.get(3..5) } else { rest.get(2..4) };
    let east = i32::from(hours) * 3600 + i32::from(number(minutes?)?) * 60;
    match sign {
        b'+' => Some(east),
        b'-' => Some(-east),
        _ => None,
    }
}

fn month(name: &[u8]) -> Option<i8> {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let index = MONTHS.chunks(3).position(|month| month == name)?;
    i8::try_from(index + 1).ok()
}

fn year(text: &[u8]) -> Option<i16> {
    text.iter().try_fold(0_i16, |sum, byte| Some(sum * 10 + i16::from(digit(*byte)?)))
}

fn clock(text: &[u8]) -> Option<(i8, i8, i8)> {
    if text.get(2) != Some(&b':') || text.get(5) != Some(&b':') {
        return None;
    }
    let second = number(text.get(6..8)?)?;
    // 60 is a leap second.
    (second <= 60).then_some((number(text.get(..2)?)?, number(text.get(3..5)?)?, second))
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

const SECOND: i64 = 1_000_000_000;
/// Bytes within which a web server's or the audit daemon's stamp begins.
const NEAR: usize = 512;
/// Bytes within which a JSON record's stamp begins.
const FAR: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<i64> {
        // 2026-11-22T00:00:00Z
        let mut times = LogTime::new(Zone::utc(), Timestamp::from_secs(1_795_305_600));
        let first = times.read(text.as_bytes()).map(Timestamp::secs);
        assert_eq!(
            times.read(text.as_bytes()).map(Timestamp::secs),
            first,
            "the remembered minute is the same"
        );
        first
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

    #[test]
    fn stamps_of_other_logs_are_read() {
        const AT: Option<i64> = Some(1_795_305_599);
        for text in [
            r#"192.0.2.1 - - [21/Nov/2026:23:59:59 +0000] "GET / HTTP/1.1" 200 1"#,
            r#"web01:443 192.0.2.1 - x [y] [22/Nov/2026:00:59:59 +0100] "GET /" 200"#,
            "2026/11/21 23:59:59 [error] 7#7: *1 open() failed",
            "1795305599.123    345 192.0.2.1 TCP_MISS/200 1 GET /",
            "type=SYSCALL msg=audit(1795305599.123:456): arch=c000003e",
            r#"{"a":1, "timestamp": "2026-11-22T00:59:59.12+0100"}"#,
            r#"{"@timestamp":"2026-11-21T23:59:59Z"}"#,
            "<34>Nov 21 23:59:59 web01 su: x",
            "<34>1 2026-11-21T23:59:59Z web01 su - - - x",
        ] {
            assert_eq!(at(text), AT, "{text}");
        }
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        for text in [
            "",
            "<",
            "<34>",
            "<34>1 ",
            "{",
            "type=",
            "1795305599",
            "1795305599.",
            "2026-11-21T23:59",
            "Nov",
            "[22/Nov/2026",
            "2026-13-21T23:59:59Z",
            "Nov 31 23:59:59 x",
            "2026-11-21T23:59:59+",
            "Nov 21 23:59:61 x",
            "x [99/Nov/2026:23:59:59 +0000]",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_breaks_it(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = LogTime::new(Zone::utc(), Timestamp::EPOCH).read(&text);
        }

        #[test]
        fn no_damaged_stamp_breaks_it(at in 0_usize..60, byte: u8, which in 0_usize..5) {
            let stamps: [&[u8]; 5] = [
                b"2026-11-21T23:59:59.123456789+01:00 x", b"Nov 21 23:59:59 web01 x", b"- [21/Nov/2026:23:59:59 +0000] x",
                b"type=X msg=audit(1795305599.123:456): x", b"{\"timestamp\":\"2026-11-21T23:59:59.12+0100\"}",
            ];
            let mut text = stamps[which].to_vec();
            if let Some(place) = text.get_mut(at) {
                *place = byte;
            }
            let _ = LogTime::new(Zone::utc(), Timestamp::EPOCH).read(&text);
        }
    }
}
