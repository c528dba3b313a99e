//! `threatlockdown standalone`: manager and endpoint in one process; with `--demo` on made-up logs in a directory of its own.

mod demo;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::service::{self, Form, Task};

const AFTER: &str = "\
Examples:
  threatlockdown standalone --demo          a made-up attack, blocked, proven and reverted; ends by itself
  sudo threatlockdown standalone            watch this host's own logs and journal (home: /var/ossec)
  threatlockdown standalone --dry-run       say what would be done, do nothing

Signals: TERM or INT stop the service (blocks stay and are reverted on time by the kernel or the next start);
HUP reads configuration and ruleset anew and keeps the running ones if they have an error.";

/// Watch this host and answer attacks on it, all in one process
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    /// Show an attack on made-up logs: blocked, proven, reverted, in under 30 seconds
    #[arg(long, conflicts_with = "config")]
    demo: bool,
    /// Home directory [default: /var/ossec, with --demo a fresh directory]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Count by the time in the log lines instead of their arrival, for replays
    #[arg(long)]
    log_time: bool,
    #[command(flatten)]
    service: service::Options,
}

/// Chooses between the demo and the real service.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    if options.demo {
        return demo::run(options);
    }
    let home = options.home.unwrap_or_else(|| PathBuf::from(crate::HOME));
    Task { home, form: Form::Standalone { log_time: options.log_time }, options: options.service }.run()
}
