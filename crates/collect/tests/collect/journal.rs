//! A journal of our own: `systemd-journal-remote` writes it, `journalctl` follows it.

use std::path::Path;
use std::time::Duration;

use crate::common::{Home, PATIENCE, Running, block, eventually, queue};
use tld_collect::Collector;
use tld_pattern::{Expression, Kind};
use tld_sys::child::{Child, Limits, Spec, Stdin, spawn};
use tld_sys::clock::{Clock, SystemClock};

const WRITER: &[&str] = &["/usr/lib/systemd/systemd-journal-remote", "/lib/systemd/systemd-journal-remote"];

struct Journal {
    home: Home,
    writer: Child,
    count: u64,
    boot: char,
}

impl Journal {
    fn new() -> Option<Self> {
        let writer = WRITER.iter().map(Path::new).find(|path| path.exists());
        let (Some(program), true) = (writer, Path::new("/usr/bin/journalctl").exists()) else {
            assert!(
                std::env::var_os("TLD_REQUIRE_ALL").is_none_or(|value| value != "1"),
                "systemd-journal-remote or journalctl is missing"
            );
            println!("skipped: systemd-journal-remote or journalctl is missing");
            return None;
        };
        let home = Home::new();
        std::fs::create_dir(home.path("journal")).unwrap();
        let mut spec = Spec::new(program);
        spec.stdin = Stdin::Pipe;
        spec.limits = Limits { memory_bytes: None, ..Limits::default() };
        spec.args = vec![format!("--output={}", home.path("journal/x.journal").display()).into(), "-".into()];
        let writer = spawn(&spec).unwrap();
        Some(Self { home, writer, count: 0, boot: '0' })
    }

    fn write(&mut self, name: &str, text: &str) {
        self.count += 1;
        let micros = SystemClock.wall_nanos() / 1000;
        let head = format!(
            "__REALTIME_TIMESTAMP={micros}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={}123456789abcdef0123456789abcdef\n\
             _HOSTNAME=web1\nSYSLOG_IDENTIFIER={name}\n_PID=42\nMESSAGE\n",
            1_000_000 + self.count,
            self.boot
        );
        let length = (text.len() as u64).to_le_bytes();
        let entry = [head.as_bytes(), &length, text.as_bytes(), b"\n\n"].concat();
        self.writer.write_all(&entry, PATIENCE).unwrap();
        // A follower of a directory without a journal has nothing to follow.
        let file = self.home.path("journal/x.journal");
        eventually(
            || "the journal is there".to_owned(),
            || std::fs::metadata(&file).is_ok_and(|seen| seen.len() > 0),
        );
    }

    fn start(&self, filter: Option<&str>) -> Running {
        let (sender, events) = queue(100);
        let setup =
            tld_collect::Setup { journal_directory: Some(self.home.path("journal")), ..self.home.setup() };
        let mut source = block("journald", "journald");
        source.filters.extend(filter.map(|pattern| tld_config::JournalFilter {
            field: "SYSLOG_IDENTIFIER".to_owned(),
            expression: Expression::compile(Kind::Pcre2, pattern.as_bytes()).unwrap(),
            ignore_if_missing: false,
        }));
        Running { collector: Collector::start(&[source], setup, sender).unwrap(), events }
    }

    /// Writes until the follower is there.
    fn await_follower(&mut self, running: &Running) {
        for _ in 0..100 {
            self.write("sshd", "probe");
            if running.events.recv_timeout(Duration::from_millis(200)).is_ok() {
                break;
            }
        }
        self.write("sshd", "mark");
        while !running.line().ends_with(": mark") {}
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.writer.kill_group().unwrap();
        self.writer.wait_deadline(Duration::from_secs(5)).unwrap();
    }
}

fn text(line: &str) -> &str {
    line.split_once(' ').and_then(|(_, rest)| rest.split_once("web1 ")).map_or("", |(_, rest)| rest)
}

#[test]
fn the_journal_is_followed_and_a_restart_goes_on_behind_the_last_entry() {
    let Some(mut journal) = Journal::new() else { return };
    journal.write("sshd", "before the start");
    let running = journal.start(None);
    journal.await_follower(&running);
    journal.write("sshd", "Failed password\nfor root");
    let event = running.next();
    assert_eq!(*event.location, *b"journald");
    assert_eq!(text(&String::from_utf8(event.text).unwrap()), "sshd[42]: Failed password\nfor root");
    assert!(running.stop().is_empty());
    journal.write("sudo", "while stopped");
    journal.boot = '1';
    journal.write("sudo", "after a reboot");
    let running = journal.start(None);
    assert_eq!(text(&running.line()), "sudo[42]: while stopped");
    assert_eq!(text(&running.line()), "sudo[42]: after a reboot");
    journal.write("sudo", "afterwards");
    assert_eq!(text(&running.line()), "sudo[42]: afterwards");
    assert!(running.stop().is_empty());
    assert_eq!(journal.home.logged(), "");
}

#[test]
fn filters_choose_entries() {
    let Some(mut journal) = Journal::new() else { return };
    journal.write("sshd", "before the start");
    let running = journal.start(Some("^sshd$"));
    journal.await_follower(&running);
    journal.write("cron", "noise");
    journal.write("sshd", "wanted");
    assert_eq!(text(&running.line()), "sshd[42]: wanted");
}

#[test]
fn a_journal_that_cannot_be_read_is_reported_once_and_files_are_read_all_the_same() {
    let Some(journal) = Journal::new() else { return };
    journal.home.append("a.log", b"");
    let (sender, events) = queue(100);
    let setup =
        tld_collect::Setup { journal_directory: Some(journal.home.path("absent")), ..journal.home.setup() };
    let blocks = [block("journald", "journald"), block("a.log", "syslog")];
    let running = Running { collector: Collector::start(&blocks, setup, sender).unwrap(), events };
    journal.home.wait_for("`journalctl` ended, it is started again:");
    // It is started again, and nothing more is said.
    std::thread::sleep(Duration::from_millis(1500));
    journal.home.append("a.log", b"x\n");
    assert_eq!(running.line(), "x");
    let logged = journal.home.logged();
    assert!(logged.starts_with("`journalctl` ended, it is started again:"), "{logged}");
    assert_eq!(logged.lines().count(), 1);
}
