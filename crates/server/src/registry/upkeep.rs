//! The registry's own thread: looks for changed files and stores what became known.
//! Invariant: it holds no lock while it waits.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Registry;

/// One look costs two system calls, so it can be more frequent than the contract's 10 s.
const PERIOD: Duration = Duration::from_secs(1);

/// Keeps a registry current until it is dropped; then it stores what is left.
#[derive(Debug)]
pub struct Upkeep {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(registry: Arc<Registry>) -> io::Result<Self> {
        let (end, ended) = channel();
        let thread =
            std::thread::Builder::new().name("registry".into()).spawn(move || keep(&registry, &ended))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep(registry: &Registry, ended: &Receiver<()>) {
    // The same fault is told once, not each second.
    let mut told = None;
    loop {
        let last = !matches!(ended.recv_timeout(PERIOD), Err(RecvTimeoutError::Timeout));
        let fault = registry.reload().and(registry.flush()).err().map(|error| error.to_string());
        if fault != told {
            if let Some(fault) = &fault {
                (registry.setup.warn)(fault);
            }
            told = fault;
        }
        if last {
            return;
        }
    }
}
