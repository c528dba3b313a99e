//! The units for systemd, as systemd itself judges them, and their commands, as the program does.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test program: it reports by failing")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> Vec<(String, String)> {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let files = std::fs::read_dir(packaging).unwrap().map(|entry| entry.unwrap().path());
    let units = files.filter(|path| path.extension().is_some_and(|kind| kind == "service"));
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(&path).unwrap())
    };
    units.map(read).collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !Path::new("/usr/bin/systemd-analyze").is_file() {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "systemd is required");
        println!("skipped: needs systemd-analyze (package systemd)");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("/usr/bin/systemd-analyze");
    command.arg("verify");
    for (name, text) in units() {
        let path = directory.path().join(&name);
        // The program is not installed here.
        let text = text.replace("/usr/bin/threatlockdown-agent", "/bin/true");
        std::fs::write(&path, text.replace("/usr/bin/threatlockdown", "/bin/true")).unwrap();
        command.arg(path);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // It tells unknown keys without failing.
    assert!(output.status.success() && !said.lines().any(|line| line.contains("threatlockdown")), "{said}");
}

#[test]
fn every_command_of_a_unit_is_one_that_the_program_knows() {
    let mut commands = 0;
    for (name, text) in units() {
        for line in text.lines().filter(|line| line.starts_with("Exec")) {
            let (_, command) = line.split_once('=').unwrap();
            let mut words = command.split(' ');
            let program = words.next().unwrap();
            let words: Vec<&str> = words.collect();
            assert!(program.starts_with("/usr/bin/threatlockdown"), "{name}: {line}");
            if program.ends_with("-agent") && words[0] != "responder" {
                // Only that one is in both programs; the other is tried in its own room.
                continue;
            }
            let known = Command::new(env!("CARGO_BIN_EXE_threatlockdown"))
                .args(&words)
                .arg("--help")
                .output()
                .unwrap();
            assert!(known.status.success(), "{name}: {line}: {}", String::from_utf8_lossy(&known.stderr));
            commands += 1;
        }
    }
    assert!(commands >= 5);
}
