//! The one thread that reads all files: woken by the kernel, and once a second by itself.
//!
//! Invariants: a file is read by one tail only, whatever names lead to it; of one path's files the older one is read
//! first; a position is noted only for what the channel has taken.

mod openings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tld_model::Zone;

use crate::notify::{Hint, Notify, Watch};
use crate::outlet::{Closed, Outlet};
use crate::position::{Positions, Stored, key};
use crate::source::{Location, Source};
use crate::tail::{Identity, Progress, Tail, Way};

/// The net under the notifications, and the rhythm of saving.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes read of one file before the others have their turn.
const TURN: usize = 1 << 20;
/// Silence after which a rotated file is closed; writers that were not told of the rotation go on for a while.
const RETIRED: Duration = Duration::from_secs(60);
/// Rotated files kept open per path.
const MAX_RETIRED: usize = 4;
/// Files read at the same time.
pub(crate) const MAX_FILES: usize = 1000;
/// What messages about files carry as location.
const OWN_LOCATION: &[u8] = b"logcollector";

/// Where the journal's cursor is put by its thread and taken for saving.
pub(crate) type Cursor = Arc<Mutex<Option<String>>>;

/// One path and its files.
struct Followed {
    path: PathBuf,
    source: usize,
    location: Arc<[u8]>,
    current: Option<Tail>,
    /// Rotated away, oldest first.
    retired: Vec<Tail>,
    /// The location does not name this path any more.
    leaving: bool,
    /// It was told that the file cannot be read.
    refused: bool,
    /// The file that could not be read at the start: what it holds when it can be is of the past.
    past: Option<Identity>,
}

/// State of the thread.
pub(crate) struct Reader {
    sources: Vec<Source>,
    followed: BTreeMap<usize, Followed>,
    by_path: HashMap<PathBuf, usize>,
    by_watch: HashMap<Watch, usize>,
    directories: HashMap<PathBuf, Watch>,
    by_directory: HashMap<Watch, PathBuf>,
    next: usize,
    notify: Notify,
    outlet: Outlet,
    zone: Zone,
    own_location: Arc<[u8]>,
    buffer: Vec<u8>,
    log: Arc<dyn Fn(&str) + Send + Sync>,
    /// Loaded at start; what belongs to open files has been taken out.
    positions: Positions,
    cursor: Cursor,
    saver: SyncSender<Positions>,
    last_saved: Option<Positions>,
    /// Rotated while there was much left to read of the old file.
    postponed: BTreeSet<usize>,
    full: bool,
    unwatched: bool,
}

/// What the thread is made of.
pub(crate) struct Parts {
    pub(crate) sources: Vec<Source>,
    pub(crate) notify: Notify,
    pub(crate) outlet: Outlet,
    pub(crate) zone: Zone,
    pub(crate) log: Arc<dyn Fn(&str) + Send + Sync>,
    pub(crate) positions: Positions,
    pub(crate) cursor: Cursor,
    pub(crate) saver: SyncSender<Positions>,
}

impl Reader {
    /// Opens what exists now, each file at the place where its reading begins.
    pub(crate) fn new(parts: Parts) -> Self {
        let mut reader = Self {
            sources: parts.sources,
            followed: BTreeMap::new(),
            by_path: HashMap::new(),
            by_watch: HashMap::new(),
            directories: HashMap::new(),
            by_directory: HashMap::new(),
            next: 0,
            notify: parts.notify,
            outlet: parts.outlet,
            zone: parts.zone,
            own_location: OWN_LOCATION.into(),
            buffer: vec![0; 65_536],
            log: parts.log,
            positions: parts.positions,
            cursor: parts.cursor,
            saver: parts.saver,
            last_saved: None,
            postponed: BTreeSet::new(),
            full: false,
            unwatched: false,
        };
        reader.find_paths(true);
        reader
    }

    /// Reads until the collector stops or the pipeline is gone; answers the final positions.
    pub(crate) fn run(mut self) -> Positions {
        let mut dirty: BTreeSet<usize> = self.followed.keys().copied().collect();
        let mut hints = Vec::new();
        let mut next_look = self.outlet.boot() + LOOK;
        while !self.outlet.stopping() {
            let timeout = if dirty.is_empty() && self.postponed.is_empty() {
                self.patience(next_look)
            } else {
                Duration::ZERO
            };
            if let Err(error) = self.notify.wait(timeout, &mut hints) {
                (self.log)(&format!("waiting for file changes failed: {error}"));
                std::thread::sleep(Duration::from_millis(100));
            }
            let round = self.round(&mut hints, &mut dirty, &mut next_look);
            if round.is_err() {
                break;
            }
        }
        self.snapshot()
    }

