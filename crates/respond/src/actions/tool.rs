//! Running the system's own tools: fixed path, no shell, bounded, and the exit status is believed.
//! Invariant: a tool that did not exit with 0 is a failure that carries its last words.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tld_sys::child::{Limits, Spec, run_capture};

use super::Failure;

/// What a tool that ended left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None when it was killed.
    pub(crate) status: Option<i32>,
    pub(crate) output: String,
    pub(crate) stderr: String,
}

impl Ended {
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
    Ok(Ended {
        status: captured.status.and_then(|status| status.code()),
        output: String::from_utf8_lossy(&captured.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&captured.stderr).into_owned(),
    })
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

const PATIENCE: Duration = Duration::from_secs(45);
const MOST_OUTPUT: usize = 1 << 20;
