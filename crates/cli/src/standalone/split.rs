//! Least privilege: started as root, this process stays the responder (small, no log text parsed) and starts the rest as another
//! user. The two talk over one socket, the child's standard input. If either ends, the other does too.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use tld_respond::Responder;
use tld_respond::carrier::socket;
use tld_sys::signal::{Signal, Signals};

use super::service::{self, Ground};
use super::{Options, service::home};

/// Ids of the user that the unprivileged part runs as.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

/// The user to split to; none when there is nothing to drop or nobody to become.
pub(super) fn user(name: &str) -> Option<User> {
    if !tld_sys::privilege::is_root() {
        return None;
    }
    tld_sys::privilege::user(name).map(|(uid, gid)| User { uid, gid })
}

/// The privileged part: responder, and keeper of the other part.
pub(super) fn responder(options: Options, user: User) -> Result<ExitCode> {
    let signals = Signals::take().context("cannot take over the signals")?;
    let home = home(&options);
    tld_server::home::prepare(&home, tld_config::DEFAULT_OSSEC_CONF)?;
    hand_over(&home, user)?;
    let ground = Ground::of(&home, true);
    let Some(prepared) = service::read(&home, &options)? else { return Ok(ExitCode::FAILURE) };
    let (near, far) = tld_sys::unix_socket::pair().context("cannot make the socket to the analysis")?;
    let mut child = tld_sys::child::spawn_self(behind_arguments(), far, Some((user.uid, user.gid)))
        .context("cannot start the unprivileged part")?;
    let (sender, outcomes) = std::sync::mpsc::channel();
    let responder = Responder::start(service::responder_setup(&ground, &options, &prepared), sender)
        .context("cannot start the responder")?;
    let serving = socket::serve(near, &responder, outcomes).context("cannot serve the socket")?;
    loop {
        match signals.wait(Duration::from_millis(200)) {
            Some(Signal::Hangup) => child.signal_hangup(),
            Some(_) => {
                child.signal_terminate();
                let _ = child.wait_deadline(Duration::from_secs(20));
                break;
            }
            None => {}
        }
        if let Some(status) = child.try_wait().context("cannot watch the unprivileged part")? {
            ground.log.error(&format!("the analysis ended ({status}): stopping; blocks stay and are reverted on time"));
            responder.stop();
            return Ok(ExitCode::FAILURE);
        }
    }
    responder.stop();
    drop(serving);
    Ok(ExitCode::SUCCESS)
}

/// Our own arguments again, marked.
fn behind_arguments() -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    arguments.push("--behind-responder".into());
    arguments
}

/// The parts of the home that the analysis writes belong to its user; executables and configuration stay root's.
fn hand_over(home: &Path, user: User) -> Result<()> {
    for folder in ["logs", "logs/alerts", "logs/archives", "queue/fts", "queue/diff", "queue/logcollector"] {
        tld_sys::privilege::give(&home.join(folder), user.uid, user.gid)
            .with_context(|| format!("cannot give `{folder}` to the service user"))?;
    }
    for shared in ["", "etc", "ruleset", "active-response", "active-response/bin", "queue", "var/threatlockdown"] {
        tld_sys::privilege::give_group(&home.join(shared), user.gid)
            .with_context(|| format!("cannot open `{shared}` to the service user"))?;
    }
    Ok(())
}

/// The unprivileged part: everything that reads what attackers wrote.
pub(super) fn analysis(options: Options) -> Result<ExitCode> {
    let signals = Signals::take().context("cannot take over the signals")?;
    let ground = Ground::of(&home(&options), true);
    let socket = tld_sys::unix_socket::from_stdin().context("standard input is not the responder's socket")?;
    let Some(prepared) = service::read(&ground.home, &options)? else { return Ok(ExitCode::FAILURE) };
    let (carrier, outcomes) = socket::connect(socket).context("cannot use the responder's socket")?;
    let reporter = service::report(outcomes, ground.log.clone());
    let service = service::start(&ground, &options, prepared, Box::new(carrier))?;
    service::wait(&signals, &ground, &options, &service);
    let counts = service.stop();
    ground.log.info(&format!("stopped: {} events, {} alerts, {} responses sent", counts.events, counts.alerts, counts.orders));
    drop(reporter);
    Ok(ExitCode::SUCCESS)
}
