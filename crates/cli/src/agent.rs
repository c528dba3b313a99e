//! `threatlockdown agent`: this host's agent, the same service that the endpoint's binary offers.

use std::process::ExitCode;

use anyhow::Result;
pub(crate) use tld_agent::service::Options;

/// Serves until told to stop.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    tld_agent::service::run(options)?;
    Ok(ExitCode::SUCCESS)
}
