//! A collector on a directory of its own.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tld_collect::{Collector, Setup};
use tld_config::LocalFile;
use tld_model::Event;
use tld_sys::clock::{Deadline, SystemClock};
use tld_sys::queue::{Limits, Receiver, Sender, bounded};

/// Longest wait for what takes a moment on a machine of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what another thread does in its own time.
#[track_caller]
pub(crate) fn eventually(account: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let end = Deadline::after(PATIENCE);
    while !holds() {
        assert!(!end.passed(), "not within {PATIENCE:?}: {}", account());
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) struct Home {
    pub(crate) directory: TempDir,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
}

pub(crate) struct Running {
    pub(crate) collector: Collector,
    pub(crate) events: Receiver<Event>,
}

pub(crate) fn queue(items: usize) -> (Sender<Event>, Receiver<Event>) {
    bounded(Limits { items, bytes: 64 << 20 }, Event::weight)
}

pub(crate) fn block(location: &str, log_format: &str) -> LocalFile {
    LocalFile {
        location: Some(location.to_owned()),
        log_format: log_format.to_owned(),
        command: None,
        alias: None,
        frequency: Duration::from_secs(360),
        only_future_events: true,
        exclude: Vec::new(),
        ignore_binaries: false,
        ignore: Vec::new(),
        restrict: Vec::new(),
        max_size: 10 << 20,
        age: None,
        labels: Vec::new(),
        multiline: None,
        filters: Vec::new(),
        target: Vec::new(),
        out_format: Vec::new(),
        query: None,
        reconnect_time: Duration::from_secs(5),
        file: "ossec.conf".into(),
        line: 1,
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), log: Arc::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("queue/logcollector/threatlockdown-positions.json")
    }

    pub(crate) fn append(&self, name: &str, text: &[u8]) {
        append(&self.path(name), text);
    }

    pub(crate) fn setup(&self) -> Setup {
        let log = Arc::clone(&self.log);
        Setup {
            home: self.directory.path().to_owned(),
            state: self.state(),
            clock: Arc::new(SystemClock),
            journal_directory: None,
            log: Arc::new(move |text| log.lock().unwrap().push(text.to_owned())),
        }
    }

    pub(crate) fn start(&self, blocks: &[LocalFile]) -> Running {
        self.start_with(blocks, 1024)
    }

    pub(crate) fn start_with(&self, blocks: &[LocalFile], room: usize) -> Running {
        let (sender, events) = queue(room);
        Running { collector: Collector::start(blocks, self.setup(), sender).unwrap(), events }
    }

    pub(crate) fn logged(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until the collector has said `text`: it speaks after it has sent what it read.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        eventually(|| format!("`{text}` in `{}`", self.logged()), || self.logged().contains(text));
    }
}

pub(crate) fn append(path: &Path, text: &[u8]) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text).unwrap();
}

pub(crate) fn create(path: &Path) -> File {
    File::create(path).unwrap()
}

impl Running {
    pub(crate) fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event in time")
    }

    /// Text of the next event.
    pub(crate) fn line(&self) -> String {
        String::from_utf8(self.next().text).unwrap()
    }

    /// Texts of the next events.
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    pub(crate) fn quiet(&self) -> bool {
        self.events.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout)
    }

    pub(crate) fn stop(self) -> Vec<Event> {
        self.collector.stop().unwrap();
        self.events.iter().collect()
    }
}
