//! The arrows between rooms point down (ARCHITECTURE.md): held by the manifests themselves.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "asks cargo"
)]

use std::collections::BTreeMap;
use std::process::Command;

fn floor(room: &str) -> u32 {
    match room {
        "tld-model" | "tld-xml" | "tld-pattern" | "tld-sys" => 0,
        "tld-config" | "tld-rules" | "tld-wire" => 1,
        "tld-collect" | "tld-policy" | "tld-respond" => 2,
        "tld-agent" | "tld-server" => 3,
        "tld-cli" => 4,
        "tld-fuzz" | "xtask" => 5,
        other => panic!("`{other}` has no floor: add it here and to ARCHITECTURE.md"),
    }
}

fn rooms() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let data: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let packages = data["packages"].as_array().expect("packages");
    let normal = |one: &&serde_json::Value| one["kind"].is_null();
    packages
        .iter()
        .map(|package| {
            let needs = package["dependencies"].as_array().expect("dependencies").iter().filter(normal);
            let needs = needs.map(|one| one["name"].as_str().unwrap_or_default().to_owned());
            (package["name"].as_str().unwrap_or_default().to_owned(), needs.collect())
        })
        .collect()
}

#[test]
fn arrows_point_down() {
    for (room, needs) in rooms() {
        for need in needs.iter().filter(|need| need.starts_with("tld-")) {
            // policy reads the rules, and both read the configuration: the floors allow it.
            assert!(floor(need) < floor(&room), "{room} may not know {need}");
        }
    }
}

#[test]
fn pure_rooms_know_no_system() {
    const FORBIDDEN: [&str; 6] = ["tld-sys", "libc", "rustix", "tokio", "rusqlite", "netlink-sys"];
    let rooms = rooms();
    for pure in ["tld-model", "tld-xml", "tld-pattern", "tld-rules", "tld-policy", "tld-wire"] {
        for need in &rooms[pure] {
            assert!(!FORBIDDEN.contains(&need.as_str()), "{pure} is pure and may not know {need}");
        }
    }
}

#[test]
fn agent_and_manager_do_not_know_each_other() {
    let rooms = rooms();
    assert!(!rooms["tld-agent"].iter().any(|need| need == "tld-server" || need == "tld-policy"));
    assert!(!rooms["tld-server"].iter().any(|need| need == "tld-agent"));
}
