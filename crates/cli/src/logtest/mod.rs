//! `threatlockdown logtest`: what does a line become, and why? Line by line for people, as JSON for programs.
//!
//! For people the form is the one operators know (analysis-output 6.3): everything but the prompt goes to standard error.
//! Invariant: nothing is written, neither in a home nor elsewhere; memory of earlier lines lives in this process.

mod batch;
mod passage;
mod phases;
mod unit;
mod why;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use tld_model::{Event, RuleId, Timestamp, Zone};
use tld_rules::{Analyzer, Ruleset};
use tld_sys::clock::{Clock, SystemClock};
use tld_xml::Severity;

use crate::check;
use crate::input::{self, Input, Line};
use crate::paint::Paint;

use passage::Passages;
use unit::Expectation;

const AFTER: &str = "\
Examples:
  threatlockdown logtest                            lines you type or paste
  threatlockdown logtest --home /var/ossec --trace  by that installation's rules
  threatlockdown logtest --why 5712 < auth.log      why does rule 5712 not win?
  threatlockdown logtest --json < auth.log          one JSON object for each line
  threatlockdown logtest -U 5710:5:sshd < line      exit status 0 if it is so

Without --home the ruleset of this binary is used. A home is only read.
With --json an empty line starts a session in which no earlier line is known;
otherwise empty lines are skipped and the session lasts until the end.";

/// Show what log lines become: fields, rule, alert, and the reasons
#[derive(Debug, clap::Args)]
#[command(version, after_help = AFTER)]
pub(crate) struct Options {
    /// Configuration and ruleset of this installation instead of the shipped ones
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// This configuration file instead of etc/ossec.conf of the home
    #[arg(long, value_name = "FILE", requires = "home")]
    config: Option<PathBuf>,
    /// One JSON object for each line, on standard output
    #[arg(long)]
    json: bool,
    /// Where the lines are said to come from
    #[arg(short, long, value_name = "TEXT", default_value = "stdin")]
    location: String,
    /// Explain the result: decoders and rules tried, the condition that failed, file and line
    #[arg(short = 'd', long, visible_alias = "debug", conflicts_with = "json")]
    trace: bool,
    /// Explain why this rule did not win
    #[arg(long, value_name = "RULE", conflicts_with = "json")]
    why: Option<RuleId>,
    /// Compare each result; the exit status tells of the last one
    #[arg(short = 'U', long = "unit-test", value_name = "RULE:LEVEL:DECODER")]
    unit_test: Option<Expectation>,
    /// No phases, only errors and results of unit tests
    #[arg(short, long, conflicts_with_all = ["json", "verbose", "trace", "why"])]
    quiet: bool,
    /// Every rule tried, and all warnings about the ruleset
    #[arg(short, long)]
    verbose: bool,
}

/// A set of rules and what was said when it was loaded.
struct Rules {
    ruleset: Arc<Ruleset>,
    passages: Passages,
}

/// Judges lines until standard input ends. A reader of our output that goes away ends us quietly.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let Some(rules) = load(options)? else { return Ok(ExitCode::FAILURE) };
    let tester = Tester { options, rules: &rules, analyzer: fresh(&rules.ruleset) };
    let result = if options.json { tester.batch() } else { tester.talk() };
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => result.context("cannot go on"),
    }
}

/// Reads the ruleset and shows its problems: errors always, warnings where somebody wants them.
fn load(options: &Options) -> Result<Option<Rules>> {
    let (ruleset, diagnostics, passages) = match &options.home {
        Some(home) => {
            let reading = tld_server::load::load(home, options.config.as_deref())
                .with_context(|| format!("cannot test with home `{}`", home.display()))?;
            let ruleset = reading.prepared.map(|prepared| prepared.ruleset);
            (ruleset, reading.diagnostics, Passages::of_home(home.clone()))
        }
        None => {
            let (loaded, passages) = shipped();
            (loaded.ruleset, loaded.diagnostics, passages)
        }
    };
    let (errors, others): (Vec<_>, Vec<_>) =
        diagnostics.into_iter().partition(|one| one.severity == Severity::Error);
    let warnings = others.iter().filter(|one| one.severity == Severity::Warning).count();
    if options.verbose {
        check::show(&others);
    } else if warnings > 0 && !options.json && !options.quiet {
        let text = format!("{warnings} warnings about this home; `-v` or `threatlockdown check` shows them");
        say(&format!("{}\n", Paint::stderr().dim(&text)))?;
    }
    check::show(&errors);
    if ruleset.is_none() {
        say("nothing is tested; mend the errors above and try again\n")?;
    }
    Ok(ruleset.map(|ruleset| Rules { ruleset, passages }))
}

