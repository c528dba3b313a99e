//! `--demo`: a made-up attack from documentation addresses, in a directory of its own, through the same parts as the real service.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tld_model::Timestamp;
use tld_respond::Responder;
use tld_respond::carrier::channel::ChannelCarrier;
use tld_server::standalone::{Setup, Standalone};
use tld_sys::clock::{Clock, Deadline};

use super::Options;
use super::story::{Scene, Teller, Watcher};
use crate::paint::Paint;
use crate::service::{self, Ground};

const MARK: &str = ".threatlockdown-demo";
const TABLE: &str = "threatlockdown_demo";
/// The demo ends after this time whatever happens.
const LONGEST: Duration = Duration::from_secs(28);

/// The attack: pause before the line in milliseconds, program, message. Two attackers, one innocent user with a typo, and a
/// user name made up to get the innocent user's address blocked.
const SCRIPT: &[(u64, &str, &str)] = &[
    (300, "sshd[811]", "Failed password for alice from 192.0.2.10 port 50112 ssh2"),
    (300, "sshd[811]", "Accepted password for alice from 192.0.2.10 port 50112 ssh2"),
    (400, "sshd[902]", "Failed password for root from 203.0.113.7 port 40022 ssh2"),
    (200, "sshd[903]", "Failed password for root from 203.0.113.7 port 40023 ssh2"),
    (200, "sshd[904]", "Failed password for admin from 203.0.113.7 port 40024 ssh2"),
    (200, "sshd[905]", "Failed password for admin from 203.0.113.7 port 40025 ssh2"),
    (200, "sshd[906]", "Failed password for root from 203.0.113.7 port 40026 ssh2"),
    (200, "sshd[907]", "Failed password for root from 203.0.113.7 port 40027 ssh2"),
    (200, "sshd[908]", "Failed password for root from 203.0.113.7 port 40028 ssh2"),
    (200, "sshd[909]", "Failed password for root from 203.0.113.7 port 40029 ssh2"),
    (600, "sshd-session[951]", "Invalid user root from 192.0.2.10 port 22 from 2001:db8:bad::17 port 51001"),
    (150, "sshd-session[952]", "Invalid user root from 192.0.2.10 port 22 from 2001:db8:bad::17 port 51002"),
    (150, "sshd-session[953]", "Invalid user root from 192.0.2.10 port 22 from 2001:db8:bad::17 port 51003"),
    (150, "sshd-session[954]", "Invalid user root from 192.0.2.10 port 22 from 2001:db8:bad::17 port 51004"),
    (150, "sshd-session[955]", "Invalid user root from 192.0.2.10 port 22 from 2001:db8:bad::17 port 51005"),
    (150, "sshd-session[956]", "Invalid user root from 192.0.2.10 port 22 from 2001:db8:bad::17 port 51006"),
    (150, "sshd-session[957]", "Invalid user root from 192.0.2.10 port 22 from 2001:db8:bad::17 port 51007"),
    (150, "sshd-session[958]", "Invalid user root from 192.0.2.10 port 22 from 2001:db8:bad::17 port 51008"),
];

/// Runs the demo to its end.
pub(super) fn run(mut options: Options) -> Result<ExitCode> {
    let home = own_directory(options.home.as_deref())?;
    options.service.table = TABLE.into();
    let watched = home.join("demo-auth.log");
    tld_server::home::prepare(&home, &tld_config::demo_conf(&watched))?;
    fs::File::create(&watched).with_context(|| format!("cannot create `{}`", watched.display()))?;
    let ground = Ground::of(&home, false);
    introduce(&home, &options);
    let Some(prepared) = service::read(&home, &options.service)? else { return Ok(ExitCode::FAILURE) };

    let (sender, outcomes) = channel();
    let responder = Responder::start(service::responder_setup(&ground, &options.service, &prepared), sender)
        .context("cannot start the responder")?;
    let responder = Arc::new(responder);
    let (scenes, told) = channel();
    let service = Standalone::start(Setup {
        home: home.clone(),
        prepared,
        carrier: Box::new(ChannelCarrier::new(Arc::clone(&responder))),
        fleet: None,
        clock: ground.clock(),
        zone: ground.zone.clone(),
        log: ground.log.clone(),
        observer: Some(Box::new(Watcher { watched: watched.clone(), scenes: scenes.clone() })),
        log_time: false,
        dry_run: options.service.dry_run,
        journal_directory: None,
    })?;
    let relay = relay(outcomes, scenes.clone());
    let replay = replay(watched, ground.clone(), scenes);
    let teller = tell(&told, &ground);
    let _ = service.stop();
    if let Some(responder) = Arc::into_inner(responder) {
        responder.stop();
    }
    remove_table(&ground);
    remove_executables(&home, &ground);
    let _ = relay.join();
    let _ = replay.join();
    Ok(summarise(&teller, &home))
}

/// The demo's blocks are over; its table goes with it.
fn remove_table(ground: &Ground) {
    if !tld_sys::privilege::has_net_admin() {
        return;
    }
    let removed = tld_sys::nft::Firewall::open().and_then(|mut firewall| firewall.delete_table(TABLE));
    if let Err(error) = removed {
        ground.log.error(&format!("the table `{TABLE}` could not be removed: {error}"));
    }
}

/// What stays is what can be looked at: copies of this program would be most of the directory.
fn remove_executables(home: &Path, ground: &Ground) {
    let folder = home.join("active-response/bin");
    if let Err(error) = fs::remove_dir_all(&folder) {
        ground.log.error(&format!("cannot remove `{}`: {error}", folder.display()));
    }
}

