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
  threatlockdown check --verbose                     each warning in full, not only the first of each kind
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
    /// Each warning in full; otherwise many of one kind are summed up
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
}

/// So many problems of one kind are each shown in full.
const FEW: usize = 3;
/// So many further places of a kind are named.
const PLACES: usize = 5;

/// Reads everything that a start would read, starts nothing.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let home = &options.home.home;
    let reading = tld_server::load::foresee(home, options.config.as_deref())
        .with_context(|| format!("cannot check `{}`", home.display()))?;
    let count = |severity| reading.diagnostics.iter().filter(|one| one.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if options.json {
        println!("{}", json(&reading.diagnostics, reading.prepared.is_some()));
    } else {
        if options.verbose {
            show(&reading.diagnostics);
        } else {
            show_kinds(&reading.diagnostics);
        }
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

/// Like [`show`], with many warnings of one kind summed up under the first of them. Errors are all shown: each is to be mended.
fn show_kinds(diagnostics: &[Diagnostic]) {
    let colour = Paint::stderr().colour();
    let (errors, others): (Vec<_>, Vec<_>) =
        diagnostics.iter().partition(|diagnostic| diagnostic.severity == Severity::Error);
    let mut kinds: Vec<(String, Vec<&Diagnostic>)> = Vec::new();
    for one in others {
        let kind = kind(one);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, list)) => list.push(one),
            None => kinds.push((kind, vec![one])),
        }
    }
    for (_, list) in &kinds {
        let shown = if list.len() > FEW { 1 } else { list.len() };
        let (shown, rest) = list.split_at(shown);
        for one in shown {
            eprintln!("{}", one.render(colour));
        }
        if !rest.is_empty() {
            eprintln!("  = and {} more like this: {} (--verbose shows them)", rest.len(), places(rest));
        }
    }
    for one in errors {
        eprintln!("{}", one.render(colour));
    }
}

/// The message without what it is about: numbers and quoted text.
fn kind(diagnostic: &Diagnostic) -> String {
    let mut quoted = false;
    let message = diagnostic.message.chars().filter(|character| {
        quoted ^= *character == '`';
        !quoted && !character.is_ascii_digit()
    });
    format!("{} {}", diagnostic.severity.word(), message.collect::<String>())
}

/// `a.xml:8, 12, 30, b.xml:5, …`
fn places(diagnostics: &[&Diagnostic]) -> String {
    let mut text = String::new();
    let mut file = "";
    for one in diagnostics.iter().take(PLACES) {
        let separator = if text.is_empty() { "" } else { ", " };
        if *one.file == *file {
            text.push_str(&format!("{separator}{}", one.line));
        } else {
            text.push_str(&format!("{separator}{}:{}", printable(&one.file), one.line));
            file = &one.file;
        }
    }
    if diagnostics.len() > PLACES {
        text.push_str(", …");
    }
    text
}

/// A file's name comes from the file system and may hold anything.
fn printable(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
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
