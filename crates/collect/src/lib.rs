//! Where events come from: files, the systemd journal, commands. Lines go in, [`Event`]s come out of one bounded
//! channel; when it is full the readers wait, so nothing is lost here.
//!
//! One thread reads all files and is woken by the kernel; each command and the journal have a thread of their own.
//! Positions are saved every second and at [`Collector::stop`]: after a clean stop no line is lost or comes twice;
//! after a crash the lines of the last second may come twice.
//!
//! Invariant: a saved position never lies beyond what the channel has taken.

mod command;
mod export;
mod format;
mod glob;
mod journald;
mod lines;
mod notify;
mod outlet;
mod position;
mod process;
mod reader;
mod shape;
mod source;
mod tail;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use thiserror::Error;
use tld_config::LocalFile;
use tld_model::{Event, Zone};
use tld_sys::clock::Clock;
use tld_sys::durable;
use tld_sys::queue::Sender;

use crate::command::Command;
use crate::journald::Journal;
use crate::notify::{Notify, Waker};
use crate::outlet::{Counters, Outlet};
use crate::position::Positions;
use crate::reader::{Parts, Reader};
use crate::source::Source;

/// What the collector says to the operator.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Waits until so many messages are safe behind the channel; false when they will not be.
pub type Settled = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// What the collector needs from its surroundings.
pub struct Setup {
    /// Relative locations start here.
    pub home: PathBuf,
    /// File of the positions.
    pub state: PathBuf,
    /// Source of time.
    pub clock: Arc<dyn Clock>,
    /// Another journal than the system's own.
    pub journal_directory: Option<PathBuf>,
    /// Takes messages for the operator.
    pub log: Log,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("home", &self.home).field("state", &self.state).finish_non_exhaustive()
    }
}

