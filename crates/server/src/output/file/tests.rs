//! Files as the sequencer placed their records: dated, linked, numbered, with ids that are byte positions.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use tld_model::{Alert, AlertRule, Frame, RuleId};
use tld_sys::clock::ManualClock;

use super::*;
use crate::sequencer::{Gap, Place, Rotation, Sequencer};

/// 2026-03-02 10:15:30 UTC.
const MORNING: i64 = 1_772_446_530;
const DAY: i64 = 86_400;

fn alert(secs: i64, text: &str, logged: bool) -> Alert {
    let frame = |head: &str, end: &str| Frame::around(head.as_bytes(), format!("{text}{end}").as_bytes());
    Alert {
        at: Timestamp::from_secs(secs),
        rule: AlertRule::new(RuleId(5710), 5, b"", "sshd,"),
        agent: Arc::default(),
        json: frame("{\"id\":\"", "\"}"),
        plain: frame("** Alert ", "\n\n"),
        srcip: None,
        dstuser: None,
        logged,
        mail: false,
        no_response: false,
        contested: vec![],
    }
}

fn files(home: &Path) -> Files {
    Files {
        home: home.into(),
        alerts_json: true,
        alerts_plain: true,
        archives_json: true,
        archives_plain: false,
        firewall: true,
        gap: Gap::Id,
    }
}

fn writer(home: &Path, clock: &Arc<ManualClock>) -> Writer {
    Writer::new(files(home), Zone::utc(), Arc::<ManualClock>::clone(clock), Arc::default())
}

fn clock(secs: i64) -> Arc<ManualClock> {
    Arc::new(ManualClock::new(secs * 1_000_000_000, Duration::ZERO))
}

fn placed(sequencer: &mut Sequencer, alert: Alert) -> Record {
    let place = sequencer.place(&alert);
    Record::Alert(Box::new((alert, place)))
}

fn sequencer(home: &Path, rotation: Rotation) -> Sequencer {
    Sequencer::new(home.join("logs/alerts"), rotation, Zone::utc())
}

const DAILY: Rotation = Rotation { plain: true, gap: Gap::Id, interval: Duration::ZERO, size: 0 };

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_short_name_is_another_name_of_the_dated_file() {
    let home = tempfile::tempdir().unwrap();
    let mut writer = writer(home.path(), &clock(MORNING));
    let mut sequencer = sequencer(home.path(), DAILY);
    writer.write(placed(&mut sequencer, alert(MORNING, "x", true)));
    let archive = Record::Archive { at: Timestamp::from_secs(MORNING), json: b"{}".to_vec(), plain: vec![] };
    writer.write(archive);
    writer.each(Stream::flush);
    let logs = home.path().join("logs");
    for (short, dated) in [
        ("alerts/alerts.json", "alerts/2026/Mar/ossec-alerts-02.json"),
        ("alerts/alerts.log", "alerts/2026/Mar/ossec-alerts-02.log"),
        ("archives/archives.json", "archives/2026/Mar/ossec-archive-02.json"),
    ] {
        assert_eq!(inode(&logs.join(short)), inode(&logs.join(dated)), "{short}");
    }
    assert_eq!(text(&logs.join("alerts/alerts.json")), format!("{{\"id\":\"{MORNING}.0x\"}}\n"));
    assert_eq!(text(&logs.join("archives/archives.json")), "{}\n");
    assert!(!logs.join("archives/archives.log").exists(), "not asked for");
}

#[test]
fn midnight_moves_the_short_names_and_a_day_without_alerts_leaves_no_file() {
    let home = tempfile::tempdir().unwrap();
    let clock = clock(MORNING);
    let mut writer = writer(home.path(), &clock);
    let mut sequencer = sequencer(home.path(), DAILY);
    writer.write(placed(&mut sequencer, alert(MORNING, "x", true)));
    let alerts = home.path().join("logs/alerts");
    let dated = |day: u8| alerts.join(format!("2026/Mar/ossec-alerts-{day:02}.json"));
    for day in [3, 4] {
        clock.set_wall((MORNING + (day - 2) * DAY) * 1_000_000_000);
        writer.tick();
    }
    assert!(dated(2).metadata().unwrap().len() > 0, "what was written stays");
    assert!(!dated(3).exists(), "the empty day is gone");
    assert_eq!(inode(&alerts.join("alerts.json")), inode(&dated(4)));
    assert_eq!(text(&alerts.join("alerts.json")), "");
    writer.write(placed(&mut sequencer, alert(MORNING + 2 * DAY, "y", true)));
    writer.each(Stream::flush);
    assert_eq!(text(&dated(4)), format!("{{\"id\":\"{}.0y\"}}\n", MORNING + 2 * DAY));
}

