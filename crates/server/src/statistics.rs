//! Counts of each hour, their averages, and the alert about an hour far above its average (analysis-output 5.1).
//!
//! Averages stand below `stats/`, one number a file: `hourly-average/<hour>` and `weekly-average/<weekday>/<hour>`. A new
//! hour moves them a quarter of the way, and only an hour that was seen from its beginning does, so that a restart does
//! not pull them down. Pure but for reading the averages at start: what is to be written is handed out.
//! Invariant: at most one alert an hour and three a day.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tld_config::InternalOptions;
use tld_model::{Event, LocalTime, RuleId, Timestamp, Zone};
use tld_rules::OwnRule;

use crate::output::Note;

/// The contract's number of the alert.
const EXCESS: RuleId = RuleId(11);
const ALERTS_A_DAY: u32 = 3;
/// Where its events come from.
const LOCATION: &str = "threatlockdown-statistics";
/// A moment before the present hour by less than this is an event that came late.
const LATE: i64 = 3600;

/// When an hour's count is excessive.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// Level of the alert; 0 = none.
    pub level: u8,
    /// Percent of the average by which it must be exceeded.
    pub percent: u64,
    /// At least by so many events.
    pub least: u64,
    /// At most by so many.
    pub most: u64,
}

impl Thresholds {
    /// As configured.
    pub fn of(level: u8, tunables: &InternalOptions) -> Self {
        let tunable = |name: &str, default: u32| u64::from(tunables.value(name).unwrap_or(default));
        Self {
            level,
            percent: tunable("analysisd.stats_percent_diff", 150),
            least: tunable("analysisd.stats_mindiff", 1250),
            most: tunable("analysisd.stats_maxdiff", 999_000),
        }
    }
}

/// What one event adds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// The rule that won it, with its level.
    pub rule: Option<(RuleId, u8)>,
    /// It made an alert.
    pub alert: bool,
    /// A file integrity event.
    pub syscheck: bool,
    /// A firewall event.
    pub firewall: bool,
}

#[derive(Debug, Default)]
struct Hour {
    events: u64,
    alerts: u64,
    syscheck: u64,
    firewall: u64,
    rules: HashMap<RuleId, (u8, u64)>,
    excess_told: bool,
}

/// The counters of the running hour.
#[derive(Debug)]
pub struct Statistics {
    zone: Zone,
    thresholds: Thresholds,
    averages: BTreeMap<PathBuf, u64>,
    /// Quarter of an hour that was looked at last: offsets of zones are whole quarters.
    quarter: Option<i64>,
    local: Option<LocalTime>,
    begun: Timestamp,
    whole: bool,
    hour: Hour,
    /// Greatest count of this hour that is not excessive, for each average.
    limits: Vec<(u64, u64)>,
    day: (i32, u8, u8),
    told_today: u32,
    told: u32,
}

impl Statistics {
    /// With the averages below `home`.
    pub fn new(home: &Path, zone: Zone, thresholds: Thresholds) -> Self {
        let mut averages = BTreeMap::new();
        let stats = home.join("stats");
        for name in (0..24).flat_map(names) {
            let read = tld_sys::durable::read_bounded(&stats.join(&name), 64).ok();
            let number = read.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
            averages.extend(number.map(|number| (name, number)));
        }
        Self {
            zone,
            thresholds,
            averages,
            quarter: None,
            local: None,
            begun: Timestamp::EPOCH,
            whole: false,
            hour: Hour::default(),
            limits: Vec::new(),
            day: (0, 0, 0),
            told_today: 0,
            told: 0,
        }
    }