/// The ruleset of this binary under the settings of a new installation.
fn shipped() -> (tld_rules::Loaded, Passages) {
    let source = tld_xml::Source::new("ossec.conf", tld_config::DEFAULT_OSSEC_CONF.as_bytes());
    let settings = tld_config::parse(&source, tld_config::Role::Standalone).settings;
    let options = tld_rules::Options {
        log_alert_level: settings.alerts.log_alert_level,
        email_alert_level: settings.alerts.email_alert_level,
        ..tld_rules::Options::default()
    };
    let (decoders, rules) = tld_server::shipped::texts();
    let loaded = Ruleset::load(&decoders, &rules, &[], &options);
    (loaded, Passages::of_sources(decoders.into_iter().chain(rules)))
}

/// A session without memory.
fn fresh(ruleset: &Arc<Ruleset>) -> Analyzer {
    Analyzer::new(Arc::clone(ruleset), tld_server::logtest::settings(Zone::system()))
}

/// Writes to standard error in one piece.
fn say(text: &str) -> io::Result<()> {
    io::stderr().lock().write_all(text.as_bytes())
}

struct Tester<'o> {
    options: &'o Options,
    rules: &'o Rules,
    analyzer: Analyzer,
}

impl Tester<'_> {
    fn event(&self, text: Vec<u8>) -> Event {
        Event::local(&self.options.location, text, Timestamp::from_nanos(SystemClock.wall_nanos()))
    }

    /// One object for each line, written at once.
    fn batch(mut self) -> io::Result<ExitCode> {
        let mut input = Input::of_process();
        let mut status = unit::Status::new(self.options.unit_test.as_ref());
        while let Some(line) = input.next()? {
            let text = match line {
                Line::Whole(text) if text.is_empty() => {
                    self.analyzer = fresh(&self.rules.ruleset);
                    continue;
                }
                Line::Whole(text) => text,
                Line::Cut(text) => {
                    say(&cut_note())?;
                    text
                }
            };
            let event = self.event(text);
            let verdict = self.analyzer.analyze(&event);
            status.compare(&verdict);
            let object = batch::object(&self.analyzer, &verdict)?;
            let mut out = io::stdout().lock();
            out.write_all(&object)?;
            out.flush()?;
        }
        Ok(status.exit_code())
    }

    /// Phases for people.
    fn talk(mut self) -> io::Result<ExitCode> {
        let (options, paint) = (self.options, Paint::stderr());
        let mut input = Input::of_process();
        let mut status = unit::Status::new(options.unit_test.as_ref());
        if !options.quiet {
            let rules = self.rules.ruleset.counts().rules;
            let origin = options.home.as_ref().map_or_else(
                || "the shipped ruleset".to_owned(),
                |home| format!("the ruleset of `{}`", home.display()),
            );
            let version = env!("CARGO_PKG_VERSION");
            say(&format!(
                "Starting threatlockdown logtest {version}: {rules} rules, {origin}\nType one log per line\n"
            ))?;
        }
        loop {
            if !options.quiet {
                let mut out = io::stdout().lock();
                out.write_all(b"\n")?;
                out.flush()?;
            }
            let text = match input.next()? {
                None => break,
                Some(Line::Whole(text)) if text.is_empty() => continue,
                Some(Line::Whole(text)) => text,
                Some(Line::Cut(text)) => {
                    say(&cut_note())?;
                    text
                }
            };
            let shown = self.judge(text, &mut status, paint)?;
            say(&shown)?;
        }
        if options.trace {
            say(&why::silences(&self.analyzer, paint))?;
        }
        Ok(status.exit_code())
    }

    /// Everything to be said about one line.
    fn judge(&mut self, text: Vec<u8>, status: &mut unit::Status<'_>, paint: Paint) -> io::Result<String> {
        let options = self.options;
        let event = self.event(text);
        let (verdict, trace) = self.analyzer.analyze_traced(&event);
        let mut out = String::new();
        if !options.quiet {
            let debug =
                options.verbose.then(|| tld_server::logtest::rules_debug(&self.rules.ruleset, &trace));
            out.push_str(&phases::text(&self.analyzer, &verdict, debug.as_deref(), paint)?);
            let view = why::View {
                ruleset: &self.rules.ruleset,
                passages: &self.rules.passages,
                verdict: &verdict,
                trace: &trace,
                paint,
                everything: options.verbose,
            };
            if options.trace {
                out.push_str(&view.explanation());
            }
            if let Some(rule) = options.why {
                out.push_str(&view.why_not(rule));
            }
        }
        if let Some(result) = status.compare(&verdict) {
            let lead = if options.quiet { "" } else { "\n" };
            out.push_str(&format!("{lead}{result}\n"));
        }
        Ok(out)
    }
}

fn cut_note() -> String {
    format!("a line of more than {} bytes was cut\n", input::LIMIT)
}

/// Text from a log line or a rule file, harmless to a terminal.
pub(crate) fn printable(text: &str) -> String {
    let plain = |c: char| c == '\t' || !c.is_control();
    if text.chars().all(plain) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if plain(c) { vec![c] } else { c.escape_default().collect() }).collect()
}
