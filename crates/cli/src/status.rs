//! `threatlockdown status`: does a service run in this home, and with what? For people, scripts and `wazuh-control`.

use std::process::ExitCode;

use anyhow::Result;
use tld_server::presence::{self, Report};

use crate::Home;
use crate::paint::Paint;

const AFTER: &str = "\
Examples:
  threatlockdown status
  threatlockdown status --home /srv/ossec --pid

Exit status: 0 when a service runs (with --ready: and has finished starting), otherwise 1.";

/// Tell whether a service runs in a home
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    #[command(flatten)]
    home: Home,
    /// Print the process id alone
    #[arg(long)]
    pid: bool,
    /// A service that is still starting does not count
    #[arg(long)]
    ready: bool,
}

/// Looks and tells.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let home = &options.home.home;
    let paint = Paint::stdout();
    let report = Report::read(home);
    let Some(process) = presence::serving(home)? else {
        if !options.pid {
            println!("{} no service runs in `{}`", paint.warn("stopped:"), home.display());
        }
        return Ok(ExitCode::FAILURE);
    };
    match (options.pid, report) {
        (true, _) => println!("{process}"),
        (false, None) => println!("{} process {process}", paint.warn("starting:")),
        (false, Some(ref report)) => {
            let rules = format!("{} rules, {} responses", report.rules, report.responses);
            println!("{} process {process}, {rules}", paint.good("running:"));
            if !report.in_force {
                println!("  the last reload was refused: see `{}`", home.join("logs/ossec.log").display());
            }
        }
    }
    let starting = options.ready && Report::read(home).is_none();
    Ok(if starting { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