/// A fresh directory, or `--home` if it does not exist, is empty, or is one that an earlier demo made.
fn own_directory(wanted: Option<&Path>) -> Result<PathBuf> {
    let home = match wanted {
        Some(home) => home.to_path_buf(),
        None => {
            let stamp = tld_sys::clock::SystemClock.wall_nanos() / 1_000_000;
            std::env::temp_dir().join(format!("threatlockdown-demo-{stamp}-{}", std::process::id()))
        }
    };
    if home.exists() {
        let ours = home.join(MARK).is_file();
        let empty = fs::read_dir(&home).is_ok_and(|mut entries| entries.next().is_none());
        if wanted.is_none() || !(ours || empty) {
            bail!("`{}` was not made by a demo: choose a directory that does not exist yet", home.display());
        }
        if ours {
            forget(&home)?;
        }
    }
    tld_sys::durable::create_dirs(&home, 0o700)
        .with_context(|| format!("cannot create `{}`", home.display()))?;
    tld_sys::durable::replace(&home.join(MARK), b"made by threatlockdown standalone --demo\n", 0o600)
        .with_context(|| format!("cannot write into `{}`", home.display()))?;
    Ok(home)
}

/// Removes what an earlier demo left, and only that.
fn forget(home: &Path) -> Result<()> {
    for folder in ["active-response", "etc", "logs", "queue", "ruleset", "stats", "var"] {
        match fs::remove_dir_all(home.join(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot clear `{}`", home.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn introduce(home: &Path, options: &Options) {
    let paint = Paint::stdout();
    println!(
        "{}",
        paint.strong("ThreatLockDown demo: an attack on sshd is seen, blocked, proven and reverted")
    );
    println!("   home      {}", home.display());
    println!("   watching  {}", home.join("demo-auth.log").display());
    let effect = if options.service.dry_run {
        paint.warn("dry-run: asked for by --dry-run")
    } else if tld_sys::privilege::has_net_admin() {
        format!("{} (nftables table inet {TABLE}, removed at the end)", paint.good("real"))
    } else {
        paint.warn(
            "dry-run: blocking an address needs root (CAP_NET_ADMIN); run again with sudo to see it applied",
        )
    };
    println!("   effects   {effect}\n");
}

/// Writes the attack's lines into the watched file. The sender is kept until the last line, so that the story knows its end.
fn replay(watched: PathBuf, ground: Ground, alive: Sender<Scene>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for (pause, program, message) in SCRIPT {
            std::thread::sleep(Duration::from_millis(*pause));
            let now = ground.zone.local(Timestamp::from_nanos(ground.clock.wall_nanos()));
            let stamp = format!(
                "{} {:>2} {:02}:{:02}:{:02}",
                now.month_name(),
                now.day,
                now.hour,
                now.minute,
                now.second
            );
            let line = format!("{stamp} web01 {program}: {message}\n");
            let written = fs::OpenOptions::new()
                .append(true)
                .open(&watched)
                .and_then(|mut file| file.write_all(line.as_bytes()));
            if let Err(error) = written {
                ground.log.error(&format!("cannot write `{}`: {error}", watched.display()));
            }
        }
        drop(alive);
    })
}

fn relay(outcomes: Receiver<tld_model::Outcome>, scenes: Sender<Scene>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for outcome in outcomes {
            let _ = scenes.send(Scene::Outcome(Box::new(outcome)));
        }
    })
}

/// Tells until every line was judged and every order has its final word.
fn tell(told: &Receiver<Scene>, ground: &Ground) -> Teller {
    let mut teller = Teller::new(ground.zone.clone());
    let end = Deadline::after(LONGEST);
    let lines = u32::try_from(SCRIPT.len()).unwrap_or(u32::MAX);
    while !end.passed() {
        match told.recv_timeout(Duration::from_millis(200)) {
            Ok(scene) => teller.tell(scene),
            Err(RecvTimeoutError::Timeout) => {
                if teller.tally.lines >= lines && teller.tally.unfinished() == 0 {
                    break;
                }
                teller.count_down(Timestamp::from_nanos(ground.clock.wall_nanos()));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    teller
}

fn summarise(teller: &Teller, home: &Path) -> ExitCode {
    let (tally, paint) = (&teller.tally, Paint::stdout());
    println!("\n{}", paint.strong("Summary"));
    println!(
        "   {} lines, {} alerts, {} blocks applied, {} reverted, {} dry-run",
        tally.lines,
        tally.alerts,
        tally.applied.len(),
        tally.reverted.len(),
        tally.dry_run.len()
    );
    if let (Some(fastest), Some(slowest)) = (tally.fastest, tally.slowest) {
        println!(
            "   from log line to proven block: {:.1} to {:.1} ms",
            fastest.as_secs_f64() * 1e3,
            slowest.as_secs_f64() * 1e3
        );
    }
    println!("   192.0.2.10, whom the second attacker's user name tried to frame, was never touched");
    println!("   look at  {}", home.join("logs/alerts/alerts.json").display());
    println!("            {}", home.join("logs/active-responses.log").display());
    let good = tally.failed == 0 && tally.unfinished() == 0 && tally.applied.len() + tally.dry_run.len() >= 2;
    let innocent =
        tally.applied.iter().chain(&tally.dry_run).any(|target| target.to_string() == "192.0.2.10");
    if !good || innocent {
        println!(
            "{}",
            paint.bad("   the demo did not go as it should: see the lines above and logs/ossec.log")
        );
        return ExitCode::FAILURE;
    }
    println!(
        "\nNext: {} reads what a start would read; {} watches this host.",
        paint.strong("threatlockdown check"),
        paint.strong("sudo threatlockdown standalone")
    );
    println!(
        "      Responses are chosen in etc/ossec.conf, <active-response>; the demo's own is a working example."
    );
    ExitCode::SUCCESS
}
