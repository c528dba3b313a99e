//! Points in time and their local rendering. Nothing here reads a clock or a zone file: `tld_sys::clock` does.

use std::fmt;
use std::time::Duration;

use jiff::tz::{Offset, TimeZone};
use serde::{Deserialize, Serialize};

const NANOS: i128 = 1_000_000_000;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment of wall-clock time: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp {
    nanos: i64,
}

impl Timestamp {
    /// The epoch.
    pub const EPOCH: Self = Self { nanos: 0 };

    /// From whole seconds since the epoch; saturates outside the years 1677–2262.
    pub const fn from_secs(secs: i64) -> Self {
        Self { nanos: secs.saturating_mul(NANOS as i64) }
    }

    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.nanos.div_euclid(NANOS as i64)
    }

    /// Nanoseconds since the epoch.
    pub const fn nanos(self) -> i64 {
        self.nanos
    }

    /// Milliseconds within the second, 0–999.
    pub const fn millis(self) -> u32 {
        (self.nanos.rem_euclid(NANOS as i64) / 1_000_000) as u32
    }

    /// The moment `span` later, saturating.
    pub fn plus(self, span: Duration) -> Self {
        let span = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        Self { nanos: self.nanos.saturating_add(span) }
    }

    /// Time passed since `earlier`; zero when `earlier` lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        u64::try_from(self.nanos.saturating_sub(earlier.nanos)).map_or(Duration::ZERO, Duration::from_nanos)
    }
}

/// Rules to turn a [`Timestamp`] into local time.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// A fixed number of seconds east of UTC; UTC itself where the number is out of range.
    pub fn fixed(seconds_east: i32) -> Self {
        Self(Offset::from_seconds(seconds_east).map_or(TimeZone::UTC, Offset::to_time_zone))
    }

    /// The zone that the host is set to (`TZ`, then `/etc/localtime`). Reads files: call once, at start.
    pub fn system() -> Self {
        Self(TimeZone::system())
    }

    /// Local calendar fields of a moment.
    pub fn local(&self, at: Timestamp) -> LocalTime {
        let stamp =
            jiff::Timestamp::from_nanosecond(i128::from(at.nanos())).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let zoned = stamp.to_zoned(self.0.clone());
        LocalTime {
            year: i32::from(zoned.year()),
            month: zoned.month().unsigned_abs(),
            day: zoned.day().unsigned_abs(),
            hour: zoned.hour().unsigned_abs(),
            minute: zoned.minute().unsigned_abs(),
            second: zoned.second().unsigned_abs(),
            millis: at.millis(),
            weekday: zoned.weekday().to_sunday_zero_offset().unsigned_abs(),
            offset: zoned.offset().seconds(),
        }
    }

    /// The moment of a local calendar time; the earlier one where clocks are set back, none for an impossible date.
    pub fn moment(
        &self,
        year: i16,
        month: i8,
        day: i8,
        hour: i8,
        minute: i8,
        second: i8,
    ) -> Option<Timestamp> {
        let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        let zoned = self.0.to_zoned(civil).ok()?;
        i64::try_from(zoned.timestamp().as_nanosecond()).ok().map(Timestamp::from_nanos)
    }
}

/// Calendar fields of one moment in one zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// Year.
    pub year: i32,
    /// Month, 1–12.
    pub month: u8,
    /// Day of the month, 1–31.
    pub day: u8,
    /// Hour, 0–23.
    pub hour: u8,
    /// Minute, 0–59.
    pub minute: u8,
    /// Second, 0–59.
    pub second: u8,
    /// Milliseconds, 0–999.
    pub millis: u32,
    /// Day of the week, 0 = Sunday.
    pub weekday: u8,
    /// Seconds east of UTC.
    pub offset: i32,
}

impl LocalTime {
    /// `2026-03-02T10:15:30.123+0000`, the form of `timestamp` in alerts.json.
    pub fn alert_stamp(&self) -> impl fmt::Display {
        let at = *self;
        let (sign, minutes) = (if at.offset < 0 { '-' } else { '+' }, at.offset.unsigned_abs() / 60);
        lazy(move |f| {
            write!(f, "{:04}-{:02}-{:02}T", at.year, at.month, at.day)?;
            write!(f, "{:02}:{:02}:{:02}.{:03}", at.hour, at.minute, at.second, at.millis)?;
            write!(f, "{sign}{:02}{:02}", minutes / 60, minutes % 60)
        })
    }

    /// `2026/03/02 10:15:30`, the form of ossec.log and active-responses.log.
    pub fn log_stamp(&self) -> impl fmt::Display {
        let at = *self;
        lazy(move |f| {
            write!(f, "{:04}/{:02}/{:02} ", at.year, at.month, at.day)?;
            write!(f, "{:02}:{:02}:{:02}", at.hour, at.minute, at.second)
        })
    }

    /// `2026 Mar 02 10:15:30`, the form of alerts.log and archives.log.
    pub fn plain_stamp(&self) -> impl fmt::Display {
        let at = *self;
        lazy(move |f| {
            write!(f, "{:04} {} {:02} ", at.year, at.month_name(), at.day)?;
            write!(f, "{:02}:{:02}:{:02}", at.hour, at.minute, at.second)
        })
    }

    /// English three-letter name of the month.
    pub fn month_name(&self) -> &'static str {
        MONTHS.get(usize::from(self.month).wrapping_sub(1)).copied().unwrap_or("Jan")
    }
}

fn lazy<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result>(write: F) -> Lazy<F> {
    Lazy(write)
}

struct Lazy<F>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Lazy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_stamp_has_milliseconds_and_an_offset_without_colon() {
        let at = Timestamp::from_nanos(1_772_446_530_123_456_789);
        assert_eq!(Zone::utc().local(at).alert_stamp().to_string(), "2026-03-02T10:15:30.123+0000");
        assert_eq!(Zone::fixed(-12_600).local(at).alert_stamp().to_string(), "2026-03-02T06:45:30.123-0330");
    }

    #[test]
    fn a_moment_and_its_calendar_fields_agree() {
        let zone = Zone::fixed(3_600);
        let at = zone.moment(2026, 3, 2, 11, 15, 30).unwrap();
        assert_eq!(at.secs(), 1_772_446_530);
        assert_eq!(zone.local(at).plain_stamp().to_string(), "2026 Mar 02 11:15:30");
        assert_eq!(zone.moment(2026, 2, 30, 0, 0, 0), None);
    }

    #[test]
    fn time_before_another_has_not_passed() {
        let (early, late) = (Timestamp::from_secs(5), Timestamp::from_secs(7));
        assert_eq!(late.since(early), Duration::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
