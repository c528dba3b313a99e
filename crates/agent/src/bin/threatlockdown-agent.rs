//! The command `threatlockdown-agent`: what an endpoint runs, without any server code.

#![expect(clippy::print_stderr, reason = "a command talks to people")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tld_agent::{multicall, responder};

#[derive(Debug, Parser)]
#[command(name = "threatlockdown-agent", version, about = "Carries out responses on this host")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take requests on the socket of the 4.x execution daemon and carry them out
    Responder(responder::Options),
}

fn main() -> ExitCode {
    if let Some(code) = multicall::as_response() {
        return code;
    }
    let Command::Responder(options) = Arguments::parse().command;
    match responder::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", responder::explain(&error));
            ExitCode::FAILURE
        }
    }
}
