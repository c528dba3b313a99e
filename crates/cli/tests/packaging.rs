//! What is installed beside the binary: the control script and the unit, as operators of 4.x use them.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests start programs and may fail loudly"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::fleet::{Peer, Site};
use common::{BINARY, executable, failures, installed, skip, until};
use tld_wire::key::AgentKey;

const LONG: Duration = Duration::from_secs(30);

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(path)
}

/// Installs the script as a package would, with a binary that runs without a service user.
fn install(site: &Site) {
    let bin = site.home.at("bin");
    fs::create_dir_all(&bin).unwrap();
    let control = fs::read_to_string(packaging("bin/wazuh-control")).unwrap();
    executable(&bin.join("wazuh-control"), &control, 0o755);
    let table = site.home.table();
    let wrapper = format!(
        "#!/bin/sh\nif [ \"$1\" = manager ]; then exec {BINARY} \"$@\" --user tld-nobody-such --table {table}; fi\n\
         exec {BINARY} \"$@\"\n"
    );
    executable(&bin.join("threatlockdown"), &wrapper, 0o755);
}

fn control(site: &Site, arguments: &[&str]) -> Output {
    Command::new(site.home.at("bin/wazuh-control")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Ends the service also when a test fails.
struct Stopper<'s>(&'s Site);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        let _ = control(self.0, &["stop"]);
    }
}

