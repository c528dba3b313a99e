//! Moves what the write-ahead log holds into the database, on a thread and a connection of its own: two flushes of the disk
//! and megabytes of writing that no order need wait for.
//! Invariant: it never makes the writer wait (a passive checkpoint), and what it leaves undone the writer's own checkpoint
//! does at a far higher mark.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

/// The thread. Dropping it waits for the end of what it does.
#[derive(Debug)]
pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    steps: usize,
}

impl Checkpointer {
    /// Without a thread to be had, nothing is lost but time.
    pub(super) fn start(path: &Path) -> Self {
        let (wake, woken) = sync_channel(1);
        let path = path.to_owned();
        let thread =
            std::thread::Builder::new().name("checkpoint".into()).spawn(move || run(&path, &woken)).ok();
        Self { wake: Some(wake), thread, steps: 0 }
    }

    /// So many steps were written.
    pub(super) fn written(&mut self, steps: usize) {
        self.steps += steps;
        if self.steps < STEPS {
            return;
        }
        // One that is busy looks again when it is done.
        if self.wake.as_ref().is_some_and(|wake| wake.try_send(()).is_ok()) {
            self.steps = 0;
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(path: &Path, woken: &Receiver<()>) {
    let mut db: Option<Connection> = None;
    while woken.recv().is_ok() {
        if db.is_none() {
            db = Connection::open(path).ok();
        }
        let done = db.as_ref().map(|db| db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
        // The writer meets the same trouble and is the one to tell of it.
        if !matches!(done, Some(Ok(()))) {
            db = None;
        }
    }
}

/// Steps between two checkpoints: some ten megabytes of the log.
const STEPS: usize = 6_000;
