//! The peers' own programs on the same log as ours, where they are installed or unpacked below `target/peers`. Invariant:
//! processor time of the whole tree of processes, and never a figure for a program that did not run to its end.
//!
//! `apt-get install fail2ban sshguard`, `apt-get download crowdsec && dpkg -x crowdsec_*.deb target/peers` (its installation
//! wants the network). None of them starts a service, blocks anything or leaves this machine here.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::report::generated;
use crate::root;

/// Runs of each; the best counts, since neighbours only ever add.
const RUNS: usize = 3;
const LINES: &str = "200000";
/// Lines for the one that takes minutes for all of them.
const FEW: usize = 20_000;
/// Where programs stand that no search path names.
const FOLDERS: &[&str] = &["/usr/libexec/sshguard", "/usr/sbin", "/var/ossec/bin"];

/// A program and what it is asked to do with the log.
struct Peer {
    name: &'static str,
    does: &'static str,
    /// Programs that must be here.
    needs: &'static [&'static str],
    /// Only the first lines, once.
    slow: bool,
    command: fn(&Path, &Path) -> Result<Command>,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "fail2ban",
        does: "`fail2ban-regex LOG sshd`: one filter on each line, no counting, no bans",
        needs: &["fail2ban-regex"],
        slow: false,
        command: |log, _| {
            let mut command = Command::new(found("fail2ban-regex")?);
            command.arg(log).arg("sshd");
            Ok(command)
        },
    },
    Peer {
        name: "sshguard",
        does: "`sshg-parser < LOG`: parser alone",
        needs: &["sshg-parser"],
        slow: false,
        command: |log, _| {
            let mut command = Command::new(found("sshg-parser")?);
            command.stdin(File::open(log)?);
            Ok(command)
        },
    },
    Peer {
        name: "sshguard",
        does: "`sshg-parser < LOG \\| sshg-blocker -a 60`: with counting, no firewall",
        needs: &["sshg-parser", "sshg-blocker"],
        slow: false,
        command: |log, _| {
            let (parser, blocker) = (found("sshg-parser")?, found("sshg-blocker")?);
            let mut command = Command::new("sh");
            command.args(["-c", "\"$1\" <\"$3\" | \"$2\" -a 60 -p 120 -s 1800", "sh"]);
            command.arg(parser).arg(blocker).arg(log);
            Ok(command)
        },
    },
    Peer {
        name: "crowdsec",
        does: "`crowdsec -dsn file://LOG`: parsers, two scenarios, its local API on the loopback; first 20,000 lines",
        needs: &["crowdsec", "cscli"],
        slow: true,
        command: crowdsec,
    },
    Peer {
        name: "OSSEC",
        does: "`ossec-logtest -a < LOG`: decoders, rules, alerts printed",
        needs: &["ossec-logtest"],
        slow: false,
        command: |log, _| {
            let mut command = Command::new(found("ossec-logtest")?);
            command.arg("-a").stdin(File::open(log)?);
            Ok(command)
        },
    },
];

/// Measures those that are here, names those that are not, and sets ours beside them.
pub(crate) fn measure(out: &mut String, shared: &Path, folder: &Path) -> Result<()> {
    let log =
        generated(shared, folder, "a200k", "gen_authlog.py", &["--lines", LINES, "--attackers", "200"])?;
    let few = folder.join("few.log");
    let text = fs::read_to_string(&log)?;
    fs::write(&few, text.split_inclusive('\n').take(FEW).collect::<String>())?;
    writeln!(
        out,
        "{LINES} sshd lines, 200 attackers; processor time with that of children and of the start, best of {RUNS} runs. The work is alike but not the\n\
         same: see the second column.\n\n| program | what it does | lines per CPU second |\n|---|---|---|"
    )?;
    let mut absent = Vec::new();
    for peer in PEERS {
        println!("== {}: {}", peer.name, peer.does);
        let missing = peer.needs.iter().find(|program| found(program).is_err());
        if let Some(program) = missing {
            absent.push(format!("{} (no `{program}`)", peer.name));
            continue;
        }
        let (log, lines, runs) = if peer.slow { (&few, FEW as f64, 1) } else { (&log, LINES.parse()?, RUNS) };
        match best(runs, || (peer.command)(log, folder)) {
            Ok(seconds) => writeln!(out, "| {} | {} | {:.0} |", peer.name, peer.does, lines / seconds)?,
            Err(error) => absent.push(format!("{} ({error:#})", peer.name)),
        }
    }
    let home = shared.join("conformance/home");
    for (ruleset, home) in
        [("the conformance ruleset, 4,700 rules", Some(&home)), ("the shipped ruleset", None)]
    {
        let seconds = best(RUNS, || {
            let mut command = Command::new(root().join("target/release/threatlockdown"));
            command.args(["simulate", "--threads", "1", "--summary", "json", "--log"]).arg(&log);
            if let Some(home) = home {
                command.arg("--home").arg(home);
            }
            Ok(command)
        })?;
        writeln!(
            out,
            "| ThreatLockDown | `simulate --threads 1`: {ruleset}; decoders, rules, counting, alerts built, policy | {:.0} |",
            LINES.parse::<f64>()? / seconds
        )?;
    }
    if !absent.is_empty() {
        writeln!(out, "\nNot installed or not able to run here: {}.", absent.join(", "))?;
    }
    writeln!(out)?;
    Ok(())
}

