//! SIGKILL at every journal step of actions of every kind, chosen at random; the next start must make it right: no
//! expired effect, no missing one, and the host afterwards as it was before. `TLD_CRASH_RUNS` asks for more runs,
//! `TLD_CRASH_SEED` repeats them.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test program: it reports by failing and says what it skips"
)]

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tld_model::{Order, OrderId, OrderOptions, Outcome, RawJson, Target, Timestamp, Timings};
use tld_respond::{CrashPoint, Places, Responder, RevertSelector, Setup, TABLE, self_hash};
use tld_sys::child::{Spec, run_capture};
use tld_sys::clock::{Clock as _, SystemClock};
use tld_sys::nft::Firewall;
use tld_sys::route;

const POINTS: [&str; 5] = ["before-apply", "after-apply", "while-active", "while-reverting", "after-revert"];
const ACTIONS: [&str; 7] = [
    "firewall-drop",
    "block-ip",
    "host-deny",
    "route-null",
    "ip-customblock",
    "quarantine-file",
    "disable-account",
];
/// Runs side by side, each in a network of its own.
const WORKERS: usize = 3;
const ADDRESSES: [&str; 2] = ["203.0.113.7", "2001:db8::7"];
const SHADOW: &str = "bob:$6$x$y:19000:0:99999:7:::\n";
const LIST: &str = "ALL:203.0.113.70\n";

fn setup(home: &Path) -> Setup {
    let mut setup = Setup::new(home.into(), Arc::new(SystemClock), Arc::new(|_| {}));
    setup.self_hash = Some(self_hash().unwrap());
    setup.places = Places {
        hosts_deny: home.join("host/etc/hosts.deny"),
        ipblock: home.join("host/ipblock"),
        accounts: home.join("host"),
        ..Places::default()
    };
    setup
}

/// What the action acts on lies beside the home: below it, it would be refused.
fn victim(home: &Path) -> std::path::PathBuf {
    home.with_extension("victim")
}

fn order(home: &Path, action: &str, address: &str, timeout: u64) -> Order {
    let data = serde_json::json!({"srcip": address, "dstuser": "bob", "file": victim(home)});
    let alert = serde_json::json!({"data": data}).to_string();
    Order {
        id: OrderId("a".into()),
        response: format!("{action}{timeout}"),
        executable: action.into(),
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

fn in_place(home: &Path, action: &str, address: &str) -> bool {
    let read = |path: &str| std::fs::read_to_string(home.join(path)).unwrap_or_default();
    match action {
        "host-deny" => read("host/etc/hosts.deny") != LIST,
        "route-null" => !route::host_routes(address.parse().unwrap()).unwrap().is_empty(),
        "ip-customblock" => home.join("host/ipblock").join(address).exists(),
        "quarantine-file" => !victim(home).exists(),
        "disable-account" => read("host/etc/shadow") != SHADOW,
        _ => Firewall::open().unwrap().lookup(TABLE, address.parse().unwrap()).unwrap().is_some(),
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = SystemClock.boot() + Duration::from_secs(30);
    while !holds() {
        assert!(SystemClock.boot() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(home: &Path) -> (Responder, Receiver<Outcome>) {
    let (sender, outcomes) = channel();
    (Responder::start(setup(home), sender).unwrap(), outcomes)
}

fn run(what: &str, action: &str, address: &str, point: &str) {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    for path in ["active-response/bin", "logs", "host/etc"] {
        std::fs::create_dir_all(home.join(path)).unwrap();
    }
    std::fs::write(victim(&home), "bad").unwrap();
    let etc = home.join("host/etc");
    std::fs::write(etc.join("hosts.deny"), LIST).unwrap();
    std::fs::write(etc.join("passwd"), "bob:x:5001:5001::/:/bin/sh\n").unwrap();
    std::fs::write(etc.join("group"), "bob:x:5001:\n").unwrap();
    std::fs::write(etc.join("shadow"), SHADOW).unwrap();
    let program = std::env::current_exe().unwrap();
    let file = home.join("active-response/bin").join(action);
    std::fs::hard_link(&program, &file).or_else(|_| std::fs::copy(&program, &file).map(drop)).unwrap();
    let env = [
        ("TLD_TEST_HOME", home.clone().into_os_string()),
        ("TLD_TEST_POINT", point.into()),
        ("TLD_TEST_ACTION", action.into()),
        ("TLD_TEST_ADDRESS", address.into()),
    ];
    let spec = Spec {
        args: ["--exact", "child", "--nocapture"].map(OsString::from).to_vec(),
        env: env.map(|(name, value): (&str, OsString)| (OsString::from(name), value)).to_vec(),
        ..Spec::new(&program)
    };
    let ended = run_capture(&spec, b"", 4_096, Duration::from_secs(30)).unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&ended.status.unwrap());
    assert_eq!(signal, Some(9), "{what}: {}", String::from_utf8_lossy(&ended.stderr));
    let (responder, outcomes) = start(&home);
    if !point.contains("revert") {
        eventually(&format!("{what}: missing"), || in_place(&home, action, address));
        eventually(&format!("{what}: not active"), || responder.active().len() == 1);
        responder.revert(RevertSelector::All);
    }
    eventually(&format!("{what}: expired"), || !in_place(&home, action, address));
    eventually(&format!("{what}: still known"), || responder.active().is_empty());
    responder.stop();
    drop(outcomes);
}

#[test]
fn killed_anywhere_nothing_expired_stays_and_nothing_wanted_is_missing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("TLD_CRASH_SEED").unwrap_or_else(|| SystemClock.wall_nanos().cast_unsigned());
    let runs = number("TLD_CRASH_RUNS").unwrap_or(50);
    println!("seed {seed}, {runs} runs");
    let mut state = seed;
    let mut pick = |most: usize| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % most as u64).unwrap()
    };
    let usermod = Path::new("/usr/sbin/usermod").is_file();
    let actions = if usermod { &ACTIONS[..] } else { &ACTIONS[..6] };
    let picked: Vec<_> =
        (0..runs).map(|_| (actions[pick(actions.len())], ADDRESSES[pick(2)], POINTS[pick(5)])).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        if tld_sys::net_namespace::enter_private().is_err() || Firewall::open().is_err() {
            return false;
        }
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some((action, address, point)) = picked.get(n) else { return true };
            run(&format!("seed {seed} run {n}: {action} {address} {point}"), action, address, point);
        }
    };
    // They mostly wait: for a process that starts, for a block that ends.
    let ran = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().all(|worker| worker.join().expect("a run failed"))
    });
    if !ran {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no private network namespace with nftables");
        println!("skipped: needs root and nftables in a private network namespace");
    }
}

/// Not a test: the process that is killed.
#[test]
fn child() {
    let var = |name: &str| std::env::var(name).ok();
    let (Some(home), Some(point)) = (std::env::var_os("TLD_TEST_HOME"), var("TLD_TEST_POINT")) else {
        return;
    };
    let home = Path::new(&home);
    let mut setup = setup(home);
    setup.crash_at = CrashPoint::from_name(&point);
    let (sender, outcomes) = channel();
    let responder = Responder::start(setup, sender).unwrap();
    let timeout = if point.contains("revert") { 1 } else { 600 };
    let (action, address) = (var("TLD_TEST_ACTION").unwrap(), var("TLD_TEST_ADDRESS").unwrap());
    responder.submit(order(home, &action, &address, timeout)).unwrap();
    while outcomes.recv_timeout(Duration::from_secs(20)).is_ok() {}
}
