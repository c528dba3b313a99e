//! The command `threatlockdown`: everything an operator runs. Each subcommand is one file; this one only chooses.
//!
//! Started under the name of a response (`active-response/bin/firewall-drop`), the same file is that response.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this room talks to people")]

mod agent;
mod agents;
mod check;
mod input;
mod logtest;
mod manager;
mod orders;
mod paint;
mod reload;
mod responder;
mod responses;
mod service;
mod simulate;
mod standalone;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

const AFTER: &str = "\
Examples:
  threatlockdown standalone --demo         see a made-up attack blocked and reverted
  threatlockdown check --home /var/ossec   is the configuration good? exit status 0 or 1
  sudo threatlockdown standalone           watch this host until stopped
  sudo threatlockdown manager              the same for this host and all agents that enrol";

#[derive(Debug, Parser)]
#[command(name = "threatlockdown", version, about = "Watches hosts and answers attacks", after_help = AFTER)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this host and answer attacks on it, all in one process
    Standalone(standalone::Options),
    /// Watch this host and take in agents: enrol them, judge their events, send them responses
    Manager(manager::Options),
    /// Be an agent of a manager: collect and send logs, carry out its orders
    Agent(agent::Options),
    /// Check configuration, ruleset and response executables
    Check(check::Options),
    /// Change a running service to the rules and responses as they are now
    Reload(reload::Options),
    /// Tell whether a service runs in a home
    Status(status::Options),
    /// Show what log lines become, and why
    Logtest(logtest::Options),
    /// Replay logs: which alerts and responses would they have caused?
    Simulate(simulate::Options),
    /// Take requests in place of the 4.x execution daemon and carry them out
    Responder(responder::Options),
    /// List the responses in force, or revert them
    Responses(responses::Options),
    /// List the manager's agents, add and remove them, hand out their keys
    Agents(agents::Options),
}

/// Home directory unless another one is chosen.
const HOME: &str = "/var/ossec";

/// The installation that a command works on.
#[derive(Debug, Clone, clap::Args)]
struct Home {
    /// Home directory of the installation
    #[arg(long, value_name = "DIR", default_value = "/var/ossec")]
    home: PathBuf,
}

fn main() -> ExitCode {
    if let Some(code) = tld_agent::multicall::as_response() {
        return code;
    }
    let result = match Arguments::parse().command {
        Command::Standalone(options) => standalone::run(options),
        Command::Manager(options) => manager::run(options),
        Command::Agent(options) => agent::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Reload(options) => reload::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Logtest(options) => logtest::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Responder(options) => responder::run(&options),
        Command::Responses(options) => responses::run(&options),
        Command::Agents(options) => agents::run(options),
    };
    result.unwrap_or_else(|error| {
        let said = tld_agent::responder::explain(&*error);
        eprintln!("{} {said}", paint::Paint::stderr().bad("error:"));
        ExitCode::FAILURE
    })
}