#[test]
fn an_age_or_a_size_begins_a_numbered_file() {
    for rotation in [
        Rotation { plain: true, gap: Gap::Id, interval: Duration::from_secs(600), size: 0 },
        Rotation { plain: true, gap: Gap::Id, interval: Duration::ZERO, size: 10 },
    ] {
        let home = tempfile::tempdir().unwrap();
        let mut writer = writer(home.path(), &clock(MORNING));
        let mut sequencer = sequencer(home.path(), rotation);
        writer.write(placed(&mut sequencer, alert(MORNING, "first", true)));
        writer.write(placed(&mut sequencer, alert(MORNING + 600, "second", true)));
        writer.each(Stream::flush);
        let alerts = home.path().join("logs/alerts");
        let numbered = alerts.join("2026/Mar/ossec-alerts-02-001.log");
        assert_eq!(text(&numbered), format!("** Alert {}.0second\n\n", MORNING + 600));
        assert_eq!(inode(&alerts.join("alerts.log")), inode(&numbered));
    }
}

/// A small generator, so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn every_id_is_the_position_of_its_alert_over_rotation_midnight_and_restarts() {
    for seed in 1..=30 {
        let home = tempfile::tempdir().unwrap();
        let mut random = Random(seed * 0x9e37_79b9);
        let rotation = Rotation {
            plain: true,
            gap: Gap::Id,
            interval: Duration::from_secs(random.below(3) * 7200),
            size: random.below(3) * 2000,
        };
        let mut at = MORNING;
        let mut written: Vec<(String, Place)> = Vec::new();
        for _ in 0..4 {
            let mut sequencer = sequencer(home.path(), rotation);
            let output = FileOutput::start(files(home.path()), Zone::utc(), clock(MORNING)).unwrap();
            let queue = output.queue();
            for _ in 0..40 {
                at += i64::try_from(random.below(1500)).unwrap();
                // Events may come a little out of order.
                let stamp = at - i64::try_from(random.below(3)).unwrap();
                let body = "b".repeat(usize::try_from(random.below(200)).unwrap());
                let alert = alert(stamp, &body, random.below(4) > 0);
                let logged = alert.logged;
                let place = sequencer.place(&alert);
                if logged {
                    written.push((body, place.clone()));
                    queue.send(Record::Alert(Box::new((alert, place)))).unwrap();
                }
            }
            drop(queue);
            assert_eq!(output.failures(), Vec::<String>::new());
            output.finish();
        }
        for (body, place) in &written {
            let offset: usize = place.id.rsplit('.').next().unwrap().parse().unwrap();
            let file =
                fs::read(place.volume.path(&home.path().join("logs/alerts"), "alerts", "log")).unwrap();
            let wanted = format!("** Alert {}{body}\n\n", place.id);
            assert!(file[offset..].starts_with(wanted.as_bytes()), "seed {seed}, alert {}", place.id);
        }
    }
}

#[test]
fn a_disk_that_refuses_is_told_once_and_stops_nothing() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("logs")).unwrap();
    tld_sys::durable::replace(&home.path().join("logs/alerts"), b"not a directory", 0o640).unwrap();
    let output = FileOutput::start(files(home.path()), Zone::utc(), clock(MORNING)).unwrap();
    let mut sequencer = sequencer(home.path(), DAILY);
    for _ in 0..50 {
        output.queue().send(placed(&mut sequencer, alert(MORNING, "x", true))).unwrap();
    }
    let failures = Arc::clone(&output.failures);
    output.finish();
    let failures = failures.lock().unwrap();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains(&home.path().display().to_string()));
}
