//! What only the file system can tell about a configuration.

use std::collections::HashSet;
use std::path::Path;

use tld_xml::{Diagnostic, Severity};

use crate::executable::{ResolveError, resolve};
use crate::settings::Settings;

/// Warns for commands whose executable is not in `active-response/bin`.
///
/// Every defined command is looked up, since a response may name it tomorrow; only Windows executables (`netsh.exe` of the
/// shipped configuration) are not missed elsewhere while no response that runs on this host uses them.
pub fn check_executables(home: &Path, settings: &Settings) -> Vec<Diagnostic> {
    let dir = home.join("active-response/bin");
    let used: HashSet<&str> = settings
        .responses
        .iter()
        .filter(|response| response.location.server || response.location.local)
        .map(|response| response.executable.as_str())
        .collect();
    let mut seen = HashSet::new();
    let expected = |command: &&crate::Command| {
        cfg!(windows) || !command.executable.ends_with(".exe") || used.contains(command.executable.as_str())
    };
    let commands =
        settings.commands.iter().filter(expected).filter(|command| seen.insert(&command.executable));
    commands.filter_map(|command| missing(&dir, command)).collect()
}

fn missing(dir: &Path, command: &crate::Command) -> Option<Diagnostic> {
    let error = resolve(dir, &command.executable).err()?;
    let help = match &error {
        ResolveError::NotFound { .. } => "put the file there with mode 750, or correct `executable`",
        ResolveError::Ambiguous { .. } => "write the file name with its extension",
        ResolveError::Name { .. } | ResolveError::Read { .. } => "see the `executable` of the command",
    };
    let message = format!("command `{}`: {error}", command.name);
    let mut warning = Diagnostic::bare(Severity::Warning, command.file.clone(), message).with_help(help);
    warning.line = command.line;
    Some(warning)
}