#[test]
fn wazuh_control_starts_restarts_reloads_and_stops() {
    let site = Site::new("");
    install(&site);
    let _stopper = Stopper(&site);
    let status = control(&site, &["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status).contains("wazuh-remoted not running..."));
    let started = control(&site, &["start"]);
    assert!(started.status.success(), "{}{}", text(&started), String::from_utf8_lossy(&started.stderr));
    let first = site.home.read("var/threatlockdown/service.pid");
    assert!(text(&control(&site, &["status"])).contains("wazuh-analysisd is running..."));
    let json: serde_json::Value = serde_json::from_slice(&control(&site, &["-j", "status"]).stdout).unwrap();
    assert_eq!(json["data"][0]["status"], "running");
    assert!(text(&control(&site, &["start"])).contains("already runs"));
    assert!(control(&site, &["reload"]).status.success());

    // An error in the configuration keeps what runs.
    let conf = site.home.read("etc/ossec.conf");
    fs::write(site.home.at("etc/ossec.conf"), conf.replace("<ossec_config>", "<ossec_config><globl/>"))
        .unwrap();
    let refused = control(&site, &["restart"]);
    assert!(!refused.status.success() && text(&refused).contains("what ran goes on"));
    assert_eq!(site.home.read("var/threatlockdown/service.pid"), first);
    fs::write(site.home.at("etc/ossec.conf"), conf).unwrap();
    assert!(control(&site, &["restart"]).status.success());
    assert_ne!(site.home.read("var/threatlockdown/service.pid"), first);
    assert!(control(&site, &["stop"]).status.success());
    assert_eq!(control(&site, &["status"]).status.code(), Some(1));
    assert!(text(&control(&site, &["info", "-v"])).starts_with("v4.14.7"));
    assert_eq!(control(&site, &["dance"]).status.code(), Some(1));
}

#[test]
fn the_unit_has_the_known_name_and_passes_systemds_own_check() {
    if !installed("systemd-analyze") {
        skip("`systemd-analyze` is not installed (package systemd)");
        return;
    }
    let unit = fs::read_to_string(packaging("threatlockdown-manager.service")).unwrap();
    assert!(unit.contains("\nAlias=wazuh-manager.service\n"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("threatlockdown-manager.service");
    // The check wants the program to be there.
    fs::write(&path, unit.replace("/usr/bin/threatlockdown", BINARY)).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--recursive-errors=no"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("threatlockdown-manager"), "{said}");
}

/// The first example of the operator's guide, to the letter.
const GUIDE_LOCAL: &str = "
    <command>
      <name>host-deny</name>
      <executable>host-deny</executable>
      <timeout_allowed>yes</timeout_allowed>
    </command>

    <active-response>
      <command>host-deny</command>
      <location>local</location>
      <level>7</level>
      <timeout>600</timeout>
    </active-response>
";

/// The second one, a root of its own.
const GUIDE_AGENT: &str = "
        <ossec_config>
          <active-response>
            <disabled>no</disabled>
            <command>host-deny</command>
            <location>defined-agent</location>
            <agent_id>001</agent_id>
            <level>10</level>
            <timeout>180</timeout>
          </active-response>
        </ossec_config>
";

/// The script of the guide's second part.
const GUIDE_SCRIPT: &str = "
    <command><name>custom</name><executable>custom-ar</executable></command>
    <active-response><command>custom</command><location>local</location><rules_id>5763</rules_id></active-response>
</ossec_config>
";

/// A copy of `/etc` that the service sees in place of the host's.
fn own_etc(site: &Site) -> PathBuf {
    let etc = site.home.at("host-etc");
    let copied = Command::new("cp").args(["-a", "/etc"]).arg(&etc).status().unwrap();
    assert!(copied.success());
    fs::write(etc.join("hosts.deny"), "").unwrap();
    let wrapper = format!(
        "#!/bin/sh\n[ \"$1\" = manager ] || exec {BINARY} \"$@\"\n\
         exec unshare --mount sh -c 'mount --bind {} /etc && exec {BINARY} \"$@\" --user tld-nobody-such --table {}' sh \"$@\"\n",
        etc.display(),
        site.home.table()
    );
    executable(&site.home.at("bin/threatlockdown"), &wrapper, 0o755);
    etc
}

/// Connects anew with the files that the agent has.
fn back(site: &Site, key: &AgentKey, merged: Option<String>) -> Peer {
    let mut peer = Peer::connect(site.port, key.clone());
    peer.merged = merged;
    peer.start();
    peer
}

#[test]
fn the_operators_guide_works_to_the_letter() {
    if !tld_sys::privilege::is_root() || !installed("unshare") {
        skip("a host of its own for hosts.deny needs root and `unshare`");
        return;
    }
    let site = Site::new(GUIDE_LOCAL);
    install(&site);
    let etc = own_etc(&site);
    let conf = site.home.at("etc/ossec.conf");
    fs::write(&conf, format!("{}{GUIDE_AGENT}", site.home.read("etc/ossec.conf"))).unwrap();
    let _stopper = Stopper(&site);
    let started = control(&site, &["start"]);
    assert!(started.status.success(), "{}{}", text(&started), String::from_utf8_lossy(&started.stderr));

    let mut agent = site.agent("web-01");
    let file = agent.pushed();
    assert!(file.contains("\nhost-deny600 - host-deny - 600\nhost-deny180 - host-deny - 180\n"), "{file}");
    site.home.log(&failures("203.0.113.7", 10));
    let denied = || fs::read_to_string(etc.join("hosts.deny")).unwrap_or_default();
    until(LONG, "the manager's own hosts.deny names the attacker", || denied().contains("203.0.113.7"));
    let order = String::from_utf8(agent.expect("#!-execd ")).unwrap();
    assert!(order.contains("\"command\":\"host-deny180\"") && order.contains("203.0.113.7"), "{order}");

    // A script of the operator's own, with the documented mode and owner; then edit and restart.
    let marker = site.home.at("custom-ran");
    site.home.script("custom-ar", &format!("#!/bin/sh\ncat > {}\n", marker.display()));
    let group = tld_sys::privilege::group("wazuh").unwrap_or(0);
    std::os::unix::fs::chown(site.home.at("active-response/bin/custom-ar"), Some(0), Some(group)).unwrap();
    let edited = site.home.read("etc/ossec.conf").replacen("</ossec_config>", GUIDE_SCRIPT, 1);
    fs::write(&conf, edited).unwrap();
    let (key, merged) = (agent.key.clone(), agent.merged.clone());
    let restarted = control(&site, &["restart"]);
    assert!(restarted.status.success(), "{}", text(&restarted));
    assert!(denied().contains("203.0.113.7"), "blocks stay");
    let mut agent = back(&site, &key, merged);
    assert!(agent.pushed().contains("\ncustom0 - custom-ar - 0\n"));

    // The change works.
    site.home.log(&failures("203.0.113.8", 10));
    until(LONG, "the operator's script ran", || {
        fs::read_to_string(&marker).is_ok_and(|text| text.contains("203.0.113.8"))
    });

    // A restart without a change tells agents nothing new.
    let merged = agent.merged.clone();
    assert!(control(&site, &["restart"]).status.success());
    let mut agent = back(&site, &key, merged);
    for _ in 0..2 {
        agent.keep_alive();
        loop {
            let message = agent.receive().unwrap();
            assert!(!message.starts_with(b"#!-up file"), "ar.conf is the same");
            if message == b"#!-agent ack " {
                break;
            }
        }
    }
    assert!(denied().contains("203.0.113.7"), "blocks stay");
}
