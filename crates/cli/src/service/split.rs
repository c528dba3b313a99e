//! Least privilege: started as root, this process stays the responder (small, no log text parsed) and starts the rest as another
//! user. The two talk over one socket, the child's standard input. If either ends, the other does too.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;

use anyhow::{Context, Result};
use tld_respond::Responder;
use tld_respond::carrier::socket::{self, SocketCarrier};
use tld_server::presence::{Presence, REPORT_FOLDER};
use tld_server::registry::MANAGER_FOLDER;
use tld_sys::part;
use tld_sys::service_user::ServiceUser;
use tld_sys::signal::termination;

use super::{Form, Ground, Task};

/// What the analysis writes.
const WRITTEN: [&str; 13] = [
    "logs",
    "logs/alerts",
    "logs/archives",
    "queue/fts",
    "queue/diff",
    "queue/logcollector",
    "queue/rids",
    "queue/sockets",
    "queue/alerts",
    "etc/shared",
    "var/multigroups",
    MANAGER_FOLDER,
    REPORT_FOLDER,
];
/// Both write to it.
const LOG: &str = "logs/ossec.log";
/// What it only reads; executables and journal stay root's.
const READ: [&str; 13] = [
    "",
    "etc",
    "etc/ossec.conf",
    "etc/decoders",
    "etc/rules",
    "etc/lists",
    "ruleset",
    "ruleset/decoders",
    "ruleset/rules",
    "active-response",
    "active-response/bin",
    "queue",
    "logs/active-responses.log",
];

/// The privileged part: responder, and keeper of the other part.
pub(super) fn responder(task: &Task, user: ServiceUser) -> Result<ExitCode> {
    let signals = termination().context("cannot take over the signals")?;
    let (home, options) = (task.home.clone(), &task.options);
    tld_server::home::prepare(&home, tld_config::DEFAULT_OSSEC_CONF)?;
    hand_over(&home, user)?;
    if task.form == Form::Manager {
        // Keys, certificate and dates are replaced whole, and other installations may have closed the directories.
        user.open(&home, &["etc", "queue"])?;
    }
    let _presence = Presence::take(&home)?;
    let ground = Ground::of(&home, true);
    let Some(prepared) = super::read(&home, options)? else { return Ok(ExitCode::FAILURE) };
    let (near, far) = socket::pair().context("cannot make the socket to the analysis")?;
    let (sender, outcomes) = channel();
    let responder = Responder::start(super::responder_setup(&ground, options, &prepared), sender)
        .context("cannot start the responder")?;
    let responder = Arc::new(responder);
    let log = ground.log.clone();
    let log = Arc::new(move |line: &str| log.warning(line));
    let _serving =
        socket::serve(near, Arc::clone(&responder), outcomes, log).context("cannot serve the socket")?;
    let mut analysis = part::start(far).context("cannot start the unprivileged part")?;
    let ended = analysis.attend(&signals).context("cannot watch the unprivileged part")?;
    if !ended.well() {
        let status = ended.status;
        ground
            .log
            .error(&format!("the analysis ended ({status}): stopping; blocks stay and are reverted on time"));
    }
    if let Some(responder) = Arc::into_inner(responder) {
        responder.stop();
    }
    Ok(if ended.well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn hand_over(home: &Path, user: ServiceUser) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["ruleset/decoders", "ruleset/rules"] {
        for file in std::fs::read_dir(home.join(folder)).into_iter().flatten().flatten() {
            files.push(format!("{folder}/{}", file.file_name().to_string_lossy()));
        }
    }
    user.give(home, LOG, WRITTEN, READ.into_iter().chain(files.iter().map(String::as_str)))?;
    Ok(())
}

/// The unprivileged part: everything that reads what attackers wrote.
pub(super) fn analysis(task: &Task) -> Result<ExitCode> {
    let signals = termination().context("cannot take over the signals")?;
    let options = &task.options;
    let socket = part::socket().context("standard input is not the responder's socket")?;
    if let Some(user) = ServiceUser::named(&options.user) {
        user.become_it().context("cannot become the service user")?;
    }
    part::end_with_parent().context("cannot bind our life to the responder's")?;
    let ground = Ground::of(&task.home, true);
    let Some(prepared) = super::read(&ground.home, options)? else { return Ok(ExitCode::FAILURE) };
    let (sender, outcomes) = channel();
    let log = ground.log.clone();
    let carrier = SocketCarrier::new(socket, sender, Arc::new(move |line: &str| log.warning(line)))
        .context("cannot use the responder's socket")?;
    let service = super::start(&ground, task, prepared.clone(), Box::new(carrier))?;
    let _reporter = super::report(outcomes, ground.log.clone(), service.fleet());
    super::wait(&signals, &ground, options, &service, prepared);
    let counts = service.stop();
    ground.log.info(&format!(
        "stopped: {} events, {} alerts, {} responses sent; blocks stay and are reverted on time",
        counts.events, counts.alerts, counts.orders
    ));
    Ok(ExitCode::SUCCESS)
}
