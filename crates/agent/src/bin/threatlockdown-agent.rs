//! The command `threatlockdown-agent`: what an endpoint runs, without any server code.

#![expect(clippy::print_stderr, reason = "a command talks to people")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tld_agent::{multicall, responder, service};

#[derive(Debug, Parser)]
#[command(
    name = "threatlockdown-agent",
    version,
    about = "Watches this host for a manager and carries out its responses"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be this host's agent: collect logs, send them to the manager, carry out its orders
    Run(service::Options),
    /// Take requests on the socket of the 4.x execution daemon and carry them out
    Responder(responder::Options),
}

fn main() -> ExitCode {
    if let Some(code) = multicall::as_response() {
        return code;
    }
    let result: Result<(), Box<dyn std::error::Error>> = match Arguments::parse().command {
        Command::Run(options) => service::run(&options).map_err(Into::into),
        Command::Responder(options) => responder::run(&options).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", responder::explain(&*error));
            ExitCode::FAILURE
        }
    }
}
