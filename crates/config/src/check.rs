//! What only the file system can tell about a configuration.

use std::collections::HashSet;
use std::path::Path;

use tld_xml::{Diagnostic, Severity};

use crate::executable::{ResolveError, resolve};
use crate::settings::Settings;

/// Warns for commands whose executable is not in `active-response/bin`.
///
/// Only commands of responses that may run on this host are looked up: the shipped configuration defines
/// commands for other systems, and what runs on agents need not exist on the server.
pub fn check_executables(home: &Path, settings: &Settings) -> Vec<Diagnostic> {
    let dir = home.join("active-response/bin");
    let mut seen = HashSet::new();
    let mut warnings = Vec::new();
    let here = settings.responses.iter().filter(|r| r.location.server || r.location.local);
    for response in here.filter(|r| seen.insert(&r.executable)) {
        let Err(error) = resolve(&dir, &response.executable) else { continue };
        let help = match &error {
            ResolveError::NotFound { .. } => "put the file there with mode 750, or correct `executable`",
            ResolveError::Ambiguous { .. } => "write the file name with its extension",
            ResolveError::Name { .. } | ResolveError::Read { .. } => "see the `executable` of the command",
        };
        let command = settings.commands.iter().find(|c| c.name == response.command);
        let (file, line) = command.map_or((&response.file, response.line), |c| (&c.file, c.line));
        let message = format!("command `{}`: {error}", response.command);
        let mut warning = Diagnostic::bare(Severity::Warning, file.clone(), message).with_help(help);
        warning.line = line;
        warnings.push(warning);
    }
    warnings
}
