//! The formats `command` and `full_command`: the operator's own command line, run again and again.
//!
//! Invariant: what a command prints is only ever text; nothing of it reaches a shell. No command runs as root.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tld_config::LocalFile;
use tld_pattern::CompileError;
use tld_sys::child::Spec;

use crate::outlet::{Closed, Outlet};
use crate::process::pump;
use crate::source::Filter;

const SHELL: &str = "/bin/sh";
const MAX_HEAD: usize = 255;
const MAX_OUTPUT: usize = 65_000;
/// Longest life of one run, unless the time between two runs is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom commands run as when the collector has root's rights: the first that exists.
const USERS: [&str; 2] = ["wazuh", "nobody"];

/// One block with a command.
pub(crate) struct Command {
    line: OsString,
    name: String,
    whole: bool,
    frequency: Duration,
    filter: Filter,
    home: PathBuf,
    /// Set: another user than ours.
    user: Option<(u32, u32)>,
    log: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Command {
    /// None without a command line.
    pub(crate) fn new(
        block: &LocalFile,
        home: &Path,
        log: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Option<Self>, CompileError> {
        let Some(line) = block.command.clone().filter(|line| !line.is_empty()) else { return Ok(None) };
        Ok(Some(Self {
            name: block.alias.clone().unwrap_or_else(|| line.clone()),
            line: line.into(),
            whole: block.log_format == "full_command",
            frequency: block.frequency.max(Duration::from_secs(1)),
            filter: Filter::new(block)?,
            home: home.to_owned(),
            user: unprivileged(),
            log,
        }))
    }

    /// Runs the command until the collector stops, the first time at once.
    pub(crate) fn run(&self, outlet: &Outlet) {
        let location: Arc<[u8]> = self.name.as_bytes().into();
        while !outlet.stopping() {
            let started = outlet.boot();
            let output = self.once(outlet);
            for message in messages(&self.name, &output, self.whole) {
                if self.filter.passes(&message, outlet)
                    && self.filter.send(&location, message, outlet) == Err(Closed)
                {
                    return;
                }
            }
            while !outlet.stopping() {
                let left = (started + self.frequency).saturating_sub(outlet.boot());
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
            }
        }
    }

    fn once(&self, outlet: &Outlet) -> Vec<u8> {
        let mut spec = Spec::new(Path::new(SHELL));
        spec.args = vec!["-c".into(), self.line.clone()];
        spec.cwd = self.home.is_dir().then_some(self.home.as_path());
        if self.user.is_some() {
            // That user may have no way into the home, and other processes of it do not count against the command.
            (spec.user, spec.cwd) = (self.user, Some(Path::new("/")));
            spec.limits.processes = None;
        }
        let mut output = Vec::new();
        let limit = if self.whole { MAX_OUTPUT } else { MAX_OUTPUT * 16 };
        let ended = pump(&spec, self.frequency.max(PATIENCE), outlet, |chunk| {
            let room = limit.saturating_sub(output.len());
            output.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
            Ok(())
        });
        match ended {
            Ok(ended) if ended.how == "took too long" => {
                (self.log)(&format!("command `{}` took too long and was ended", self.name));
            }
            Ok(_) => {}
            Err(error) => (self.log)(&format!("command `{}` could not be run: {error}", self.name)),
        }
        if outlet.stopping() { Vec::new() } else { output }
    }
}

/// Who commands run as: none where we are not root ourselves.
fn unprivileged() -> Option<(u32, u32)> {
    use tld_sys::privilege;
    privilege::is_root().then(|| USERS.iter().find_map(|name| privilege::user(name)))?
}

/// What is sent for one run.
fn messages(name: &str, output: &[u8], whole: bool) -> Vec<Vec<u8>> {
    let mut head = format!("ossec: output: '{name}':").into_bytes();
    head.truncate(MAX_HEAD);
    if whole {
        let text = tidy(output);
        let message = [head.as_slice(), b"\n", &text].concat();
        return if text.is_empty() { Vec::new() } else { vec![message] };
    }
    head.push(b' ');
    head.truncate(MAX_HEAD);
    let output = output.strip_suffix(b"\n").unwrap_or(output);
    if output.is_empty() {
        return Vec::new();
    }
    output
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let line = line.get(..MAX_OUTPUT).unwrap_or(line);
            [head.as_slice(), line].concat()
        })
        .collect()
}

/// Without the last newline, without carriage returns, each pair of newlines as one.
fn tidy(output: &[u8]) -> Vec<u8> {
    let output = output.strip_suffix(b"\n").unwrap_or(output);
    let mut text: Vec<u8> = Vec::with_capacity(output.len());
    let mut after_newline = false;
    for byte in output.iter().copied().filter(|byte| *byte != b'\r') {
        if byte == b'\n' && after_newline {
            after_newline = false;
            continue;
        }
        after_newline = byte == b'\n';
        text.push(byte);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_command_is_a_message() {
        let sent = messages("df", b"a\nb\n", false);
        assert_eq!(sent, [b"ossec: output: 'df': a".to_vec(), b"ossec: output: 'df': b".to_vec()]);
        assert!(messages("df", b"", false).is_empty());
    }

    #[test]
    fn a_full_command_is_one_message_with_pairs_of_newlines_reduced() {
        let sent = messages("last", b"a\r\n\nb\n\n\n\nc\n", true);
        assert_eq!(sent, [b"ossec: output: 'last':\na\nb\n\nc".to_vec()]);
    }

    #[test]
    fn a_long_head_is_cut() {
        let sent = messages(&"x".repeat(400), b"text", false);
        assert_eq!(sent[0].len(), MAX_HEAD + 4);
    }
}
