//! Our executable started as `active-response/bin/firewall-drop` by another product's daemon: it obeys the dialogue of
//! the contract (active-response 8) and leaves the deadline to that daemon.
//! Invariant: writes the same log lines as the responder does.

use std::io::{BufRead, Read as _, Write};
use std::path::Path;

use serde_json::Value;
use tld_model::{Timestamp, Zone};
use tld_sys::clock::{Clock as _, SystemClock};

use crate::actions::{self, Action, Subject, Wanted};
use crate::executor::check_keys_line;
use crate::kernel::{self, Kernel};
use crate::log::{self, Lines};
use crate::script::parse_message;

/// True when a file of this name is one of our actions.
pub fn is_action(name: &str) -> bool {
    actions::of_name(name).is_some()
}

/// Obeys one dialogue as the script `argv0_name` of `home`. Returns the exit status: 0, or 255.
pub fn run_script(argv0_name: &str, home: &Path, stdin: &mut dyn BufRead, stdout: &mut dyn Write) -> i32 {
    run_with(argv0_name, home, stdin, stdout, &|| {
        kernel::open(crate::TABLE).map_err(|error| error.to_string())
    })
}

type Open<'a> = &'a dyn Fn() -> Result<Box<dyn Kernel>, String>;

fn run_with(name: &str, home: &Path, stdin: &mut dyn BufRead, stdout: &mut dyn Write, open: Open<'_>) -> i32 {
    let script = Script { program: format!("active-response/bin/{name}"), log: home.join(log::PATH) };
    script.say("Starting");
    match script.converse(name, stdin, stdout, open) {
        Ok(last) => {
            script.say(last);
            0
        }
        Err(why) => {
            script.say(&why);
            FAILURE
        }
    }
}

struct Script {
    program: String,
    log: std::path::PathBuf,
}

impl Script {
    fn converse(
        &self,
        name: &str,
        stdin: &mut dyn BufRead,
        stdout: &mut dyn Write,
        open: Open<'_>,
    ) -> Result<&'static str, String> {
        let message = self.read(stdin)?;
        let command = message["command"].as_str().unwrap_or_default();
        if command != "add" && command != "delete" {
            return Err("Invalid value of 'command'".into());
        }
        let action = actions::of_name(name).ok_or_else(|| format!("no action is named '{name}'"))?;
        let alert = message["parameters"].get("alert").unwrap_or(&Value::Null);
        let subject = action.subject(alert)?;
        if command == "delete" {
            one(action.revert(&mut *open()?, &[subject]))?;
            return Ok("Ended");
        }
        let keys = check_keys_line(&self.program, &subject.to_string());
        self.say(&keys);
        writeln!(stdout, "{keys}").and_then(|()| stdout.flush()).map_err(|error| error.to_string())?;
        match self.read(stdin)?["command"].as_str() {
            Some("continue") => block(action, &mut *open()?, subject).map(|()| "Ended"),
            Some("abort") => Ok("Aborted"),
            _ => Err("Invalid value of 'command'".into()),
        }
    }

    fn read(&self, stdin: &mut dyn BufRead) -> Result<Value, String> {
        let mut line = Vec::new();
        let read = stdin.take(LINE).read_until(b'\n', &mut line);
        if read.is_err() || line.is_empty() {
            return Err("Cannot read input from stdin".into());
        }
        let text = String::from_utf8_lossy(&line);
        self.received(text.trim_end_matches(['\n', '\r']));
        parse_message(&line).ok_or_else(|| "Invalid input format".into())
    }

    fn say(&self, text: &str) {
        let mut lines = self.lines();
        lines.say(text);
        self.append(lines);
    }

    fn received(&self, text: &str) {
        let mut lines = self.lines();
        lines.received(text);
        self.append(lines);
    }

    fn lines(&self) -> Lines<'_> {
        Lines::new(&self.program, &Zone::system(), Timestamp::from_nanos(SystemClock.wall_nanos()))
    }

    /// A line that cannot be written is lost, as the contract has it: the block matters more.
    fn append(&self, lines: Lines<'_>) {
        let _ = log::append(&self.log, &lines.finish());
    }
}

fn block(action: &dyn Action, kernel: &mut dyn Kernel, subject: Subject) -> Result<(), String> {
    one(action.apply(kernel, &[Wanted { subject, lease: None }]))
}

fn one(results: Vec<Result<String, String>>) -> Result<(), String> {
    results.into_iter().try_for_each(|result| result.map(drop))
}

const LINE: u64 = 65_535;
const FAILURE: i32 = 255;
