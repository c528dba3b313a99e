//! `alerts.json`, `alerts.log` and the archives: dated files with a hard link under the short name (analysis-output 4).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_model::{Timestamp, Zone};
use tld_sys::clock::Clock;
use tld_sys::queue::{self, Limits, Receiver, Sender};

use super::past::{Keeper, PastDays};
use super::{Record, state};
use crate::sequencer::{Gap, Volume};

/// Records that may wait for the disk; beyond that the analysis waits (back-pressure before loss).
const QUEUE: Limits = Limits { items: 65_536, bytes: 32 << 20 };
/// A written line is on its way to the disk within this time even when no other follows.
const TICK: Duration = Duration::from_millis(500);

/// Which files are kept.
#[derive(Debug, Clone)]
pub struct Files {
    /// Home directory.
    pub home: PathBuf,
    /// `jsonout_output`.
    pub alerts_json: bool,
    /// `alerts_log`.
    pub alerts_plain: bool,
    /// `logall_json`.
    pub archives_json: bool,
    /// `logall`.
    pub archives_plain: bool,
    /// `analysisd.log_fw`.
    pub firewall: bool,
    /// What records of alerts.log leave open.
    pub gap: Gap,
}

/// The writer's thread and its queue.
#[derive(Debug)]
pub struct FileOutput {
    queue: Sender<Record>,
    thread: JoinHandle<()>,
    keeper: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl FileOutput {
    /// Starts the writer. Files are opened at the first record of their kind.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(files: Files, zone: Zone, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (queue, records) = queue::bounded(QUEUE, Record::weight);
        let failures = Arc::default();
        let writer = Writer::new(files, zone, clock, Arc::clone(&failures));
        let thread =
            std::thread::Builder::new().name("outputs".into()).spawn(move || writer.run(&records))?;
        Ok(Self { queue, thread, keeper: None, failures })
    }

