use std::sync::mpsc::{Sender, channel};

use flate2::read::MultiGzDecoder;
use tld_sys::clock::ManualClock;

use super::*;

/// 2026-03-02 10:15:30 UTC.
const MORNING: i64 = 1_772_446_530;
const YESTERDAY: &str = "logs/alerts/2026/Mar/ossec-alerts-01.log";

fn keeper(home: &Path, compress: bool, secs: i64) -> (Keeper, Sender<()>) {
    let (alive, end) = channel();
    let keeper = Keeper {
        home: home.to_owned(),
        zone: Zone::utc(),
        clock: Arc::new(ManualClock::new(secs * 1_000_000_000, Duration::ZERO)),
        days: PastDays { compress, wait: Duration::from_secs(10) },
        failures: Arc::default(),
        end,
    };
    (keeper, alive)
}

fn write(home: &Path, name: &str, text: &[u8]) -> PathBuf {
    let path = home.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    tld_sys::durable::replace(&path, text, 0o640).unwrap();
    path
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut text = String::new();
    MultiGzDecoder::new(File::open(path).unwrap()).take(1 << 20).read_to_string(&mut text).unwrap();
    text.into_bytes()
}

fn sha256(text: &[u8]) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn yesterday_is_compressed_and_hashed_and_today_is_not_touched() {
    let home = tempfile::tempdir().unwrap();
    let old = write(home.path(), YESTERDAY, b"an alert\n");
    let numbered = write(home.path(), "logs/archives/2025/Dec/ossec-archive-31-001.json", b"{}\n");
    let kept = [
        write(home.path(), "logs/alerts/2026/Mar/ossec-alerts-02.log", b"today\n"),
        write(home.path(), "logs/alerts/2026/Mar/ossec-alerts-03.log", b"tomorrow\n"),
        write(home.path(), "logs/alerts/2026/Mar/notes-01.log", b"the operator's\n"),
    ];
    let (keeper, _alive) = keeper(home.path(), true, MORNING);
    keeper.round().unwrap();
    assert!(!old.exists() && !numbered.exists());
    assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
    let packed = with_suffix(&old, ".gz");
    assert_eq!(unpacked(&packed), b"an alert\n");
    let sums = fs::read_to_string(with_suffix(&old, ".sum")).unwrap();
    let wanted = format!(
        "SHA256 (ossec-alerts-01.log) = {}\nSHA256 (ossec-alerts-01.log.gz) = {}\n",
        sha256(b"an alert\n"),
        sha256(&fs::read(&packed).unwrap())
    );
    assert_eq!(sums, wanted);
    assert!(keeper.failures.lock().unwrap().is_empty());
}

#[test]
fn a_late_line_joins_the_compressed_file() {
    let home = tempfile::tempdir().unwrap();
    let old = write(home.path(), YESTERDAY, b"first\n");
    let (keeper, _alive) = keeper(home.path(), true, MORNING);
    keeper.round().unwrap();
    write(home.path(), YESTERDAY, b"late\n");
    keeper.round().unwrap();
    assert!(!old.exists());
    assert_eq!(unpacked(&with_suffix(&old, ".gz")), b"first\nlate\n");
}

#[test]
fn without_compression_only_the_hash_is_written() {
    let home = tempfile::tempdir().unwrap();
    let old = write(home.path(), YESTERDAY, b"x\n");
    let (keeper, _alive) = keeper(home.path(), false, MORNING);
    keeper.round().unwrap();
    assert!(old.exists() && !with_suffix(&old, ".gz").exists());
    let sums = fs::read_to_string(with_suffix(&old, ".sum")).unwrap();
    assert_eq!(sums, format!("SHA256 (ossec-alerts-01.log) = {}\n", sha256(b"x\n")));
}

#[test]
fn a_day_is_past_some_seconds_after_midnight() {
    let home = tempfile::tempdir().unwrap();
    let old = write(home.path(), YESTERDAY, b"x\n");
    let midnight = MORNING - MORNING % 86_400;
    let (early, _alive) = keeper(home.path(), true, midnight + 9);
    early.round().unwrap();
    assert!(old.exists());
    let (later, _alive) = keeper(home.path(), true, midnight + 11);
    later.round().unwrap();
    assert!(!old.exists());
}

#[test]
fn an_end_in_between_leaves_the_log_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let old = write(home.path(), YESTERDAY, b"x\n");
    let (keeper, alive) = keeper(home.path(), true, MORNING);
    drop(alive);
    keeper.round().unwrap_err();
    assert!(old.exists());
    assert!(!with_suffix(&old, ".gz.part").exists() && !with_suffix(&old, ".gz").exists());
}