/// The least processor time of several runs.
fn best(runs: usize, command: impl Fn() -> Result<Command>) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..runs {
        let mut command = command()?;
        command.stdout(Stdio::null()).stderr(Stdio::null()).env("TZ", "UTC");
        let before = children()?;
        let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
        ensure!(status.success(), "ended with {status}");
        least = least.min(children()? - before);
    }
    ensure!(least > 0.0, "took no time");
    Ok(least)
}

fn found(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = ["usr/bin", "usr/sbin", "usr/libexec/sshguard"].map(|place| peers().join(place));
    let folders = std::env::split_paths(&path).chain(FOLDERS.iter().map(PathBuf::from)).chain(unpacked);
    let mut places = folders.map(|folder| folder.join(program));
    places.find(|place| place.is_file()).with_context(|| format!("`{program}` is not here"))
}

/// Where packages may be unpacked.
fn peers() -> PathBuf {
    root().join("target/peers")
}

/// A home of its own for each run: configuration, the package's own parsers and scenarios for sshd, an empty database.
fn crowdsec(log: &Path, folder: &Path) -> Result<Command> {
    const PARTS: &[&str] = &[
        "parsers/s00-raw/crowdsecurity/syslog-logs.yaml",
        "parsers/s01-parse/crowdsecurity/sshd-logs.yaml",
        "parsers/s02-enrich/crowdsecurity/dateparse-enrich.yaml",
        "scenarios/crowdsecurity/ssh-bf.yaml",
        "scenarios/crowdsecurity/ssh-slow-bf.yaml",
    ];
    let hub = [peers().join("usr/share/crowdsec/hub"), PathBuf::from("/usr/share/crowdsec/hub")];
    let hub = hub.iter().find(|hub| hub.is_dir()).context("no hub of crowdsec")?;
    let home = folder.join("crowdsec");
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    for place in ["data", "plugins", "notifications"] {
        fs::create_dir_all(home.join(place))?;
    }
    for part in PARTS {
        // The engine finds parts by stage and name, without the author's folder.
        let stage = Path::new(part).ancestors().nth(2).context("a part stands in a stage")?;
        fs::create_dir_all(home.join(stage))?;
        let name = Path::new(part).file_name().context("a part is a file")?;
        std::os::unix::fs::symlink(hub.join(part), home.join(stage).join(name))?;
    }
    // Port 0 would do for the server but not for its client.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let (hub, at) = (hub.display(), home.display());
    let patterns = [peers().join("etc/crowdsec/patterns"), PathBuf::from("/etc/crowdsec/patterns")];
    let patterns = patterns.iter().find(|path| path.is_dir()).context("no patterns of crowdsec")?;
    std::os::unix::fs::symlink(patterns, home.join("patterns"))?;
    fs::write(home.join("simulation.yaml"), "simulation: off\n")?;
    fs::write(home.join("acquis.yaml"), "")?;
    fs::write(
        home.join("profiles.yaml"),
        "name: all\nfilters: ['Alert.Remediation == true']\ndecisions: [{type: ban, duration: 4h}]\non_success: break\n",
    )?;
    fs::write(home.join("local.yaml"), "")?;
    let text = format!(
        "common: {{daemonize: false, log_media: stdout, log_level: error, working_dir: {at}}}\n\
         config_paths: {{config_dir: {at}, data_dir: {at}/data, simulation_path: {at}/simulation.yaml, hub_dir: {hub}, \
         index_path: {hub}/.index.json, notification_dir: {at}/notifications, plugin_dir: {at}/plugins}}\n\
         crowdsec_service: {{acquisition_path: {at}/acquis.yaml, parser_routines: 1}}\n\
         db_config: {{type: sqlite, db_path: {at}/data/crowdsec.db, use_wal: true}}\n\
         api:\n  client: {{credentials_path: {at}/local.yaml}}\n  server: {{log_level: error, listen_uri: \"127.0.0.1:{port}\", \
         profiles_path: {at}/profiles.yaml}}\n\
         prometheus: {{enabled: false}}\ncscli: {{output: human}}\n"
    );
    let config = home.join("config.yaml");
    fs::write(&config, text)?;
    let mut enrol = Command::new(found("cscli")?);
    enrol.arg("-c").arg(&config).args(["machines", "add", "bench", "--password", "bench", "--force", "-f"]);
    let output = enrol.arg(home.join("local.yaml")).output()?;
    ensure!(output.status.success(), "cscli: {}", String::from_utf8_lossy(&output.stderr).trim());
    let mut command = Command::new("timeout");
    command.arg("300").arg(found("crowdsec")?).arg("-c").arg(config);
    command.args(["-type", "syslog", "-dsn"]).arg(format!("file://{}", log.display()));
    Ok(command)
}

/// Processor seconds of all children that have ended, user and system.
fn children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The second field is a name in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat is strange")?;
    let ticks = |number: usize| {
        fields.split_ascii_whitespace().nth(number - 3).and_then(|field| field.parse::<f64>().ok())
    };
    // proc(5): 16 = cutime, 17 = cstime, in hundredths of a second.
    let spent = ticks(16).zip(ticks(17)).context("/proc/self/stat is short")?;
    Ok((spent.0 + spent.1) / 100.0)
}
