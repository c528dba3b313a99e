//! Running the system's own tools: fixed path, no shell, bounded, and the exit status is believed.
//! Invariant: a tool that did not exit with 0 is a failure that carries its last words.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tld_sys::child::{Captured, Limits, Spec, run_capture};

use super::Failure;
use crate::executable::Fit;

/// What a tool that ended left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None when it was killed.
    pub(crate) status: Option<i32>,
    pub(crate) output: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(captured: &Captured) -> Self {
        Self {
            status: captured.status.and_then(|status| status.code()),
            output: String::from_utf8_lossy(&captured.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&captured.stderr).into_owned(),
        }
    }

    pub(crate) fn failure(&self, tool: &Path) -> Failure {
        let status = self.status.map_or_else(|| "killed".to_owned(), |code| format!("exit status {code}"));
        let said = [&self.stderr, &self.output].into_iter().find_map(|text| text.lines().last());
        let said = said.map(|line| format!(": {line}")).unwrap_or_default();
        Failure::Failed(format!("{}: {status}{said}", tool.display()))
    }
}

/// Runs it to its end, whatever its status.
pub(crate) fn run<I: Into<OsString>>(
    tool: &Path,
    args: impl IntoIterator<Item = I>,
    input: &[u8],
) -> Result<Ended, Failure> {
    let args = args.into_iter().map(Into::into).collect();
    let limits = Limits { memory_bytes: None, ..Limits::default() };
    let captured = run_capture(&Spec { args, limits, ..Spec::new(tool) }, input, MOST_OUTPUT, PATIENCE)
        .map_err(Failure::io("run", tool))?;
    Ok(Ended::of(&captured))
}

/// Runs it; only status 0 is success.
pub(crate) fn must<I: Into<OsString>>(
    tool: &Path,
    args: impl IntoIterator<Item = I>,
    input: &[u8],
) -> Result<Ended, Failure> {
    let ended = run(tool, args, input)?;
    if ended.status == Some(0) { Ok(ended) } else { Err(ended.failure(tool)) }
}

/// The same with a file of the home that was checked and is held.
pub(crate) fn must_fit<I: Into<OsString>>(
    fit: &Fit,
    home: &Path,
    name: &str,
    args: impl IntoIterator<Item = I>,
) -> Result<Ended, Failure> {
    let (program, cwd) = (fit.path(), fit.cwd(home));
    let spec = Spec {
        argv0: Some(name.into()),
        args: args.into_iter().map(Into::into).collect(),
        cwd: Some(&cwd),
        limits: Limits { memory_bytes: None, ..Limits::default() },
        ..Spec::new(&program)
    };
    let captured =
        run_capture(&spec, b"", MOST_OUTPUT, PATIENCE).map_err(Failure::io("run", Path::new(name)))?;
    let ended = Ended::of(&captured);
    if ended.status == Some(0) { Ok(ended) } else { Err(ended.failure(Path::new(name))) }
}

const PATIENCE: Duration = Duration::from_secs(45);
const MOST_OUTPUT: usize = 1 << 20;
