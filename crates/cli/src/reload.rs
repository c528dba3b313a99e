//! `threatlockdown reload`: check first, then change the running service over, then tell what changed.
//!
//! Invariant: with an error in any file nothing is sent to the service, and exit status 0 means that the service judges every
//! following event by the files as they are now.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tld_server::presence::{self, Report, Rules};
use tld_sys::clock::Deadline;
use tld_sys::durable;
use tld_sys::signal::{self, Signal};
use tld_xml::Severity;

use crate::Home;
use crate::check;
use crate::paint::Paint;

/// A large ruleset loads in a second or two; a busy host may need longer.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

const AFTER: &str = "\
Examples:
  sudo threatlockdown reload
  sudo threatlockdown reload --home /srv/ossec

Decoders, rules, lists, commands, responses and the allow list change; no event is lost and what was counted stays counted.
Log sources, outputs, <remote> and <auth> take a restart. Exit status: 0 when the new rules are in force, 1 when the ones before still are.";

/// Change a running service to the rules and responses as they are now
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    #[command(flatten)]
    home: Home,
    /// The configuration file that the service was started with, if not etc/ossec.conf of the home
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Checks, signals, waits for the answer.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let home = &options.home.home;
    let paint = Paint::stdout();
    if !good(options)? {
        println!("{} the running rules stay; mend the errors above", paint.bad("refused:"));
        return Ok(ExitCode::FAILURE);
    }
    // One reload at a time: an answer must not be taken for that of another request.
    let turn = home.join("var/threatlockdown/reload.lock");
    let Some(service) = presence::serving(home)? else {
        bail!("no service runs in `{}`", home.display());
    };
    let _turn =
        durable::lock_exclusive(&turn).with_context(|| format!("cannot lock `{}`", turn.display()))?;
    let report = ask(home, service)?;
    if !report.in_force {
        println!(
            "{} the service keeps its running rules; the reason is in `{}`",
            paint.bad("refused:"),
            home.join("logs/ossec.log").display()
        );
        return Ok(ExitCode::FAILURE);
    }
    println!("{} {} rules, {} responses", paint.good("reloaded:"), report.rules, report.responses);
    for (word, rules) in [("new", &report.added), ("gone", &report.removed), ("changed", &report.changed)] {
        if rules.count > 0 {
            println!("  {} {word}: {}", rules.count, named(rules));
        }
    }
    for part in &report.restart {
        println!("  {part} changed: this takes a restart");
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows errors in full and counts the rest, which `check` shows.
fn good(options: &Options) -> Result<bool> {
    let home = &options.home.home;
    let reading = tld_server::load::load(home, options.config.as_deref())
        .with_context(|| format!("cannot check `{}`", home.display()))?;
    let (errors, others): (Vec<_>, Vec<_>) =
        reading.diagnostics.into_iter().partition(|one| one.severity == Severity::Error);
    check::show(&errors);
    if !others.is_empty() && errors.is_empty() {
        println!("{} warnings; `threatlockdown check` shows them", others.len());
    }
    Ok(reading.prepared.is_some())
}

/// Signals the service and waits for its report.
fn ask(home: &Path, service: u32) -> Result<Report> {
    let deadline = Deadline::after(PATIENCE);
    let before = report(home, &deadline, |_| true)?.attempt;
    if !is_threatlockdown(service) {
        bail!("process {service} is not a ThreatLockDown service");
    }
    signal::send(service, Signal::Hangup).with_context(|| format!("cannot signal process {service}"))?;
    report(home, &deadline, |report| report.attempt > before)
}

/// The service's report as soon as it is the wanted one.
fn report(home: &Path, deadline: &Deadline, wanted: impl Fn(&Report) -> bool) -> Result<Report> {
    loop {
        if let Some(report) = Report::read(home).filter(&wanted) {
            return Ok(report);
        }
        if presence::serving(home)?.is_none() {
            bail!("the service ended; see `{}`", home.join("logs/ossec.log").display());
        }
        if deadline.passed() {
            bail!("the service does not answer; see `{}`", home.join("logs/ossec.log").display());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The process runs a file of our name, also one that an update has replaced since.
fn is_threatlockdown(process: u32) -> bool {
    let name = |path: PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some(name.trim_end_matches(" (deleted)").to_owned())
    };
    let theirs = std::fs::read_link(format!("/proc/{process}/exe")).ok().and_then(name);
    theirs.is_some() && theirs == std::env::current_exe().ok().and_then(name)
}

fn named(rules: &Rules) -> String {
    let mut names: Vec<_> = rules.first.iter().map(u32::to_string).collect();
    if rules.count > names.len() {
        names.push("…".to_owned());
    }
    names.join(", ")
}