    fn round(
        &mut self,
        hints: &mut Vec<Hint>,
        dirty: &mut BTreeSet<usize>,
        next_look: &mut Duration,
    ) -> Result<(), Closed> {
        let mut look = self.outlet.boot() >= *next_look;
        for hint in hints.drain(..) {
            match hint {
                Hint::File(watch) => dirty.extend(self.by_watch.get(&watch)),
                Hint::Name(watch, name) => {
                    let Some(directory) = self.by_directory.get(&watch) else { continue };
                    match self.by_path.get(&directory.join(name)) {
                        Some(id) => {
                            let id = *id;
                            self.check(id, false)?;
                            dirty.insert(id);
                        }
                        None => look |= self.has_wildcards(),
                    }
                }
                Hint::Gone(watch) => self.watch_ended(watch),
                Hint::Lost => look = true,
            }
        }
        if look {
            self.look()?;
            dirty.extend(self.followed.keys());
            *next_look = self.outlet.boot() + LOOK;
        }
        dirty.extend(&self.postponed);
        for id in std::mem::take(dirty) {
            if self.postponed.remove(&id) {
                self.check(id, false)?;
            }
            if self.serve(id)? {
                dirty.insert(id);
            }
        }
        self.flush_overdue()
    }

    fn has_wildcards(&self) -> bool {
        self.sources.iter().any(|source| matches!(source.location, Location::Wild(_)))
    }

    fn watch_ended(&mut self, watch: Watch) {
        self.by_watch.remove(&watch);
        if let Some(path) = self.by_directory.remove(&watch) {
            self.directories.remove(&path);
        }
    }

    /// How long to wait when there is nothing to read.
    fn patience(&self, next_look: Duration) -> Duration {
        let now = self.outlet.boot();
        let look = next_look.saturating_sub(now);
        let open = self.followed.values().filter_map(|followed| followed.current.as_ref());
        open.filter_map(|tail| tail.flush_in(now)).fold(look, Duration::min)
    }

    /// Everything anew: names, rotations, what is to be closed, what is to be saved.
    fn look(&mut self) -> Result<(), Closed> {
        self.find_paths(false);
        let ids: Vec<usize> = self.followed.keys().copied().collect();
        for id in ids {
            self.check(id, false)?;
            self.retire_old(id)?;
            self.close_aged(id);
        }
        let now = self.snapshot();
        if self.last_saved.as_ref() != Some(&now) && self.saver.try_send(now.clone()).is_ok() {
            self.last_saved = Some(now);
        }
        Ok(())
    }

    fn snapshot(&self) -> Positions {
        let mut positions = self.positions.clone();
        let seen = self.outlet.now().secs();
        positions.prune(self.outlet.now());
        for followed in self.followed.values() {
            let tails = followed.retired.iter().chain(&followed.current);
            let places: Vec<_> = tails.map(Tail::place).collect();
            if !places.is_empty() {
                positions.files.insert(key(&followed.path), Stored { seen, places });
            }
        }
        positions.journal.clone_from(&self.cursor.lock().unwrap_or_else(PoisonError::into_inner));
        positions
    }

    /// Reads one path's files, the older ones first; true if there is more.
    fn serve(&mut self, id: usize) -> Result<bool, Closed> {
        let Some(followed) = self.followed.get_mut(&id) else { return Ok(false) };
        let Some(source) = self.sources.get(followed.source) else { return Ok(false) };
        let way = Way { source, location: &followed.location, outlet: &self.outlet };
        let mut more = false;
        for tail in &mut followed.retired {
            // An old file that was emptied has nothing left for us.
            more |= tail.read(&way, &mut self.buffer, TURN)? == Progress::More;
        }
        if more {
            return Ok(true);
        }
        let Some(tail) = &mut followed.current else { return Ok(false) };
        let progress = tail.read(&way, &mut self.buffer, TURN)?;
        if let Some(count) = tail.nul_news(self.outlet.boot()) {
            let path = followed.path.display();
            (self.log)(&format!("`{path}`: {count} line(s) left out because of a NUL byte in them"));
        }
        match progress {
            Progress::Idle => Ok(false),
            Progress::More => Ok(true),
            Progress::Truncated => {
                tail.flush(&way)?;
                tail.rewind();
                let text =
                    format!("ossec: File size reduced (inode remained): '{}'.", followed.path.display());
                self.outlet.send(&self.own_location, text.into_bytes())?;
                Ok(true)
            }
        }
    }

