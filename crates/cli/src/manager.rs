//! `threatlockdown manager`: this host, and agents on others.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::service::{self, Form, Task};

const AFTER: &str = "\
Examples:
  sudo threatlockdown manager                     serve the agents of /var/ossec in the foreground
  sudo systemctl start wazuh-manager              the same as a service
  threatlockdown agents list                      who is connected

Ports and protocols are chosen in etc/ossec.conf, <remote> (1514) and <auth> (1515).
Signals: TERM or INT stop the service (blocks stay and are reverted on time by the kernel or the next start);
HUP reads configuration and ruleset anew and keeps the running ones if they have an error.";

/// Watch this host and take in agents: enrol them, judge their events, send them responses
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    /// Home directory of the installation
    #[arg(long, value_name = "DIR", default_value = crate::HOME)]
    home: PathBuf,
    #[command(flatten)]
    service: service::Options,
}

/// Serves until it is told to stop.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    Task { home: options.home, form: Form::Manager, options: options.service }.run()
}
