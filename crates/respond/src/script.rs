//! The dialogue with an operator's file (active-response 7): one line in, perhaps one `check_keys` line back, the
//! answer, the exit. Runs in a thread of its own, so that a hung file hinders nobody.
//! Invariant: returns at the latest when the total time is over, and then nothing of the file's group lives.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tld_model::{ExecMessage, Order, Origin, Parameters, RawJson, read_shallow};
use tld_sys::child::{self, Child, Limits, ReadLine, Spec, Stdin, Stdout};
use tld_sys::clock::Deadline;
use tld_sys::group::{Bounds, Group, Groups};

use crate::actions::Failure;
use crate::dialect::Dialect;
use crate::executable::Fit;
use crate::member;

/// What a file is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Add,
    Delete,
}

/// One run of a file.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) home: PathBuf,
    /// Relative to the home, as the contract's `argv[0]`.
    pub(crate) program: String,
    pub(crate) verb: Verb,
    pub(crate) dialect: Dialect,
    /// A timeout is set, so a key line is expected.
    pub(crate) stateful: bool,
    pub(crate) key_line: Duration,
    pub(crate) total: Duration,
    pub(crate) stdin_grace: Duration,
    pub(crate) limits: Limits,
    /// Where it is kept together with all that it starts.
    pub(crate) groups: Groups,
    pub(crate) bounds: Bounds,
}

/// The responder's word after the key line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Continue,
    Abort,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum End {
    Exit(ExitStatus),
    TimedOut(String),
    /// It was killed for the number of its processes.
    Crowded(String),
    NotStarted(String),
    /// An action of ours; the proof if it was carried out.
    Ours(Result<String, Failure>),
}

/// What is known after a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) end: End,
    pub(crate) stderr: String,
    /// What was refused to it while it ran.
    pub(crate) held: Option<String>,
}

impl Report {
    /// Of a run of which nothing more is known.
    pub(crate) fn of(end: End) -> Self {
        Self { end, stderr: String::new(), held: None }
    }

    pub(crate) fn succeeded(&self) -> bool {
        matches!(&self.end, End::Exit(status) if status.success()) || matches!(&self.end, End::Ours(Ok(_)))
    }

    /// The exit status as a shell shows it.
    pub(crate) fn status(&self) -> Option<i32> {
        match &self.end {
            End::Exit(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)),
            _ => None,
        }
    }

    /// One sentence for people: the reason with the last words of the file.
    pub(crate) fn describe(&self) -> String {
        let reason = match &self.end {
            End::Exit(status) => match status.signal() {
                Some(signal) => format!("killed by signal {signal}"),
                None => format!("exit status {}", status.code().unwrap_or(-1)),
            },
            End::TimedOut(why) | End::Crowded(why) | End::NotStarted(why) => why.clone(),
            End::Ours(Ok(proof)) => proof.clone(),
            End::Ours(Err(failure)) => failure.to_string(),
        };
        let reason = match &self.held {
            Some(held) => format!("{reason}, {held}"),
            None => reason,
        };
        match self.stderr.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(last) => format!("{reason}: {last}"),
            None => reason,
        }
    }
}