    /// Moves on to the hour of `now`; what a finished hour leaves to be written.
    pub fn pass(&mut self, now: Timestamp) -> Vec<Note> {
        let quarter = now.secs().div_euclid(900);
        if self.quarter == Some(quarter) || (self.quarter.is_some() && self.late(now)) {
            return Vec::new();
        }
        self.quarter = Some(quarter);
        let local = self.zone.local(now);
        let same = |old: &LocalTime| {
            (old.year, old.month, old.day, old.hour) == (local.year, local.month, local.day, local.hour)
        };
        if self.local.as_ref().is_some_and(same) {
            return Vec::new();
        }
        let notes = self.finish();
        self.whole = self.local.is_some();
        self.begun = now;
        self.local = Some(local);
        let day = (local.year, local.month, local.day);
        if self.day != day {
            self.day = day;
            self.told_today = 0;
        }
        let average = |name: &PathBuf| self.averages.get(name).copied();
        let averages = [hourly(local.hour), weekly(local.weekday, local.hour)];
        let limits = averages.iter().filter_map(average).map(|average| (average, self.limit(average)));
        self.limits = limits.collect();
        notes
    }

    fn late(&self, now: Timestamp) -> bool {
        (0..LATE).contains(&(self.begun.secs() - now.secs()))
    }

    fn limit(&self, average: u64) -> u64 {
        let Thresholds { percent, least, most, .. } = self.thresholds;
        let allowed = average.saturating_mul(percent) / 100;
        average.saturating_add(allowed.clamp(least, most.max(least)))
    }

    /// Adds an event to the hour that [`Self::pass`] moved to.
    pub fn count(&mut self, counted: Counted) {
        let hour = &mut self.hour;
        hour.events += 1;
        hour.alerts += u64::from(counted.alert);
        hour.syscheck += u64::from(counted.syscheck);
        hour.firewall += u64::from(counted.firewall);
        if let Some((rule, level)) = counted.rule {
            let entry = hour.rules.entry(rule).or_default();
            *entry = (level, entry.1 + 1);
        }
    }

    /// The rule and event of the alert, once the hour's count is excessive.
    pub fn excess(&mut self, now: Timestamp) -> Option<(OwnRule, Event)> {
        if self.hour.excess_told || self.thresholds.level == 0 || self.told_today >= ALERTS_A_DAY {
            return None;
        }
        let events = self.hour.events;
        let (average, _) = self.limits.iter().find(|(_, limit)| events > *limit)?;
        let hour = self.local.as_ref()?.hour;
        let text = format!(
            "This hour, from {hour:02}:00 on, has had {events} events so far; its average is {average} events."
        );
        self.hour.excess_told = true;
        self.told_today += 1;
        self.told += 1;
        let rule = OwnRule {
            id: EXCESS,
            level: self.thresholds.level.min(16),
            groups: "stats,",
            description: "Excessive number of events (above normal).",
            fired: self.told,
        };
        Some((rule, Event::local(LOCATION, text, now)))
    }

    /// What the running hour leaves to be written; it begins anew.
    pub fn finish(&mut self) -> Vec<Note> {
        let hour = std::mem::take(&mut self.hour);
        let Some(local) = self.local.as_ref().filter(|_| hour.events > 0 || self.whole) else {
            return Vec::new();
        };
        let mut notes = vec![Note::Append { path: totals(local), text: hour.lines(local.hour).into_bytes() }];
        if self.whole {
            for name in [hourly(local.hour), weekly(local.weekday, local.hour)] {
                let old = self.averages.get(&name).copied();
                let new =
                    old.map_or(hour.events, |old| (old.saturating_mul(3).saturating_add(hour.events)) / 4);
                notes.push(Note::Replace {
                    path: Path::new("stats").join(&name),
                    text: format!("{new}\n").into(),
                });
                self.averages.insert(name, new);
            }
        }
        notes
    }
}

impl Hour {
    /// `hour-rule-level-count` for each rule, then `hour--alerts--events--syscheck--firewall`.
    fn lines(&self, hour: u8) -> String {
        let mut lines = String::new();
        let rules: BTreeMap<_, _> = self.rules.iter().collect();
        for (rule, (level, count)) in rules {
            let _ = writeln!(lines, "{hour}-{rule}-{level}-{count}");
        }
        let Self { alerts, events, syscheck, firewall, .. } = self;
        let _ = writeln!(lines, "{hour}--{alerts}--{events}--{syscheck}--{firewall}");
        lines
    }
}

