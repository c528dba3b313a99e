//! Gives each alert its id and its place in a file, before and without the writer.
//!
//! The id is `<epoch seconds>.<offset>` where the offset is the length of the alerts file before this alert (analysis-output
//! 1): the file's size when it was opened plus the rendered lengths of all alerts since. Whoever needs the id, the
//! response's order first of all, never waits for a disk. Invariant: ids of one file strictly grow.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tld_model::{Alert, LocalTime, Timestamp, Zone};

/// Which file of a day: `ossec-alerts-<DD>[-<number>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Year.
    pub year: i32,
    /// Month, 1–12.
    pub month: u8,
    /// Day, 1–31.
    pub day: u8,
    /// 0 for the first file of the day, then 1, 2 …
    pub number: u32,
}

impl Volume {
    /// First volume of a local day.
    pub fn of(at: &LocalTime) -> Self {
        Self { year: at.year, month: at.month, day: at.day, number: 0 }
    }

    /// Path below `logs/alerts` (or `logs/archives`) for an extension.
    pub fn path(&self, folder: &Path, stem: &str, extension: &str) -> PathBuf {
        let month = month_name(self.month);
        let number = if self.number == 0 { String::new() } else { format!("-{:03}", self.number) };
        folder.join(format!("{:04}/{month}/ossec-{stem}-{:02}{number}.{extension}", self.year, self.day))
    }

    fn same_day(&self, other: &Self) -> bool {
        (self.year, self.month, self.day) == (other.year, other.month, other.day)
    }
}

/// Names of the folders of months.
pub(crate) const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn month_name(month: u8) -> &'static str {
    MONTHS.get(usize::from(month).wrapping_sub(1)).copied().unwrap_or("Jan")
}

/// What an alert's plain record leaves open until its place is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gap {
    /// The whole id.
    #[default]
    Id,
    /// The offset alone.
    Offset,
    /// Nothing.
    Nothing,
}

impl Gap {
    /// What of an id is filled in.
    pub fn text(self, id: &str) -> &str {
        match self {
            Self::Id => id,
            Self::Offset => id.rsplit_once('.').map_or(id, |(_, offset)| offset),
            Self::Nothing => "",
        }
    }
}

/// What fills files and when a new one is begun.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// alerts.log is written; its size is then the offset in ids.
    pub plain: bool,
    /// What its records leave open.
    pub gap: Gap,
    /// New file after this time; zero = only at midnight.
    pub interval: Duration,
    /// New file beyond this size; zero = no limit.
    pub size: u64,
}

/// Places an alert: its id and the file it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `<epoch seconds>.<offset>`.
    pub id: String,
    /// File of the day.
    pub volume: Volume,
}

/// The one giver of alert ids.
#[derive(Debug)]
pub struct Sequencer {
    folder: PathBuf,
    rotation: Rotation,
    zone: Zone,
    volume: Option<Volume>,
    opened: Timestamp,
    plain: u64,
    json: u64,
}

impl Sequencer {
    /// For the alert files below `folder` (`logs/alerts`).
    pub fn new(folder: PathBuf, rotation: Rotation, zone: Zone) -> Self {
        Self { folder, rotation, zone, volume: None, opened: Timestamp::EPOCH, plain: 0, json: 0 }
    }

    /// The next alert's id and file. Only an alert that will be written moves the offset.
    pub fn place(&mut self, alert: &Alert) -> Place {
        let volume = self.turn(alert.at);
        let offset = if self.rotation.plain { self.plain } else { self.json };
        let id = format!("{}.{offset}", alert.at.secs());
        if alert.logged {
            self.plain += alert.plain.len(self.rotation.gap.text(&id)) as u64;
            self.json += alert.json.len(&id) as u64 + 1;
        }
        Place { id, volume }
    }

    fn turn(&mut self, at: Timestamp) -> Volume {
        let day = Volume::of(&self.zone.local(at));
        let current = match self.volume {
            // An event stamped before midnight after one stamped behind it stays in the new file.
            Some(current) if current.same_day(&day) || at < self.opened => current,
            _ => {
                let latest = self.latest(day);
                return self.open(latest, at);
            }
        };
        let full = self.rotation.size > 0 && self.plain.max(self.json) >= self.rotation.size;
        let old = !self.rotation.interval.is_zero() && at.since(self.opened) >= self.rotation.interval;
        if full || old {
            return self.open(Volume { number: current.number + 1, ..current }, at);
        }
        current
    }

    fn open(&mut self, volume: Volume, at: Timestamp) -> Volume {
        self.plain = self.size(volume, "log");
        self.json = self.size(volume, "json");
        self.opened = at;
        self.volume = Some(volume);
        volume
    }

    fn size(&self, volume: Volume, extension: &str) -> u64 {
        std::fs::metadata(volume.path(&self.folder, "alerts", extension)).map_or(0, |file| file.len())
    }

    /// The highest numbered volume of the day that exists; a restart goes on writing there.
    fn latest(&self, day: Volume) -> Volume {
        let exists = |volume: &Volume| {
            ["log", "json"].iter().any(|end| volume.path(&self.folder, "alerts", end).exists())
        };
        let mut latest = day;
        loop {
            let next = Volume { number: latest.number + 1, ..latest };
            if !exists(&next) {
                return latest;
            }
            latest = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tld_model::{AlertRule, Frame, RuleId};

    use super::*;

    fn alert(secs: i64, logged: bool) -> Alert {
        let frame = |head: &str| Frame::around(head.as_bytes(), b"tail");
        Alert {
            at: Timestamp::from_secs(secs),
            rule: AlertRule::new(RuleId(5710), 5, b"", "sshd,"),
            agent: Arc::default(),
            json: frame("{"),
            plain: frame("** Alert "),
            srcip: None,
            dstuser: None,
            logged,
            mail: false,
            no_response: false,
            contested: vec![],
        }
    }

    fn sequencer(folder: &Path, size: u64) -> Sequencer {
        let rotation = Rotation { plain: true, gap: Gap::Id, interval: Duration::ZERO, size };
        Sequencer::new(folder.into(), rotation, Zone::utc())
    }

    #[test]
    fn the_offset_is_the_length_of_all_alerts_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut sequencer = sequencer(folder.path(), 0);
        let first = alert(1_772_446_530, true);
        assert_eq!(sequencer.place(&first).id, "1772446530.0");
        let length = first.plain.len("1772446530.0");
        assert_eq!(sequencer.place(&alert(1_772_446_531, false)).id, format!("1772446531.{length}"));
        assert_eq!(sequencer.place(&alert(1_772_446_532, true)).id, format!("1772446532.{length}"));
    }

    #[test]
    fn a_restart_goes_on_behind_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("2026/Mar/ossec-alerts-02-001.log");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(&path).unwrap().set_len(77).unwrap();
        let place = sequencer(folder.path(), 0).place(&alert(1_772_446_530, true));
        assert_eq!((place.id.as_str(), place.volume.number), ("1772446530.77", 1));
    }

    #[test]
    fn a_full_file_and_a_new_day_begin_new_volumes() {
        let folder = tempfile::tempdir().unwrap();
        let mut sequencer = sequencer(folder.path(), 20);
        assert_eq!(sequencer.place(&alert(1_772_446_530, true)).volume.number, 0);
        let second = sequencer.place(&alert(1_772_446_530, true));
        assert_eq!((second.id.as_str(), second.volume.number), ("1772446530.0", 1));
        let tomorrow = sequencer.place(&alert(1_772_446_530 + 86_400, true));
        assert_eq!((tomorrow.volume.day, tomorrow.volume.number), (3, 0));
    }
}
