//! `threatlockdown standalone`: manager and endpoint in one process; with `--demo` on made-up logs in a directory of its own.

mod demo;
mod service;
mod split;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

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
    #[arg(long)]
    demo: bool,
    /// Home directory [default: /var/ossec, with --demo a fresh directory]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// This configuration file instead of etc/ossec.conf of the home
    #[arg(long, value_name = "FILE", conflicts_with = "demo")]
    config: Option<PathBuf>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Count by the time in the log lines instead of their arrival, for replays
    #[arg(long)]
    log_time: bool,
    /// Started as root, everything but the responder runs as this user if it exists
    #[arg(long, value_name = "NAME", default_value = "wazuh")]
    user: String,
    /// Name of the nftables table that blocks live in
    #[arg(long, value_name = "NAME", default_value = "threatlockdown", hide = true)]
    table: String,
    /// Journal directory in place of the host's
    #[arg(long, value_name = "DIR", hide = true)]
    journal_directory: Option<PathBuf>,
    /// This process is the unprivileged part; the responder is at the other end of standard input
    #[arg(long, hide = true)]
    behind_responder: bool,
}

/// Chooses between the demo, the two parts of a split service, and the whole in one process.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    if options.demo {
        return demo::run(options);
    }
    if options.behind_responder {
        return split::analysis(&options);
    }
    match split::user(&options.user) {
        Some(user) => split::responder(&options, user),
        None => service::run(&options),
    }
}
