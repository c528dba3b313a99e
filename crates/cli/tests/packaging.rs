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
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::fleet::Site;
use common::{BINARY, installed, skip};

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(path)
}

/// Installs the script as a package would, with a binary that runs without a service user.
fn install(site: &Site) {
    let bin = site.home.at("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy(packaging("bin/wazuh-control"), bin.join("wazuh-control")).unwrap();
    let wrapper = format!(
        "#!/bin/sh\nif [ \"$1\" = manager ]; then exec {BINARY} \"$@\" --user tld-nobody-such; fi\nexec {BINARY} \"$@\"\n"
    );
    fs::write(bin.join("threatlockdown"), wrapper).unwrap();
    fs::set_permissions(bin.join("threatlockdown"), fs::Permissions::from_mode(0o755)).unwrap();
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