    /// Puts the logs of past days away from now on, on another thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn keep_past(
        &mut self,
        days: PastDays,
        home: PathBuf,
        zone: Zone,
        clock: Arc<dyn Clock>,
    ) -> io::Result<()> {
        let (alive, end) = mpsc::channel();
        let failures = Arc::clone(&self.failures);
        let keeper = Keeper { home, zone, clock, days, failures, end };
        let thread = std::thread::Builder::new().name("past-days".into()).spawn(move || keeper.run())?;
        self.keeper = Some((alive, thread));
        Ok(())
    }

    /// The queue's entrance.
    pub fn queue(&self) -> Sender<Record> {
        self.queue.clone()
    }

    /// Failures since the last call, each worth one line in the log.
    pub fn failures(&self) -> Vec<String> {
        std::mem::take(&mut self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what is queued and ends the thread. All other senders must be gone.
    pub fn finish(self) {
        drop(self.queue);
        let _ = self.thread.join();
        if let Some((alive, thread)) = self.keeper {
            drop(alive);
            let _ = thread.join();
        }
    }
}

struct Writer {
    files: Files,
    zone: Zone,
    clock: Arc<dyn Clock>,
    failures: Arc<Mutex<Vec<String>>>,
    streams: [Stream; 5],
    /// What records are put together in.
    line: Vec<u8>,
}

/// More memory than this is not kept for the next record.
const LONGEST_KEPT: usize = 1 << 20;

impl Writer {
    fn new(files: Files, zone: Zone, clock: Arc<dyn Clock>, failures: Arc<Mutex<Vec<String>>>) -> Self {
        let stream = |enabled: bool, folder: &str, stem: &'static str, extension: &'static str| Stream {
            enabled,
            folder: files.home.join("logs").join(folder),
            stem,
            extension,
            current: None,
        };
        let streams = [
            stream(files.alerts_json, "alerts", "alerts", "json"),
            stream(files.alerts_plain, "alerts", "alerts", "log"),
            stream(files.archives_json, "archives", "archive", "json"),
            stream(files.archives_plain, "archives", "archive", "log"),
            stream(files.firewall, "firewall", "firewall", "log"),
        ];
        Self { files, zone, clock, failures, streams, line: Vec::new() }
    }

    fn run(mut self, records: &Receiver<Record>) {
        loop {
            match records.recv_timeout(TICK) {
                Ok(record) => {
                    self.write(record);
                    while let Ok(record) = records.try_recv() {
                        self.write(record);
                    }
                    self.each(Stream::flush);
                    // A busy stream must not keep a quiet one in yesterday's file.
                    self.tick();
                }
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.each(Stream::flush);
    }

    /// At midnight the short names move to the new day's files even when nothing is written.
    fn tick(&mut self) {
        let today = Volume::of(&self.zone.local(Timestamp::from_nanos(self.clock.wall_nanos())));
        self.each(|stream| stream.pass_midnight(today));
    }

    fn each(&mut self, mut act: impl FnMut(&mut Stream) -> io::Result<()>) {
        for stream in &mut self.streams {
            if let Err(error) = act(stream) {
                report(&self.failures, format!("cannot write `{}`: {error}", stream.short().display()));
            }
        }
    }

    fn write(&mut self, record: Record) {
        let written = match record {
            Record::Alert(record) => {
                let (alert, place) = *record;
                let Self { streams: [json, plain, ..], line, .. } = self;
                line.clear();
                line.shrink_to(LONGEST_KEPT);
                alert.json.write(&place.id, line);
                line.push(b'\n');
                json.write(place.volume, line).and_then(|()| {
                    line.clear();
                    alert.plain.write(self.files.gap.text(&place.id), line);
                    plain.write(place.volume, line)
                })
            }
            Record::Archive { at, json, plain } => self.archive(at, json, plain),
            Record::Firewall { at, mut line } => {
                line.push(b'\n');
                let [.., firewall] = &mut self.streams;
                firewall.write(Volume::of(&self.zone.local(at)), &line)
            }
            Record::Note(note) => state::note(&self.files.home, &note),
            Record::State(effect) => state::keep(&self.files.home, &effect),
        };
        if let Err(error) = written {
            report(&self.failures, format!("cannot write below `{}`: {error}", self.files.home.display()));
        }
    }

    fn archive(&mut self, at: Timestamp, mut json: Vec<u8>, mut plain: Vec<u8>) -> io::Result<()> {
        let volume = Volume::of(&self.zone.local(at));
        let [_, _, archive_json, archive_plain, _] = &mut self.streams;
        json.push(b'\n');
        plain.push(b'\n');
        archive_json.write(volume, &json)?;
        archive_plain.write(volume, &plain)
    }
}

pub(super) fn report(failures: &Mutex<Vec<String>>, line: String) {
    let mut list = failures.lock().unwrap_or_else(PoisonError::into_inner);
    if list.len() < 16 && !list.contains(&line) {
        list.push(line);
    }
}

/// One kind of file: the open one, and the hard link that names it.
struct Stream {
    enabled: bool,
    folder: PathBuf,
    stem: &'static str,
    extension: &'static str,
    current: Option<(Volume, BufWriter<File>)>,
}

impl Stream {
    fn short(&self) -> PathBuf {
        let name = if self.stem == "archive" { "archives" } else { self.stem };
        self.folder.join(name).with_extension(self.extension)
    }

    fn write(&mut self, volume: Volume, bytes: &[u8]) -> io::Result<()> {
        if !self.enabled || bytes.is_empty() {
            return Ok(());
        }
        let file = match &mut self.current {
            Some((open, file)) if *open == volume => file,
            _ => self.switch(volume)?,
        };
        file.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.current.as_mut().map_or(Ok(()), |(_, file)| file.flush())
    }

    fn pass_midnight(&mut self, today: Volume) -> io::Result<()> {
        match &self.current {
            Some((open, _)) if (open.year, open.month, open.day) != (today.year, today.month, today.day) => {
                self.switch(today).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn switch(&mut self, volume: Volume) -> io::Result<&mut BufWriter<File>> {
        if let Some((old, mut file)) = self.current.take() {
            file.flush()?;
            let path = old.path(&self.folder, self.stem, self.extension);
            if file.get_ref().metadata()?.len() == 0 {
                fs::remove_file(path)?;
            }
        }
        let path = volume.path(&self.folder, self.stem, self.extension);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path)?;
        self.link(&path)?;
        Ok(&mut self.current.insert((volume, BufWriter::with_capacity(1 << 16, file))).1)
    }

    /// The link is made under another name and renamed, so that the short name never goes missing.
    fn link(&self, path: &Path) -> io::Result<()> {
        let fresh = self.folder.join(format!(".{}-{}.link", self.stem, self.extension));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::hard_link(path, &fresh)?;
        fs::rename(&fresh, self.short())?;
        // Renaming one link of a file onto another of the same file leaves both.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
