//! Files that are run once, outside the journal: nothing of what they do will be undone. For the restart script, and
//! for requests so broken that only the file itself can say what it thinks of them.
//! Invariant: the same checks of owner, mode and type as for orders, and an end in time.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use tld_sys::child::{self, Limits, Spec, Stdin};
use tld_sys::clock::Deadline;

use crate::executable;

/// The file was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// It is absent, or not fit to be run as root.
    #[error("{0}")]
    Denied(String),
    /// It cannot be started.
    #[error("cannot start `{program}`")]
    Start {
        /// Path relative to the home.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ran for too long and was killed.
    #[error("`{program}` was still running after {limit:?} and was killed")]
    TimedOut {
        /// Path relative to the home.
        program: String,
        /// The time it had.
        limit: Duration,
    },
}

/// Runs `program` (relative to `home`) with `arguments`, `input` as all of its input, and waits at most `limit`.
///
/// # Errors
/// When it is not run, or not to its end.
pub fn run(
    home: &Path,
    program: &str,
    arguments: &[&str],
    input: &str,
    limit: Duration,
) -> Result<ExitStatus, OnceError> {
    let fit = executable::fit(home, program).map_err(|denied| OnceError::Denied(denied.text()))?;
    let failed = |source| OnceError::Start { program: program.to_owned(), source };
    let (file, cwd) = (fit.path(), fit.cwd(home));
    let spec = Spec {
        argv0: Some(OsString::from(program)),
        args: arguments.iter().map(OsString::from).collect(),
        cwd: Some(&cwd),
        stdin: Stdin::Pipe,
        // What it starts may be the whole installation.
        limits: Limits::none(),
        ..Spec::new(&file)
    };
    let deadline = Deadline::after(limit);
    let mut child = child::spawn(&spec).map_err(failed)?;
    // A file may end without reading its input.
    let _ = child.write_all(input.as_bytes(), limit);
    child.stdin = None;
    let left = deadline.remaining().unwrap_or(Duration::MAX);
    if let Some(status) = child.wait_deadline(left).map_err(failed)? {
        return Ok(status);
    }
    let _ = child.kill_group();
    let _ = child.wait_deadline(AFTER_KILL);
    Err(OnceError::TimedOut { program: program.to_owned(), limit })
}

const AFTER_KILL: Duration = Duration::from_secs(2);
