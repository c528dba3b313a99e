//! This program under the name of a response.
//! Invariant: a name that is no response of ours starts nothing.

use std::path::PathBuf;
use std::process::ExitCode;

/// Runs as a response when the name we were started under is one (`active-response/bin/firewall-drop`).
pub fn as_response() -> Option<ExitCode> {
    let argv0 = PathBuf::from(std::env::args_os().next()?);
    let name = argv0.file_name()?.to_str()?;
    if !tld_respond::multicall::is_action(name) {
        return None;
    }
    let home = home_of_running_file()?;
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let status = tld_respond::multicall::run_script(name, &home, &mut stdin.lock(), &mut stdout.lock());
    Some(ExitCode::from(u8::try_from(status & 0xff).unwrap_or(u8::MAX)))
}

/// The running file's path up to `active-response`: the name we were told may be relative to a directory left since.
fn home_of_running_file() -> Option<PathBuf> {
    let file = std::env::current_exe().ok()?;
    let bin = file.ancestors().find(|path| path.file_name().is_some_and(|name| name == "active-response"))?;
    bin.parent().map(PathBuf::from)
}