/// Why nothing can be collected.
#[derive(Debug, Error)]
pub enum StartError {
    /// The system gives no more descriptors.
    #[error("cannot prepare waiting for file changes: {0}")]
    Notify(#[source] io::Error),
    /// No thread.
    #[error("cannot start a reading thread: {0}")]
    Thread(#[source] io::Error),
    /// The directory of the positions.
    #[error("cannot make the directory of `{path}`: {error}")]
    State {
        /// The positions' file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Events handed to the channel.
    pub sent: u64,
    /// Lines dropped because they held a NUL byte.
    pub nul_lines: u64,
    /// Messages held back by `ignore` or `restrict`.
    pub filtered: u64,
}

/// The running readers. Dropping it ends them without waiting and without the last save.
pub struct Collector {
    stop: Arc<AtomicBool>,
    waker: Waker,
    reader: Option<JoinHandle<Positions>>,
    saver: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    counters: Arc<Counters>,
    cursor: Arc<Mutex<Option<String>>>,
    state: PathBuf,
    settled: Settled,
}

impl Collector {
    /// Starts to read. When it returns, the beginning of each existing file has been fixed: what is written from
    /// now on is an event. Blocks that cannot be read are reported to `setup.log` and left out.
    pub fn start(localfiles: &[LocalFile], setup: Setup, events: Sender<Event>) -> Result<Self, StartError> {
        Self::start_behind(localfiles, setup, events, Arc::new(|_| true))
    }

    /// [`start`](Self::start), with positions that are saved only once the messages before them are settled: then a
    /// crash loses none that was in the channel.
    pub fn start_behind(
        localfiles: &[LocalFile],
        setup: Setup,
        events: Sender<Event>,
        settled: Settled,
    ) -> Result<Self, StartError> {
        let stop = Arc::new(AtomicBool::new(false));
        let notify = Notify::new().map_err(StartError::Notify)?;
        let outlet = Outlet::new(events, Arc::clone(&stop), Arc::clone(&setup.clock));
        if let Some(parent) = setup.state.parent() {
            let failed = |error| StartError::State { path: setup.state.clone(), error };
            durable::create_dirs(parent, 0o750).map_err(failed)?;
        }
        let positions = Positions::load(&setup.state).unwrap_or_else(|error| {
            let path = setup.state.display();
            (setup.log)(&format!("positions in `{path}` cannot be used, reading begins anew: {error}"));
            Positions::default()
        });
        let cursor = Arc::new(Mutex::new(positions.journal.clone()));
        let (saver, to_save) = sync_channel(1);
        let blocks = sort(localfiles, &setup);
        let journal = Journal::new(
            &blocks.journal,
            setup.journal_directory.clone(),
            Arc::clone(&cursor),
            Arc::clone(&setup.log),
        );
        let journal = journal.unwrap_or_else(|error| {
            (setup.log)(&format!("the journal is not read: {error}"));
            None
        });
        let mut collector = Self {
            waker: notify.waker(),
            counters: Arc::clone(&outlet.counters),
            cursor: Arc::clone(&cursor),
            state: setup.state.clone(),
            settled: Arc::clone(&settled),
            reader: None,
            saver: None,
            others: Vec::new(),
            stop,
        };
        let log = Arc::clone(&setup.log);
        let counters = Arc::clone(&outlet.counters);
        let settled = move || settled(counters.sent.load(Ordering::SeqCst));
        let state = setup.state;
        let work = move || save(&to_save, &state, &log, settled);
        collector.saver = Some(thread("collect-save", work)?);
        let reader = Reader::new(Parts {
            sources: blocks.files,
            notify,
            outlet: outlet.clone(),
            zone: Zone::system(),
            log: Arc::clone(&setup.log),
            positions,
            cursor,
            saver,
        });
        collector.reader = Some(thread("collect-files", move || reader.run())?);
        for command in blocks.commands {
            let outlet = outlet.clone();
            collector.others.push(thread("collect-command", move || command.run(&outlet))?);
        }
        if let Some(journal) = journal {
            collector.others.push(thread("collect-journal", move || journal.run(&outlet))?);
        }
        Ok(collector)
    }

    /// What has happened up to now.
    pub fn counts(&self) -> Counts {
        let Counters { sent, nul_lines, filtered } = &*self.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Counts { sent: read(sent), nul_lines: read(nul_lines), filtered: read(filtered) }
    }

    /// Ends all readers and saves the positions durably. A reader that waits for room in the channel does not
    /// insist: its message is read again at the next start.
    pub fn stop(mut self) -> io::Result<()> {
        self.signal();
        // The journal's thread first: its last cursor belongs to the final state.
        for other in self.others.drain(..) {
            join(other)?;
        }
        let Some(reader) = self.reader.take() else { return Ok(()) };
        let mut positions = join(reader)?;
        // The files' reader may have looked at the cursor before the journal's thread moved it for the last time.
        positions.journal.clone_from(&self.cursor.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(saver) = self.saver.take() {
            join(saver)?;
        }
        if !(self.settled)(self.counters.sent.load(Ordering::SeqCst)) {
            return Err(io::Error::other("what was read has not reached its destination"));
        }
        positions.save(&self.state)
    }

    fn signal(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        for other in &self.others {
            other.thread().unpark();
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.signal();
    }
}

fn thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(StartError::Thread)
}

fn join<T>(handle: JoinHandle<T>) -> io::Result<T> {
    handle.join().map_err(|_panic| io::Error::other("a reading thread has died"))
}

/// Saving waits for the disk; reading must not.
fn save(positions: &Receiver<Positions>, path: &Path, log: &Log, settled: impl Fn() -> bool) {
    let mut complained = false;
    for positions in positions {
        // Positions ahead of what is safe would lose it in a crash; the next ones come in a second.
        if !settled() {
            continue;
        }
        match positions.save(path) {
            Ok(()) => complained = false,
            Err(error) if !complained => {
                log(&format!("positions cannot be saved in `{}`: {error}", path.display()));
                complained = true;
            }
            Err(_) => {}
        }
    }
}

/// The one output that there is, in the words of `target`.
const OUTPUT: &str = "agent";

struct Blocks<'a> {
    files: Vec<Source>,
    commands: Vec<Command>,
    journal: Vec<&'a LocalFile>,
}

fn sort<'a>(localfiles: &'a [LocalFile], setup: &Setup) -> Blocks<'a> {
    let mut blocks = Blocks { files: Vec::new(), commands: Vec::new(), journal: Vec::new() };
    let zone = Zone::system();
    for block in localfiles {
        let warn = |text: String| (setup.log)(&format!("{}:{}: {text}", block.file, block.line));
        if !block.target.is_empty() && !block.target.iter().any(|target| target == OUTPUT) {
            warn(format!("not read: outputs other than `{OUTPUT}` are not built; add it to `target`"));
            continue;
        }
        match block.log_format.as_str() {
            "journald" => blocks.journal.push(block),
            "command" | "full_command" => match Command::new(block, &setup.home, Arc::clone(&setup.log)) {
                Ok(Some(command)) => blocks.commands.push(command),
                Ok(None) => warn("`localfile` has no command".to_owned()),
                Err(error) => warn(error.to_string()),
            },
            _ => match Source::new(block, &setup.home, Arc::clone(&setup.clock), zone.clone()) {
                Ok(source) => blocks.files.push(source),
                Err(error) => warn(error.to_string()),
            },
        }
    }
    blocks
}