fn totals(local: &LocalTime) -> PathBuf {
    let LocalTime { year, day, .. } = local;
    PathBuf::from(format!("stats/totals/{year:04}/{}/ossec-totals-{day:02}.log", local.month_name()))
}

fn names(hour: u8) -> impl Iterator<Item = PathBuf> {
    std::iter::once(hourly(hour)).chain((0..7).map(move |weekday| weekly(weekday, hour)))
}

fn hourly(hour: u8) -> PathBuf {
    format!("hourly-average/{hour}").into()
}

fn weekly(weekday: u8, hour: u8) -> PathBuf {
    format!("weekly-average/{weekday}/{hour}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-02 10:00:00 UTC, a Monday.
    const TEN: i64 = 1_772_445_600;
    const HOUR: i64 = 3600;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn statistics(home: &Path) -> Statistics {
        let thresholds = Thresholds { level: 4, percent: 150, least: 10, most: 1000 };
        Statistics::new(home, Zone::utc(), thresholds)
    }

    fn fill(statistics: &mut Statistics, from: i64, events: u64) -> Vec<Note> {
        let notes = statistics.pass(at(from));
        for _ in 0..events {
            statistics.count(Counted { rule: Some((RuleId(5710), 5)), alert: true, ..Counted::default() });
        }
        notes
    }

    #[test]
    fn an_hour_leaves_its_totals_and_only_a_whole_one_an_average() {
        let home = tempfile::tempdir().unwrap();
        let mut statistics = statistics(home.path());
        assert_eq!(fill(&mut statistics, TEN + 1800, 2), vec![]);
        statistics.count(Counted { firewall: true, ..Counted::default() });
        let first = fill(&mut statistics, TEN + HOUR, 40);
        let path = PathBuf::from("stats/totals/2026/Mar/ossec-totals-02.log");
        assert_eq!(first, vec![Note::Append { path, text: b"10-5710-5-2\n10--2--3--0--1\n".to_vec() }]);
        let second = fill(&mut statistics, TEN + 2 * HOUR, 1);
        let replaced: Vec<_> = second.iter().filter(|note| matches!(note, Note::Replace { .. })).collect();
        let average = |name: &str| Note::Replace { path: name.into(), text: b"40\n".to_vec() };
        assert_eq!(replaced, [&average("stats/hourly-average/11"), &average("stats/weekly-average/1/11")]);
    }

    #[test]
    fn an_hour_far_above_its_average_alerts_once_and_three_times_a_day() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("stats/hourly-average");
        std::fs::create_dir_all(&folder).unwrap();
        for hour in 0..24 {
            tld_sys::durable::replace(&folder.join(hour.to_string()), b"20\n", 0o640).unwrap();
        }
        let mut statistics = statistics(home.path());
        let mut told = Vec::new();
        for hour in 0..6 {
            fill(&mut statistics, TEN + hour * HOUR, 50);
            assert!(statistics.excess(at(TEN)).is_none(), "20 + 150 percent is not exceeded by 50");
            statistics.count(Counted::default());
            told.extend(statistics.excess(at(TEN + hour * HOUR)));
            statistics.count(Counted::default());
            assert!(statistics.excess(at(TEN)).is_none(), "once an hour");
        }
        assert_eq!(told.len(), 3);
        let text = String::from_utf8(told[0].1.text.clone()).unwrap();
        assert_eq!(text, "This hour, from 10:00 on, has had 51 events so far; its average is 20 events.");
        assert_eq!((told[2].0.id, told[2].0.level, told[2].0.fired), (RuleId(11), 4, 3));
    }

    #[test]
    fn an_event_from_before_the_full_hour_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let mut statistics = statistics(home.path());
        fill(&mut statistics, TEN, 1);
        assert_eq!(fill(&mut statistics, TEN - 5, 1), vec![]);
        assert_eq!(statistics.finish().len(), 1);
    }
}
