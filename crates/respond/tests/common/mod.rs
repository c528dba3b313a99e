//! A host made of a temporary directory, with the responder on it: what the tests of actions share.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    missing_docs,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "each test uses a part; tests start programs"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tld_model::{
    Order, OrderId, OrderOptions, Outcome, OutcomeKind, RawJson, Target, Timestamp, Timings, Zone,
};
use tld_respond::{Mode, Places, Responder, RevertSelector, Setup, self_hash};
use tld_sys::clock::{Clock as _, SystemClock};

pub struct Host {
    pub home: tempfile::TempDir,
    pub places: Places,
}

pub struct Running {
    pub responder: Responder,
    pub outcomes: Receiver<Outcome>,
}

impl Host {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path();
        for path in ["active-response/bin", "logs", "host/etc", "host/tools", "var/threatlockdown"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        let mut places = Places {
            hosts_deny: root.join("host/etc/hosts.deny"),
            ipblock: root.join("host/ipblock"),
            accounts: root.join("host"),
            bus: root.join("host/no-bus"),
            ..Places::default()
        };
        places.tools.insert(0, root.join("host/tools"));
        Self { home, places }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    /// A tool of the test's own in place of the system's.
    pub fn tool(&self, name: &str, script: &str) {
        let path = self.path("host/tools").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn start(&self) -> Running {
        self.start_with(self.setup())
    }

    pub fn setup(&self) -> Setup {
        let mut setup = Setup::new(self.home.path().into(), Arc::new(SystemClock), Arc::new(|_| {}));
        setup.mode = Mode::Real;
        setup.zone = Zone::utc();
        setup.self_hash = Some(self_hash().unwrap());
        setup.places = self.places.clone();
        setup
    }

    pub fn start_with(&self, setup: Setup) -> Running {
        let (sender, outcomes) = channel();
        Running { responder: Responder::start(setup, sender).unwrap(), outcomes }
    }

    pub fn order(&self, id: &str, name: &str, data: &str, timeout: u64) -> Order {
        let file = self.path("active-response/bin").join(name);
        if !file.exists() {
            std::fs::copy(std::env::current_exe().unwrap(), file).unwrap();
        }
        let alert = format!(r#"{{"rule":{{"level":10,"id":"100200","description":"d"}},"data":{data}}}"#);
        Order {
            id: OrderId(id.into()),
            response: format!("{name}{timeout}"),
            executable: name.into(),
            timeout_secs: timeout,
            extra_args: vec![],
            node: "node01".into(),
            alert: RawJson::from(serde_json::value::RawValue::from_string(alert).unwrap()),
            alert_id: "1.2".into(),
            rule: None,
            target: Target::None,
            created: Timestamp::from_nanos(SystemClock.wall_nanos()),
            timings: Timings::default(),
            options: OrderOptions::default(),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("logs/active-responses.log")).unwrap_or_default()
    }
}

impl Running {
    pub fn next(&self) -> Outcome {
        self.outcomes.recv_timeout(Duration::from_secs(30)).expect("an outcome")
    }

    pub fn give(&self, order: Order) -> Outcome {
        self.responder.submit(order).unwrap();
        self.next()
    }

    pub fn applied(&self, order: Order) {
        let told = self.give(order);
        assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
        assert!(told.evidence.read_back.is_some());
    }

    pub fn lifted(&self) {
        self.responder.revert(RevertSelector::All);
        let told = self.next();
        assert_eq!(told.kind, OutcomeKind::Reverted, "{}", told.detail);
    }
}

pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = SystemClock.boot() + Duration::from_secs(30);
    while !holds() {
        assert!(SystemClock.boot() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A bound of the product in time: a machine that is busy with other things may spoil a round, but not all of them.
pub fn in_time(bound: &str, mut round: impl FnMut() -> bool) {
    assert!((0..5).any(|_| round()), "in none of 5 rounds {bound}");
}

pub fn srcip(address: &str) -> String {
    format!(r#"{{"srcip":"{address}"}}"#)
}

pub fn skipped(what: &str) {
    assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "{what} is required");
    println!("skipped: needs {what}");
}

/// Runs `test` in a private network, for what must not reach the machine's.
pub fn isolated(test: impl FnOnce() + Send) {
    let ran = std::thread::scope(|scope| {
        let work = || tld_sys::net_namespace::enter_private().map(|()| test());
        scope.spawn(work).join().expect("the test panicked")
    });
    if ran.is_err() {
        skipped("root and a private network namespace");
    }
}
