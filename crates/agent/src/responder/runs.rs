//! Files that run beside the orders: the restart script, and executables that are to reject a broken message.
//! Invariant: never more than a fixed number at once, and none waited for by whoever asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tld_respond::once;

use super::voice::Voice;

const AT_ONCE: usize = 16;
/// A restart stops and starts several daemons.
const LIMIT: Duration = Duration::from_secs(600);
const SCRIPT: &str = "active-response/bin/restart.sh";
const CONTROL: &str = "bin/wazuh-control";

/// Starts them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    home: PathBuf,
    role: &'static str,
    dry_run: bool,
    voice: Voice,
    running: Arc<AtomicUsize>,
}

impl Runs {
    /// `role` is what the restart script is told it restarts.
    pub(crate) fn new(home: &Path, role: &'static str, dry_run: bool, voice: Voice) -> Self {
        Self { home: home.to_path_buf(), role, dry_run, voice, running: Arc::default() }
    }

    /// Restarts or reloads the whole installation, by its own means.
    pub(crate) fn restart(&self, reload: bool) {
        let word = if reload { "reload" } else { "restart" };
        self.voice.info(&format!("{word} of the {} was asked for", self.role));
        let present = |path: &str| self.home.join(path).symlink_metadata().is_ok();
        if present(SCRIPT) {
            let arguments = if reload { vec![self.role, "reload"] } else { vec![self.role] };
            self.start(SCRIPT, arguments, String::new());
        } else if present(CONTROL) {
            self.start(CONTROL, vec![word], String::new());
        } else {
            self.voice.error(&format!("(1312): cannot {word}: neither `{SCRIPT}` nor `{CONTROL}` is there"));
        }
    }

    /// Runs one file of the home with `input`.
    pub(crate) fn start(&self, program: &str, arguments: Vec<&'static str>, input: String) {
        if self.dry_run {
            self.voice.info(&format!("dry run: `{program}` would be run {}", arguments.join(" ")));
            return;
        }
        if self.running.fetch_add(1, Ordering::SeqCst) >= AT_ONCE {
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.voice.error(&format!("(1317): {AT_ONCE} files run already, `{program}` was not started"));
            return;
        }
        let (runs, program) = (self.clone(), program.to_owned());
        let work = move || {
            match once::run(&runs.home, &program, &arguments, &input, LIMIT) {
                Ok(status) => runs.voice.debug(|| format!("`{program}` ended: {status}")),
                Err(error) => runs.voice.error(&format!("(1317): {}", super::explain(&error))),
            }
            runs.running.fetch_sub(1, Ordering::SeqCst);
        };
        if let Err(error) = std::thread::Builder::new().name("once".into()).spawn(work) {
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.voice.error(&format!("(1317): cannot start a thread: {error}"));
        }
    }
}
