//! Least privilege: started as root, this process stays the responder (small, no log text parsed) and starts the rest as another
//! user. The two talk over one socket, the child's standard input. If either ends, the other does too.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result};
use tld_respond::Responder;
use tld_respond::carrier::socket::{self, SocketCarrier};
use tld_server::presence::{Presence, REPORT_FOLDER};
use tld_server::registry::MANAGER_FOLDER;
use tld_sys::part::{self, Part};
use tld_sys::signal::{Signal, Signals, termination};

use super::{Form, Ground, Task};

/// Groups whose members may read logs on common systems.
const LOG_GROUPS: [&str; 2] = ["adm", "systemd-journal"];

/// The user that the unprivileged part runs as.
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
    tld_sys::privilege::user(name)
        .filter(|(uid, gid)| *uid != 0 && *gid != 0)
        .map(|(uid, gid)| User { uid, gid })
}

/// The privileged part: responder, and keeper of the other part.
pub(super) fn responder(task: &Task, user: User) -> Result<ExitCode> {
    let signals = termination().context("cannot take over the signals")?;
    let (home, options) = (task.home.clone(), &task.options);
    tld_server::home::prepare(&home, tld_config::DEFAULT_OSSEC_CONF)?;
    hand_over(&home, user)?;
    if task.form == Form::Manager {
        // Keys, certificate and dates are replaced whole, and other installations may have closed the directories.
        for folder in ["etc", "queue"] {
            open_to_group(&home.join(folder))
                .with_context(|| format!("cannot open `{folder}` to the service user's group"))?;
        }
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
    let mut analysis = part::start(&behind_arguments(), far).context("cannot start the unprivileged part")?;
    let code = keep(&signals, &mut analysis, &ground)?;
    if let Some(responder) = Arc::into_inner(responder) {
        responder.stop();
    }
    Ok(code)
}

/// Passes signals on until the other part has ended.
fn keep(signals: &Signals, analysis: &mut Part, ground: &Ground) -> Result<ExitCode> {
    let mut asked = false;
    loop {
        if let Some(signal) = signals.wait(Duration::from_millis(200)).context("cannot read signals")? {
            asked |= signal != Signal::Hangup;
            analysis.signal(signal);
        }
        let Some(status) = analysis.try_wait().context("cannot watch the unprivileged part")? else {
            continue;
        };
        if asked && status.success() {
            return Ok(ExitCode::SUCCESS);
        }
        ground
            .log
            .error(&format!("the analysis ended ({status}): stopping; blocks stay and are reverted on time"));
        return Ok(ExitCode::FAILURE);
    }
}

/// Our own arguments again, marked.
fn behind_arguments() -> Vec<OsString> {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    arguments.push("--behind-responder".into());
    arguments
}

/// What the analysis writes belongs to its user; what it only reads is open to its group; executables and journal stay root's.
fn hand_over(home: &Path, user: User) -> Result<()> {
    let give = |path: &str, uid: u32| {
        let path = home.join(path);
        match change_owner(&path, uid, user.gid) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot give `{}` to the service user", path.display()))
            }
            _ => Ok(()),
        }
    };
    for path in [
        "logs",
        "logs/ossec.log",
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
    ] {
        give(path, user.uid)?;
    }
    for path in [
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
    ] {
        give(path, 0)?;
    }
    for folder in ["ruleset/decoders", "ruleset/rules"] {
        for file in std::fs::read_dir(home.join(folder)).into_iter().flatten().flatten() {
            give(&format!("{folder}/{}", file.file_name().to_string_lossy()), 0)?;
        }
    }
    Ok(())
}

/// Lets the group make files there.
fn open_to_group(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::symlink_metadata(folder)?.permissions().mode();
    if mode & 0o070 == 0o070 {
        return Ok(());
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode & 0o7777 | 0o070))
}

/// Links are followed only where none but root can make one: in a directory of the service user, a link or a second name
/// of somebody else's file would hand that file over.
fn change_owner(path: &Path, uid: u32, gid: u32) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown, lchown};
    let parent = std::fs::metadata(path.parent().unwrap_or(path))?;
    if parent.uid() == 0 && parent.mode() & 0o022 == 0 {
        return chown(path, Some(uid), Some(gid));
    }
    let seen = path.symlink_metadata()?;
    if seen.is_file() && seen.nlink() > 1 {
        return Err(std::io::Error::other("the file has a second name; remove it and start again"));
    }
    lchown(path, Some(uid), Some(gid))
}

/// The unprivileged part: everything that reads what attackers wrote.
pub(super) fn analysis(task: &Task) -> Result<ExitCode> {
    let signals = termination().context("cannot take over the signals")?;
    let options = &task.options;
    let socket = part::socket().context("standard input is not the responder's socket")?;
    if let Some(user) = user(&options.user) {
        let groups: Vec<_> = LOG_GROUPS.iter().filter_map(|name| tld_sys::privilege::group(name)).collect();
        tld_sys::privilege::drop_to_with_groups(user.uid, user.gid, &groups, true)
            .context("cannot become the service user")?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

    use super::*;

    #[test]
    fn what_the_service_user_links_to_is_not_handed_over() {
        if !tld_sys::privilege::is_root() {
            assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "needs root");
            println!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (logs, secret) = (dir.path().join("logs"), dir.path().join("secret"));
        std::fs::create_dir(&logs).unwrap();
        std::fs::File::create(&secret).unwrap();
        chown(&logs, Some(65534), Some(65534)).unwrap();
        symlink(&secret, logs.join("link")).unwrap();
        std::fs::hard_link(&secret, logs.join("second")).unwrap();
        change_owner(&logs.join("link"), 65534, 65534).unwrap();
        change_owner(&logs.join("second"), 65534, 65534).unwrap_err();
        assert_eq!(secret.metadata().unwrap().uid(), 0);

        let own = dir.path().join("own");
        std::fs::create_dir(&own).unwrap();
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o750)).unwrap();
        symlink(&secret, own.join("link")).unwrap();
        change_owner(&own.join("link"), 65534, 65534).unwrap();
        assert_eq!(secret.metadata().unwrap().uid(), 65534, "root's own link is followed");
    }
}
