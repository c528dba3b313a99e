//! `threatlockdown responder`: the drop-in for the 4.x execution daemon, the same service that the endpoint's binary offers.

use std::process::ExitCode;

use anyhow::Result;
pub(crate) use tld_agent::responder::Options;

/// Serves until told to stop.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    tld_agent::responder::run(options)?;
    Ok(ExitCode::SUCCESS)
}