    fn flush_overdue(&mut self) -> Result<(), Closed> {
        let now = self.outlet.boot();
        for followed in self.followed.values_mut() {
            let Some(source) = self.sources.get(followed.source) else { continue };
            let way = Way { source, location: &followed.location, outlet: &self.outlet };
            for tail in followed.retired.iter_mut().chain(&mut followed.current) {
                if tail.flush_in(now) == Some(Duration::ZERO) {
                    tail.flush(&way)?;
                }
            }
        }
        Ok(())
    }

    /// Compares the name with the open file.
    fn check(&mut self, id: usize, at_start: bool) -> Result<(), Closed> {
        let Some(followed) = self.followed.get(&id) else { return Ok(()) };
        let path = followed.path.clone();
        let Some(identity) = Identity::at(&path) else {
            self.unreachable(id, &path);
            return Ok(());
        };
        match &followed.current {
            Some(tail) if tail.identity == identity => return Ok(()),
            None => self.begin(id, &path, identity, at_start),
            Some(_) => self.rotate(id, &path, identity)?,
        }
        Ok(())
    }

    fn rotate(&mut self, id: usize, path: &Path, identity: Identity) -> Result<(), Closed> {
        // What the old file holds now goes out before anything of the new one.
        if !self.drain(id)? {
            self.postponed.insert(id);
            return Ok(());
        }
        let Some(followed) = self.followed.get_mut(&id) else { return Ok(()) };
        followed.retired.extend(followed.current.take());
        let text = format!("ossec: File rotated (inode changed): '{}'.", path.display());
        self.outlet.send(&self.own_location, text.into_bytes())?;
        self.begin(id, path, identity, false);
        Ok(())
    }

    /// Reads the current file to its present end; false if that is far away, so that others come first.
    fn drain(&mut self, id: usize) -> Result<bool, Closed> {
        let Some(followed) = self.followed.get_mut(&id) else { return Ok(true) };
        let (Some(source), Some(tail)) = (self.sources.get(followed.source), &mut followed.current) else {
            return Ok(true);
        };
        let way = Way { source, location: &followed.location, outlet: &self.outlet };
        Ok(tail.read(&way, &mut self.buffer, TURN)? != Progress::More)
    }

    /// Closes rotated files that have been silent, and paths that are gone.
    fn retire_old(&mut self, id: usize) -> Result<(), Closed> {
        let now = self.outlet.boot();
        let Some(followed) = self.followed.get_mut(&id) else { return Ok(()) };
        let Some(source) = self.sources.get(followed.source) else { return Ok(()) };
        let way = Way { source, location: &followed.location, outlet: &self.outlet };
        let silent = |tail: &Tail| now.saturating_sub(tail.active) >= RETIRED;
        let mut closed = Vec::new();
        while followed.retired.first().is_some_and(silent) || followed.retired.len() > MAX_RETIRED {
            closed.push(followed.retired.remove(0));
        }
        // A deleted file without a successor, or a name of yesterday.
        let gone = |tail: &mut Tail| silent(tail) && (followed.leaving || tail.is_deleted());
        closed.extend(followed.current.take_if(gone));
        let ended = followed.current.is_none() && followed.retired.is_empty();
        let single = matches!(source.location, Location::Path(_));
        let remove = ended && !single && (followed.leaving || !followed.path.exists());
        for mut tail in closed {
            while tail.read(&way, &mut self.buffer, TURN)? == Progress::More {}
            tail.finish(&way)?;
            if let Some(watch) = tail.watch {
                self.by_watch.remove(&watch);
                self.notify.forget(watch);
            }
        }
        if remove && let Some(followed) = self.followed.remove(&id) {
            self.by_path.remove(&followed.path);
        }
        Ok(())
    }

    /// `age`: the place of a file that nobody writes to is kept, its descriptor is not.
    fn close_aged(&mut self, id: usize) {
        let Some(followed) = self.followed.get_mut(&id) else { return };
        let Some(age) = self.sources.get(followed.source).and_then(|source| source.age) else { return };
        let now = self.outlet.now();
        let aged = |tail: &mut Tail| openings::is_older(tail.file(), age, now);
        let Some(tail) = followed.current.take_if(aged) else { return };
        let stored = Stored { seen: now.secs(), places: vec![tail.place()] };
        self.positions.files.insert(key(&followed.path), stored);
        if let Some(watch) = tail.watch {
            self.by_watch.remove(&watch);
            self.notify.forget(watch);
        }
    }
}
