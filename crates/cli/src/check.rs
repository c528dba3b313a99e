//! `threatlockdown check`: would this home start, and what is worth knowing about it? For people and for `ExecStartPre`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tld_xml::{Diagnostic, Severity};

use crate::Home;
use crate::paint::Paint;

const AFTER: &str = "\
Example:
  threatlockdown check --home /var/ossec
  threatlockdown check --config ./ossec.conf --json

Exit status: 0 when the service would start, 1 when it would refuse.";

/// Check configuration, ruleset and response executables
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    #[command(flatten)]
    home: Home,
    /// This configuration file instead of etc/ossec.conf of the home
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Reads everything that a start would read, starts nothing.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let home = &options.home.home;
    let reading = tld_server::load::load(home, options.config.as_deref())
        .with_context(|| format!("cannot check `{}`", home.display()))?;
    let count = |severity| reading.diagnostics.iter().filter(|one| one.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if options.json {
        println!("{}", json(&reading.diagnostics, reading.prepared.is_some()));
    } else {
        show(&reading.diagnostics);
        let paint = Paint::stdout();
        match &reading.prepared {
            Some(prepared) => println!(
                "{} {} rules, {} responses, {} log sources; {warnings} warnings",
                paint.good("ok:"),
                prepared.ruleset.rules().count(),
                prepared.policy.responses().len(),
                prepared.settings.localfiles.len(),
            ),
            None => println!("{} {errors} errors, {warnings} warnings", paint.bad("refused:")),
        }
    }
    Ok(if reading.prepared.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints diagnostics to standard error, errors last so that they stand next to the prompt.
pub(crate) fn show(diagnostics: &[Diagnostic]) {
    let colour = Paint::stderr().colour();
    let (errors, others): (Vec<_>, Vec<_>) =
        diagnostics.iter().partition(|diagnostic| diagnostic.severity == Severity::Error);
    for diagnostic in others.into_iter().chain(errors) {
        eprintln!("{}", diagnostic.render(colour));
    }
}

fn json(diagnostics: &[Diagnostic], good: bool) -> serde_json::Value {
    let list: Vec<_> = diagnostics
        .iter()
        .map(|one| {
            serde_json::json!({
                "severity": one.severity.word(), "code": one.code, "file": &*one.file, "line": one.line,
                "column": one.column, "message": one.message, "help": one.help,
            })
        })
        .collect();
    serde_json::json!({ "ok": good, "diagnostics": list })
}
