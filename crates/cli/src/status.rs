//! `threatlockdown status`: does a service run in this home, and with what? For people, scripts and `wazuh-control`.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use tld_server::presence::{self, Report};

use crate::Home;
use crate::paint::Paint;

/// A manager that answers does so at once.
const PATIENCE: Duration = Duration::from_secs(3);

const AFTER: &str = "\
Examples:
  threatlockdown status
  threatlockdown status --home /srv/ossec --pid
  threatlockdown status --json          with a manager's counters: messages, what waits, what was turned away

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
    /// Print one line of JSON
    #[arg(long, conflicts_with = "pid")]
    json: bool,
    /// A service that is still starting does not count
    #[arg(long)]
    ready: bool,
}

/// Looks and tells.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let home = &options.home.home;
    let paint = Paint::stdout();
    let report = Report::read(home);
    let serving = presence::serving(home)?;
    if options.json {
        println!("{}", told(home, serving, report.as_ref()));
    }
    let Some(process) = serving else {
        if !options.pid && !options.json {
            println!("{} no service runs in `{}`", paint.warn("stopped:"), home.display());
        }
        return Ok(ExitCode::FAILURE);
    };
    match (options.pid, report) {
        _ if options.json => {}
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

/// The state as JSON; `manager` is null where no manager answers.
fn told(home: &Path, process: Option<u32>, report: Option<&Report>) -> serde_json::Value {
    let state = match (process, report) {
        (None, _) => "stopped",
        (Some(_), None) => "starting",
        (Some(_), Some(_)) => "running",
    };
    let report = report.filter(|_| process.is_some());
    serde_json::json!({
        "state": state,
        "pid": process,
        "rules": report.map(|report| report.rules),
        "responses": report.map(|report| report.responses),
        "last_reload_in_force": report.map(|report| report.in_force),
        "takes_restart": report.map(|report| &report.restart),
        "manager": process.and_then(|_| counters(home).ok()),
    })
}

/// What a manager counts.
fn counters(home: &Path) -> io::Result<serde_json::Value> {
    let mut socket = UnixStream::connect(home.join("queue/sockets/remote"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let request =
        tld_wire::frame::encode(b"{\"version\":1,\"command\":\"getstats\"}").map_err(io::Error::other)?;
    socket.write_all(&request)?;
    let mut head = [0; 4];
    socket.read_exact(&mut head)?;
    let length = u32::from_le_bytes(head) as usize;
    if length > tld_wire::frame::LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    socket.read_exact(&mut text)?;
    let mut answer: serde_json::Value = serde_json::from_slice(&text)?;
    answer.pointer_mut("/data/metrics").map(serde_json::Value::take).ok_or(io::ErrorKind::InvalidData.into())
}
