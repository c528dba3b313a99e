//! What only the file system can tell about a configuration.

use std::collections::HashSet;
use std::path::Path;

use tld_model::Contract;
use tld_xml::{Diagnostic, Severity};

use crate::executable::{ResolveError, resolve};
use crate::settings::{Response, Settings};

/// Warns for commands whose executable is not in `active-response/bin`.
///
/// Every defined command is looked up, since a response may name it tomorrow; only Windows executables (`netsh.exe` of the
/// shipped configuration) are not missed elsewhere while no response that runs on this host uses them, and neither are the
/// `supplied` ones, which a start puts there.
pub fn check_executables(home: &Path, settings: &Settings, supplied: &[&str]) -> Vec<Diagnostic> {
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
    let commands = settings.commands.iter().filter(expected);
    let commands = commands.filter(|command| !supplied.contains(&command.executable.as_str()));
    let commands = commands.filter(|command| seen.insert(&command.executable));
    commands.filter_map(|command| missing(&dir, command)).collect()
}

/// Warns for options of responses that go to agents: the contract's message cannot carry them, so agents of other make
/// never learn of them.
pub fn check_extensions(home: &Path, settings: &Settings) -> Vec<Diagnostic> {
    let keys = crate::load::read_file(&home.join("etc/client.keys"), MOST_KEYS).unwrap_or_default();
    // Removed agents are kept with a mark.
    let has_agents = keys.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b' ').nth(1);
        name.is_some_and(|name| !name.is_empty() && !name.starts_with(b"!") && !name.starts_with(b"#"))
    });
    if !has_agents {
        return Vec::new();
    }
    let reaches = |one: &&Response| one.location.local || one.location.defined_agent || one.location.all;
    settings.responses.iter().filter(reaches).filter_map(extension).collect()
}

fn extension(response: &Response) -> Option<Diagnostic> {
    let used: Vec<&str> = [
        ("contract", response.contract != Contract::default()),
        ("repeated_offenders", !response.repeated_offenders.is_empty()),
        ("ports", !response.ports.is_empty()),
        ("cut_connections", response.cut_connections),
    ]
    .into_iter()
    .filter_map(|(name, used)| used.then_some(name))
    .collect();
    if used.is_empty() {
        return None;
    }
    let options = used.join("`, `");
    let message = format!("response `{}`: 4.x agents do not know `{options}`", response.name);
    let help = "agents of ThreatLockDown obey; on others it runs without, or give the options in their own ossec.conf \
        to `threatlockdown-agent responder`";
    let mut warning = Diagnostic::bare(Severity::Warning, response.file.clone(), message).with_help(help);
    warning.line = response.line;
    Some(warning)
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

const MOST_KEYS: u64 = 64 << 20;