impl Job {
    /// Runs `fit`, the file, checked and held until it is started. `ask` gets the key line and how long it may take to
    /// decide; `process` gets the number of the process.
    pub(crate) fn run(
        &self,
        fit: Fit,
        process: &AtomicU32,
        ask: impl FnOnce(Vec<u8>, Duration) -> Option<Answer>,
    ) -> Report {
        let words = self.dialect.words(self.verb);
        let spoken = words.is_none();
        let deadline = Deadline::after(self.total);
        let mut ask = Some(ask);
        if let (Some(keys), Verb::Add) = (self.dialect.keys(&self.program), self.verb) {
            // Such a file tells no keys: whether it may act is decided before it is started.
            let answer = ask.take().and_then(|ask| ask(keys.into_bytes(), left(&deadline)));
            if answer != Some(Answer::Continue) {
                let why = "not started: no decision in time, or not needed";
                return Report::of(End::NotStarted(why.into()));
            }
        }
        let (file, cwd) = (fit.path(), fit.cwd(&self.home));
        let spec = Spec {
            argv0: Some(OsString::from(&self.program)),
            args: words.unwrap_or_default().into_iter().map(OsString::from).collect(),
            cwd: Some(&cwd),
            stdin: if spoken { Stdin::Pipe } else { Stdin::Null },
            stdout: if spoken && self.verb == Verb::Add { Stdout::Pipe } else { Stdout::Null },
            limits: self.limits.clone(),
            ..Spec::new(&file)
        };
        let (mut child, group) = match self.begin(&spec) {
            Ok(begun) => begun,
            Err(error) => {
                let why = format!("(1317): `{}` cannot be started: {error}", self.program);
                return Report::of(End::NotStarted(why));
            }
        };
        process.store(child.pid, Ordering::SeqCst);
        // A thousand files that hang must not hold a thousand more descriptors.
        drop(fit);
        let talked = match ask.filter(|_| spoken) {
            Some(ask) => self.talk(&mut child, &deadline, ask),
            None => Ok(()),
        };
        let end = match talked {
            Ok(()) => finish(&mut child, &deadline, self.total),
            Err(why) => Err(why),
        };
        // From here on its number may be another's.
        process.store(0, Ordering::SeqCst);
        let end = match end {
            Ok(status) => End::Exit(status),
            Err(why) => {
                let _ = child.kill_group();
                // Those too that left its session.
                let all = group.kill(AFTER_KILL);
                let _ = child.wait_deadline(AFTER_KILL);
                End::TimedOut(if all { why } else { format!("{why}, but some of its processes still live") })
            }
        };
        let crowded = group.crowded();
        let (end, held) = match crowded {
            Some(why) if group.was_stopped() => (End::Crowded(why), None),
            held => (end, held),
        };
        Report { end, stderr: String::from_utf8_lossy(child.stderr_tail()).into_owned(), held }
    }

    /// Starts it in a group of its own; one that the kernel's groups do not take is looked at instead.
    fn begin(&self, spec: &Spec<'_>) -> std::io::Result<(Child, Group)> {
        let group = self.groups.make(self.bounds);
        match child::spawn(&Spec { group: Some(&group), ..spec.clone() }) {
            Ok(child) => Ok((child, group)),
            Err(_) if group.is_kernels() => {
                let group = self.groups.make_counted(self.bounds);
                let child = child::spawn(&Spec { group: Some(&group), ..spec.clone() })?;
                Ok((child, group))
            }
            Err(error) => Err(error),
        }
    }

    fn talk(
        &self,
        child: &mut Child,
        deadline: &Deadline,
        ask: impl FnOnce(Vec<u8>, Duration) -> Option<Answer>,
    ) -> Result<(), String> {
        let opening = if self.verb == Verb::Add { "add" } else { "delete" };
        self.send(child, opening)?;
        if self.verb == Verb::Delete {
            child.stdin = None;
            return Ok(());
        }
        let first = if self.stateful { self.key_line } else { self.stdin_grace };
        let line = match child.read_line(LINE, first.min(left(deadline))) {
            Ok(ReadLine::Line(line)) => line,
            // Any line counts; only its keys are lost.
            Ok(ReadLine::TooLong) => Vec::new(),
            Ok(ReadLine::Eof) | Err(_) => {
                child.stdin = None;
                return Ok(());
            }
            Ok(ReadLine::TimedOut) if self.stateful => {
                let waited = self.key_line.as_secs_f32();
                return Err(format!(
                    "no key line within {waited} s, killed (a file must read one line of its input, not to the end)"
                ));
            }
            // Nothing will be undone, so the answer would only say `continue`: readers to the end of input get it.
            Ok(ReadLine::TimedOut) => {
                child.stdin = None;
                return Ok(());
            }
        };
        let answer = ask(line, left(deadline)).ok_or_else(|| "no decision in time, killed".to_owned())?;
        self.send(child, if answer == Answer::Continue { "continue" } else { "abort" })?;
        child.stdin = None;
        Ok(())
    }

    fn send(&self, child: &mut Child, command: &str) -> Result<(), String> {
        let mut line = self.dialect.line(command)?;
        line.push('\n');
        match child.write_all(line.as_bytes(), self.key_line) {
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(format!(
                "it did not read its `{command}` line within {} s, killed",
                self.key_line.as_secs_f32()
            )),
            // A file may ignore its input altogether.
            _ => Ok(()),
        }
    }
}

fn finish(child: &mut Child, deadline: &Deadline, total: Duration) -> Result<ExitStatus, String> {
    match child.wait_deadline(left(deadline)) {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err(format!("still running after {} s, killed", total.as_secs_f32())),
        Err(error) => Err(format!("cannot wait for it: {error}")),
    }
}

fn left(deadline: &Deadline) -> Duration {
    deadline.remaining().unwrap_or(Duration::MAX)
}

