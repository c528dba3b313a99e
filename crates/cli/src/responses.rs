//! `threatlockdown responses`: what is in force on this host, and undoing it now. Works from the journal, also when the service is dead.

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Subcommand;
use tld_model::Timestamp;
use tld_respond::RevertSelector;
use tld_respond::journal::{self, Listed};
use tld_sys::clock::{Clock, SystemClock};

use crate::Home;
use crate::paint::Paint;

const AFTER: &str = "\
Examples:
  threatlockdown responses list
  threatlockdown responses list --json
  sudo threatlockdown responses revert 203.0.113.7
  sudo threatlockdown responses revert --all";

/// List the responses in force, or revert them
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what is in force, with the time left
    List {
        #[command(flatten)]
        home: Home,
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Undo now: one address, or everything. The service must not be running
    Revert {
        #[command(flatten)]
        home: Home,
        /// The address to let in again
        #[arg(required_unless_present = "all")]
        address: Option<IpAddr>,
        /// Undo everything
        #[arg(long, conflicts_with = "address")]
        all: bool,
    },
}

/// Lists or reverts.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    match &options.action {
        Action::List { home, json } => list(home, *json),
        Action::Revert { home, address, all: _ } => revert(home, *address),
    }
}

fn list(home: &Home, json: bool) -> Result<ExitCode> {
    let listed = journal::list(&home.home, 0)
        .with_context(|| format!("cannot read the journal below `{}`", home.home.display()))?;
    if json {
        for one in &listed {
            println!("{}", as_json(one));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let paint = Paint::stdout();
    if listed.is_empty() {
        println!("no response is in force below `{}`", home.home.display());
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{}",
        paint
            .strong(&format!("{:<40} {:<18} {:>9}  {:<6} {}", "TARGET", "RESPONSE", "LEFT", "RULE", "STATE"))
    );
    let now = Timestamp::from_nanos(SystemClock.wall_nanos());
    for one in &listed {
        println!("{}", row(one, now));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(one: &Listed) -> serde_json::Value {
    serde_json::json!({
        "order": one.order.id, "response": one.order.response, "program": one.program, "target": one.order.target,
        "state": one.state.name(), "until": one.until.map(Timestamp::secs), "rule": one.order.rule,
        "alert": one.order.alert_id, "changed": one.changed.secs(), "outcome": one.outcome,
    })
}

fn row(one: &Listed, now: Timestamp) -> String {
    let left =
        one.until.map_or_else(|| "for ever".to_owned(), |until| format!("{} s", until.since(now).as_secs()));
    let rule = one.order.rule.map_or_else(|| "-".to_owned(), |rule| rule.to_string());
    format!(
        "{:<40} {:<18} {left:>9}  {rule:<6} {}",
        one.order.target.to_string(),
        one.order.response,
        one.state.name()
    )
}

fn revert(home: &Home, address: Option<IpAddr>) -> Result<ExitCode> {
    let selector = address.map_or(RevertSelector::All, RevertSelector::Address);
    let log = Arc::new(|line: &str| eprintln!("{line}"));
    let setup = tld_respond::Setup {
        self_hash: tld_respond::self_hash().ok(),
        ..tld_respond::Setup::new(home.home.clone(), Arc::new(SystemClock), log)
    };
    let outcomes = tld_respond::revert_offline(setup, selector)
        .with_context(|| format!("cannot revert below `{}`", home.home.display()))?;
    if outcomes.is_empty() {
        println!("nothing to revert");
    }
    let mut failed = false;
    for outcome in &outcomes {
        failed |= outcome.kind != tld_model::OutcomeKind::Reverted;
        println!("{} {} {}: {}", outcome.kind, outcome.response, outcome.target, outcome.detail);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
