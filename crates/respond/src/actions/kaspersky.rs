//! `kaspersky`: drives `kesl-control` of Kaspersky Endpoint Security for Linux. Each extra argument is one argument; none
//! is ever joined to a command line.
//! Invariant: only the options of the contract are passed on, as the fixed forms below.

use std::path::Path;

use super::{Call, Failure, Local, Proof, Subject, tool};

/// See the module.
pub(crate) struct Kaspersky;

/// What `kesl-control` is told for the contract's options.
fn translate(args: &[String]) -> Result<Vec<String>, String> {
    let words: Vec<&str> = args.iter().flat_map(|text| text.split_ascii_whitespace()).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| *word != "-v").collect();
    let fixed = |list: &[&str]| Ok(list.iter().map(|word| String::from(*word)).collect());
    match words.as_slice() {
        ["--full_scan"] => fixed(&["--start-task", "2"]),
        ["--boot_scan"] => fixed(&["--start-task", "4"]),
        ["--memory_scan"] => fixed(&["--start-task", "5"]),
        ["--enable_realtime"] => fixed(&["--start-task", "1"]),
        ["--disable_realtime"] => fixed(&["--stop-task", "1"]),
        ["--custom_scan_folder" | "--custom_scan_file", path] => fixed(&["--scan-file", path]),
        ["--custom_scan_file", path, "--action", action] => fixed(&["--scan-file", path, "--action", action]),
        ["--update_application"] => fixed(&["--update-application"]),
        ["--get_task_list"] => fixed(&["--get-task-list"]),
        ["--get_task_state", id] if id.bytes().all(|byte| byte.is_ascii_digit()) => {
            fixed(&["--get-task-state", id])
        }
        ["--custom_flags", flags @ ..] if !flags.is_empty() => fixed(flags),
        [] => Err("Cannot read 'extra_args' from parameters".into()),
        _ => Err(format!("these extra arguments mean nothing to kaspersky: {}", args.join(" "))),
    }
}

impl Local for Kaspersky {
    fn names(&self) -> &'static [&'static str] {
        &["kaspersky"]
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        translate(&call.extra_args).map(|_| Subject::None)
    }

    fn lasts(&self) -> bool {
        false
    }

    fn apply(&self, call: &Call, _subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        let usual = Path::new("/opt/kaspersky/kesl/bin/kesl-control").to_owned();
        let program = if usual.is_file() { usual } else { call.tool("kesl-control")? };
        let args = translate(&call.extra_args).map_err(Failure::Failed)?;
        let shown = args.join(" ");
        tool::must(&program, args, b"")?;
        Ok(format!("kesl-control {shown}: exit status 0"))
    }

    fn revert(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        Ok("nothing to undo".into())
    }

    fn verify(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_options_are_translated() {
        let of = |text: &str| translate(&[text.to_owned()]).ok().map(|args| args.join(" "));
        assert_eq!(of("--full_scan").as_deref(), Some("--start-task 2"));
        assert_eq!(
            of("--custom_scan_file /tmp/x --action Skip -v").as_deref(),
            Some("--scan-file /tmp/x --action Skip")
        );
        assert_eq!(of("--get_task_state 4;id"), None);
        assert_eq!(of(""), None);
    }
}
