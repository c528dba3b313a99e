//! Our executable started as `active-response/bin/firewall-drop` by another product's daemon: it obeys the dialogue of
//! the contract (active-response 8) and leaves the deadline to that daemon.
//! Invariant: writes the same log lines as the responder does.

use std::io::{BufRead, Read as _, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tld_config::Role;
use tld_model::{Timestamp, Zone};
use tld_sys::clock::{Clock as _, SystemClock};
use tld_sys::durable;

use crate::actions::{self, Action, Call, Failure, Local, Ours, Places, Subject, Wanted};
use crate::executor::check_keys_line;
use crate::guard::{Guard, Reach};
use crate::heard;
use crate::kernel::{self, Kernel};
use crate::log::{self, Lines};
use crate::member;

/// True when a file of this name is one of our actions.
pub fn is_action(name: &str) -> bool {
    actions::of_name(name).is_some()
}

/// Obeys one dialogue as the script `argv0_name` of `home`. Returns the exit status: 0, or 255.
pub fn run_script(argv0_name: &str, home: &Path, stdin: &mut dyn BufRead, stdout: &mut dyn Write) -> i32 {
    run_script_at(argv0_name, home, Places::default(), stdin, stdout)
}

/// [`run_script`] on a host whose files stand elsewhere: for tests.
pub fn run_script_at(
    argv0_name: &str,
    home: &Path,
    places: Places,
    stdin: &mut dyn BufRead,
    stdout: &mut dyn Write,
) -> i32 {
    run_with(argv0_name, home, places, stdin, stdout, &|| {
        kernel::open(TABLE).map_err(|error| error.to_string())
    })
}

type Open<'a> = &'a dyn Fn() -> Result<Box<dyn Kernel>, String>;

fn run_with(
    name: &str,
    home: &Path,
    places: Places,
    stdin: &mut dyn BufRead,
    stdout: &mut dyn Write,
    open: Open<'_>,
) -> i32 {
    let script = Script {
        program: format!("active-response/bin/{name}"),
        home: home.into(),
        places,
        log: home.join(log::PATH),
    };
    // Where it cannot be put aside it grows; the response matters more.
    let _ = log::keep_default(home).rotate();
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

/// Whom this host must never block, by its own configuration. One that cannot be read lists nobody; what the system
/// itself tells holds in any case.
fn guard(home: &Path) -> Guard {
    let settings = tld_config::load(home, None, Role::Agent).map(|loaded| loaded.settings.responder);
    let settings = settings.unwrap_or_default();
    Guard::once(settings.protected, &settings.managers)
}

struct Script {
    program: String,
    home: PathBuf,
    places: Places,
    log: PathBuf,
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
        let command = member::text(&message, "command").unwrap_or_default();
        if command != "add" && command != "delete" {
            return Err("Invalid value of 'command'".into());
        }
        let found = actions::of_name(name).ok_or_else(|| format!("no action is named '{name}'"))?;
        let guard = (command == "add").then(|| guard(&self.home));
        let call = self.call(name, &message, guard.as_ref().map(Guard::reach).unwrap_or_default());
        let (subject, keyed) = match found {
            Ours::Firewall(action) => (action.subject(&call.alert)?, true),
            Ours::Local(action) => (action.subject(&call)?, action.lasts()),
        };
        if command == "delete" {
            match found {
                Ours::Firewall(action) => let_in(action, &call, &subject, open)?,
                Ours::Local(action) => restore(action, &call, &subject).map_err(|why| why.to_string())?,
            }
            return Ok("Ended");
        }
        let objection = |address| guard.as_ref().and_then(|guard| guard.objection(address));
        if let Some(objection) = subject.address().and_then(objection) {
            return Err(format!("Refused: {objection}"));
        }
        if keyed {
            let keys = check_keys_line(&self.program, &subject.to_string());
            self.say(&keys);
            writeln!(stdout, "{keys}").and_then(|()| stdout.flush()).map_err(|error| error.to_string())?;
            match member::text(&self.read(stdin)?, "command") {
                Some("continue") => {}
                Some("abort") => return Ok("Aborted"),
                _ => return Err("Invalid value of 'command'".into()),
            }
        }
        match found {
            Ours::Firewall(action) => block(action, &call, &subject, open)?,
            Ours::Local(action) => enforce(action, &call, &subject).map_err(|why| why.to_string())?,
        }
        Ok("Ended")
    }

    fn call(&self, name: &str, message: &Value, reach: Reach) -> Call {
        let words = member::at(message, "parameters/extra_args").and_then(Value::as_array);
        let words = words.into_iter().flatten();
        Call {
            home: self.home.clone(),
            places: self.places.clone().reaching(reach),
            name: name.into(),
            alert: member::at(message, "parameters/alert").cloned().unwrap_or(Value::Null),
            extra_args: words.filter_map(Value::as_str).map(String::from).collect(),
            created: Timestamp::from_nanos(SystemClock.wall_nanos()),
        }
    }

    fn read(&self, stdin: &mut dyn BufRead) -> Result<Value, String> {
        let mut line = Vec::new();
        let read = stdin.take(LINE).read_until(b'\n', &mut line);
        if read.is_err() || line.is_empty() {
            return Err("Cannot read input from stdin".into());
        }
        // Logs hold bytes of any kind, and a daemon hands them on: they must not keep an attacker unblocked.
        let text = String::from_utf8_lossy(&line);
        self.received(text.trim_end_matches(['\n', '\r']));
        heard::message(text.as_bytes()).ok_or_else(|| "Invalid input format".into())
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

fn block(action: &dyn Action, call: &Call, subject: &Subject, open: Open<'_>) -> Result<(), String> {
    let wanted: Vec<_> = subject.spots().map(|spot| Wanted { spot, lease: None, fresh: false }).collect();
    one(action.apply(&mut *open()?, &wanted))?;
    // Without it the block stands all the same.
    let _ = remember(call, &memory(call, &call.name, subject), &boot());
    Ok(())
}

/// Lets an address in again that no other of our names holds since this boot.
fn let_in(action: &dyn Action, call: &Call, subject: &Subject, open: Open<'_>) -> Result<(), String> {
    let now = boot();
    let holds = |name: &&&str| {
        let noted = durable::read_bounded(&memory(call, name, subject), PRIOR);
        noted.is_ok_and(|boot| boot == now.as_bytes())
    };
    if action.names().iter().filter(|name| **name != call.name).all(|name| !holds(&name)) {
        one(action.revert(&mut *open()?, &subject.spots().collect::<Vec<_>>()))?;
    }
    let _ = std::fs::remove_file(memory(call, &call.name, subject));
    Ok(())
}

fn boot() -> String {
    tld_sys::clock::boot_id().unwrap_or_default()
}

fn remember(call: &Call, path: &Path, text: &str) -> Result<(), Failure> {
    let directory = call.state().join("prior");
    durable::create_dirs(&directory, 0o700).map_err(Failure::io("create", &directory))?;
    durable::replace(path, text.as_bytes(), 0o600).map_err(Failure::io("write", path))
}

/// Another product's daemon keeps no journal for us, so what was found first stands in a file until the `delete`.
fn memory(call: &Call, name: &str, subject: &Subject) -> PathBuf {
    let digest = Sha256::digest(format!("{name}-{subject}"));
    let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    call.state().join("prior").join(name)
}

fn enforce(action: &dyn Local, call: &Call, subject: &Subject) -> Result<(), Failure> {
    if !action.lasts() {
        return action.apply(call, subject, "").map(drop);
    }
    let path = memory(call, &call.name, subject);
    if let Ok(bytes) = durable::read_bounded(&path, PRIOR) {
        return action.apply(call, subject, &String::from_utf8_lossy(&bytes)).map(drop);
    }
    let prior = action.prior(call, subject)?;
    remember(call, &path, &prior)?;
    let applied = action.apply(call, subject, &prior).map(drop);
    if applied.is_err() && action.revert(call, subject, &prior).is_ok() {
        // What was found today must not be put back after another attempt at another time.
        let _ = std::fs::remove_file(&path);
    }
    applied
}

fn restore(action: &dyn Local, call: &Call, subject: &Subject) -> Result<(), Failure> {
    if !action.lasts() {
        return action.revert(call, subject, "").map(drop);
    }
    let path = memory(call, &call.name, subject);
    let prior = durable::read_bounded(&path, PRIOR).unwrap_or_default();
    action.revert(call, subject, &String::from_utf8_lossy(&prior))?;
    let _ = std::fs::remove_file(&path);
    Ok(())
}

fn one(results: Vec<Result<String, String>>) -> Result<(), String> {
    results.into_iter().try_for_each(|result| result.map(drop))
}

/// Longer than the contract's 65,535: the daemon makes a request of that length longer before it hands it on.
const LINE: u64 = 1 << 20;
/// What another product's daemon blocks stands in a table of its own: our responder must neither put back what that daemon
/// lifts, nor lift what it holds.
pub const TABLE: &str = "threatlockdown_scripts";
const PRIOR: usize = 1 << 16;
const FAILURE: i32 = 255;