/// The message of an order as its file gets it; the caller sets the verb.
pub(crate) fn message(order: &Order, program: &str, verb: &str) -> ExecMessage {
    ExecMessage {
        version: 1,
        origin: Origin { name: Some(order.node.clone()), module: "wazuh-execd".into() },
        command: verb.into(),
        parameters: Parameters {
            extra_args: order.extra_args.clone(),
            alert: one_line(&order.alert),
            program: Some(program.into()),
        },
    }
}

/// Raw control characters are legal JSON only between tokens; there, blanks mean the same and keep it one line.
fn one_line(alert: &RawJson) -> RawJson {
    if !alert.get().bytes().any(|byte| byte < b' ') {
        return alert.clone();
    }
    let text: String = alert.get().chars().map(|one| if one < ' ' { ' ' } else { one }).collect();
    RawJson::from(serde_json::value::RawValue::from_string(text).unwrap_or_else(|_| alert.clone()))
}

/// The entry key of a file's first line, and the keys within it. A line that is no `check_keys` message counts too:
/// its key is the base name.
pub(crate) fn entry_key(program: &str, line: &[u8]) -> (String, Vec<String>) {
    let base = program.rsplit('/').next().unwrap_or(program);
    let keys = check_keys(line).unwrap_or_default();
    let mut key = base.to_owned();
    for one in &keys {
        key.push('-');
        key.push_str(one);
    }
    while key.len() > KEY {
        key.pop();
    }
    (key, keys)
}

fn check_keys(line: &[u8]) -> Option<Vec<String>> {
    let message = parse_message(line)?;
    if member::text(&message, "command")? != "check_keys" {
        return None;
    }
    let keys = member::at(&message, "parameters/keys")?.as_array()?;
    Some(keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// An alert as far down as any response looks; what an attacker nested deeper cannot hide the rest.
pub(crate) fn alert(text: &RawJson) -> Value {
    read_shallow(text.get().as_bytes(), ALERT_LEVELS).unwrap_or(Value::Null)
}

/// A well-formed protocol message (active-response 7.2); bytes behind the object are tolerated.
pub(crate) fn parse_message(line: &[u8]) -> Option<Value> {
    let value = read_shallow(line, MESSAGE_LEVELS)?;
    let is = |name: &str, kind: fn(&Value) -> bool| member::at(&value, name).is_some_and(kind);
    let formed = is("version", Value::is_number)
        && is("origin", Value::is_object)
        && is("command", Value::is_string)
        && is("parameters", Value::is_object);
    formed.then_some(value)
}

const LINE: usize = 8_191;
const ALERT_LEVELS: usize = 16;
/// The alert stands two levels deep in a message.
pub(crate) const MESSAGE_LEVELS: usize = ALERT_LEVELS + 2;
const KEY: usize = 4_095;
const AFTER_KILL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "active-response/bin/custom-ar";

    #[test]
    fn keys_are_joined_behind_the_base_name() {
        let line = br#"{"version":1,"origin":{},"command":"check_keys","parameters":{"keys":["203.0.113.7","bob"]}} x"#;
        assert_eq!(entry_key(PROGRAM, line).0, "custom-ar-203.0.113.7-bob");
        for plain in [
            &b"hello"[..],
            b"",
            b"{}",
            br#"{"version":"1","origin":{},"command":"check_keys","parameters":{}}"#,
        ] {
            assert_eq!(entry_key(PROGRAM, plain).0, "custom-ar");
        }
    }

    #[test]
    fn a_long_key_is_cut_at_4095_bytes() {
        let long = "k".repeat(4_090);
        let line = format!(
            r#"{{"version":1,"origin":{{}},"command":"check_keys","parameters":{{"keys":["{long}"]}}}}"#
        );
        assert_eq!(entry_key("active-response/bin/fifteen-letters", line.as_bytes()).0.len(), 4_095);
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_file_says_becomes_a_key_of_bounded_length(line: Vec<u8>) {
            let (key, _) = entry_key(PROGRAM, &line);
            assert!(key.starts_with("custom-ar") && key.len() <= KEY);
        }

        #[test]
        fn any_list_of_keys_survives_its_way_through_json(keys: Vec<String>) {
            let line = serde_json::json!({
                "version": 1, "origin": {}, "command": "check_keys", "parameters": { "keys": keys }
            });
            assert_eq!(entry_key(PROGRAM, line.to_string().as_bytes()).1, keys);
        }
    }
}
