//! The real kernel, in a network namespace of the test's own: blocks, leases, healing, and a process that is killed
//! at every step. Needs root.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program: it reports by failing and says what it skips"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tld_model::{
    Order, OrderId, OrderOptions, Outcome, OutcomeKind, RawJson, Target, Timestamp, Timings, Zone,
};
use tld_respond::{CrashPoint, LogFn, Mode, Responder, RevertSelector, Setup, StartError, TABLE, self_hash};
use tld_sys::child::{Spec, run_capture};
use tld_sys::clock::{Clock as _, SystemClock};
use tld_sys::nft::{Firewall, Spot};

/// Runs `test` in a private network namespace; says so and passes where that cannot be had.
fn isolated(test: impl FnOnce(&Path) + Send) {
    let entered = std::thread::scope(|scope| {
        let work = || {
            if tld_sys::net_namespace::enter_private().is_err() || Firewall::open().is_err() {
                return false;
            }
            let home = home();
            test(home.path());
            true
        };
        scope.spawn(work).join().expect("the test panicked")
    });
    if !entered {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no private network namespace with nftables");
        println!("skipped: needs root and nftables in a private network namespace");
    }
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for path in ["active-response/bin", "logs"] {
        std::fs::create_dir_all(home.path().join(path)).unwrap();
    }
    // The content decides: our own executable under the contract's name runs in process.
    std::fs::copy(std::env::current_exe().unwrap(), home.path().join("active-response/bin/firewall-drop"))
        .unwrap();
    home
}

fn setup(home: &Path, said: &Arc<Mutex<Vec<String>>>) -> Setup {
    let said = Arc::clone(said);
    let log: LogFn = Arc::new(move |line: &str| said.lock().unwrap().push(line.into()));
    let mut setup = Setup::new(home.into(), Arc::new(SystemClock), log);
    setup.mode = Mode::Real;
    setup.zone = Zone::utc();
    setup.self_hash = Some(self_hash().unwrap());
    setup
}

fn start(home: &Path) -> (Responder, Receiver<Outcome>, Arc<Mutex<Vec<String>>>) {
    let said = Arc::default();
    let (sender, outcomes) = channel();
    (Responder::start(setup(home, &said), sender).unwrap(), outcomes, said)
}

fn order(id: &str, address: &str, timeout: u64) -> Order {
    let alert = format!(r#"{{"data":{{"srcip":"{address}"}}}}"#);
    Order {
        id: OrderId(id.into()),
        response: format!("firewall-drop{timeout}"),
        executable: "firewall-drop".into(),
        timeout_secs: timeout,
        extra_args: vec![],
        node: "node01".into(),
        alert: RawJson::from(serde_json::value::RawValue::from_string(alert).unwrap()),
        alert_id: "1.2".into(),
        rule: None,
        target: Target::Address(address.parse().unwrap()),
        created: Timestamp::from_nanos(SystemClock.wall_nanos()),
        timings: Timings::default(),
        options: OrderOptions::default(),
    }
}

fn next(outcomes: &Receiver<Outcome>) -> Outcome {
    outcomes.recv_timeout(Duration::from_secs(30)).expect("an outcome")
}

fn blocked(address: &str) -> Option<Option<Duration>> {
    let found = Firewall::open().unwrap().lookup(TABLE, address.parse().unwrap()).unwrap();
    found.map(|element| element.remaining)
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = SystemClock.boot() + Duration::from_secs(30);
    while !holds() {
        assert!(SystemClock.boot() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Gives `round` longer and longer effects, until the machine is quick enough to see what it must while one lasts.
fn unhurried(first: u64, mut round: impl FnMut(&Path, u64) -> bool + Send) {
    let mut seen = false;
    for times in [1, 2, 4, 8] {
        if !seen {
            isolated(|home| seen = round(home, first * times));
        }
    }
    assert!(seen || std::env::var_os("TLD_REQUIRE_ALL").is_none(), "every effect was over too soon");
}

#[test]
fn a_block_lives_in_the_kernel_until_its_end_and_survives_a_restart() {
    unhurried(3, |home, seconds| {
        let (responder, outcomes, _) = start(home);
        let end = SystemClock.boot() + Duration::from_secs(seconds);
        for (id, address, timeout) in
            [("a", "203.0.113.7", seconds), ("b", "2001:db8::7", 600), ("c", "203.0.113.9", 0)]
        {
            responder.submit(order(id, address, timeout)).unwrap();
            let told = next(&outcomes);
            assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
            assert!(told.evidence.read_back.unwrap().contains(address));
        }
        let left = blocked("203.0.113.7");
        assert_eq!(blocked("203.0.113.9"), Some(None));
        responder.stop();
        assert!(blocked("2001:db8::7").is_some(), "a stop lifts nothing");
        let (responder, outcomes, _) = start(home);
        let active = responder.active().len();
        if SystemClock.boot() >= end {
            return false;
        }
        assert!(left.unwrap().unwrap() <= Duration::from_secs(seconds));
        assert_eq!(active, 3);
        let told = next(&outcomes);
        assert_eq!((told.kind, told.order.0.as_str()), (OutcomeKind::Reverted, "a"));
        assert_eq!(blocked("203.0.113.7"), None);
        responder.revert(RevertSelector::All);
        assert_eq!([next(&outcomes).kind, next(&outcomes).kind], [OutcomeKind::Reverted; 2]);
        assert_eq!((blocked("2001:db8::7"), blocked("203.0.113.9")), (None, None));
        responder.stop();
        true
    });
}

#[test]
fn the_lease_ends_a_block_when_nothing_of_ours_lives() {
    unhurried(2, |home, seconds| {
        let (responder, outcomes, _) = start(home);
        let end = SystemClock.boot() + Duration::from_secs(seconds);
        responder.submit(order("a", "203.0.113.7", seconds)).unwrap();
        assert_eq!(next(&outcomes).kind, OutcomeKind::Applied);
        responder.stop();
        if SystemClock.boot() >= end {
            return false;
        }
        eventually("the kernel forgets it", || blocked("203.0.113.7").is_none());
        let (responder, outcomes, _) = start(home);
        assert_eq!(next(&outcomes).kind, OutcomeKind::Reverted);
        responder.stop();
        true
    });
}

#[test]
fn a_flushed_firewall_is_healed_at_once_with_the_remaining_time() {
    isolated(|home| {
        let (responder, outcomes, said) = start(home);
        for n in 0..50 {
            responder.submit(order(&format!("o{n}"), &format!("203.0.113.{n}"), 600)).unwrap();
            assert_eq!(next(&outcomes).kind, OutcomeKind::Applied);
        }
        Firewall::open().unwrap().delete_table(TABLE).unwrap();
        eventually("the table is back", || (0..50).all(|n| blocked(&format!("203.0.113.{n}")).is_some()));
        assert!(blocked("203.0.113.1").unwrap().unwrap() <= Duration::from_secs(600));
        eventually("it is said", || said.lock().unwrap().iter().any(|line| line.contains("put back")));
        // One element by hand.
        Firewall::open().unwrap().unblock(TABLE, &["203.0.113.5".parse().unwrap()]).unwrap();
        eventually("the element is back", || blocked("203.0.113.5").is_some());
        responder.stop();
    });
}

#[test]
fn every_name_of_the_block_is_held_healed_and_lifted_for_both_families() {
    isolated(|home| {
        let (responder, outcomes, _) = start(home);
        for name in ["default-firewall-drop", "block-ip"] {
            std::fs::copy(std::env::current_exe().unwrap(), home.join("active-response/bin").join(name))
                .unwrap();
            for (told_as, address) in [
                ("203.0.113.7", "203.0.113.7"),
                ("2001:db8::7", "2001:db8::7"),
                ("::ffff:203.0.113.8", "203.0.113.8"),
            ] {
                let mut block = order(&format!("{name}-{address}"), told_as, 600);
                block.executable = name.into();
                responder.submit(block).unwrap();
                let told = next(&outcomes);
                assert_eq!((told.kind, told.program.rsplit('/').next()), (OutcomeKind::Applied, Some(name)));
                assert!(told.evidence.read_back.unwrap().contains(address));
                let target: std::net::IpAddr = address.parse().unwrap();
                Firewall::open().unwrap().unblock(TABLE, &[target]).unwrap();
                eventually("the element is back", || blocked(address).is_some());
                Firewall::open().unwrap().delete_table(TABLE).unwrap();
                eventually("it is back with its table", || blocked(address).is_some());
                responder.revert(RevertSelector::Address(target));
                let told = next(&outcomes);
                assert_eq!(told.kind, OutcomeKind::Reverted, "{name} {address}: {}", told.detail);
                assert_eq!(blocked(address), None);
            }
        }
        responder.stop();
    });
}

#[test]
fn a_block_limited_to_ports_is_held_healed_restored_and_lifted_beside_a_whole_one() {
    isolated(|home| {
        let (responder, outcomes, _) = start(home);
        let spot = |address: &str, port| Spot { address: address.parse().unwrap(), port: Some(port) };
        let held = |address: &str, ports: &[u16]| {
            let spots: Vec<Spot> = ports.iter().map(|port| spot(address, *port)).collect();
            Firewall::open().unwrap().lookup_all(TABLE, &spots).unwrap().iter().all(Option::is_some)
        };
        for address in ["203.0.113.7", "2001:db8::7"] {
            let mut ports = order(&format!("ports-{address}"), address, 600);
            ports.options.ports = vec![80, 22, 22];
            responder.submit(ports).unwrap();
            let told = next(&outcomes);
            assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
            let proof = told.evidence.read_back.unwrap();
            assert!(proof.contains(&format!("{address} port 22,")) && proof.contains("port 80,"), "{proof}");
            assert!(held(address, &[22, 80]) && blocked(address).is_none());
            // The same address as a whole is another block.
            responder.submit(order(&format!("all-{address}"), address, 600)).unwrap();
            assert_eq!(next(&outcomes).kind, OutcomeKind::Applied);
            assert!(blocked(address).is_some());
            Firewall::open().unwrap().unblock_spots(TABLE, &[spot(address, 22)]).unwrap();
            eventually("the port is back", || held(address, &[22, 80]));
        }
        responder.stop();
        Firewall::open().unwrap().delete_table(TABLE).unwrap();
        let (responder, outcomes, _) = start(home);
        for address in ["203.0.113.7", "2001:db8::7"] {
            assert!(held(address, &[22, 80]) && blocked(address).is_some());
        }
        responder.revert(RevertSelector::Order(OrderId("ports-203.0.113.7".into())));
        assert_eq!(next(&outcomes).kind, OutcomeKind::Reverted);
        assert!(
            !held("203.0.113.7", &[22]) && !held("203.0.113.7", &[80]) && blocked("203.0.113.7").is_some()
        );
        responder.revert(RevertSelector::Address("2001:db8::7".parse().unwrap()));
        assert_eq!([next(&outcomes).kind, next(&outcomes).kind], [OutcomeKind::Reverted; 2]);
        assert!(!held("2001:db8::7", &[22]) && blocked("2001:db8::7").is_none());
        responder.stop();
    });
}

#[test]
fn a_thousand_orders_in_a_burst_are_all_read_back() {
    isolated(|home| {
        let (responder, outcomes, _) = start(home);
        let begin = SystemClock.boot();
        for n in 0..1_000 {
            responder
                .submit(order(&format!("o{n}"), &format!("198.51.{}.{}", n / 250, n % 250 + 1), 600))
                .unwrap();
        }
        for _ in 0..1_000 {
            assert_eq!(next(&outcomes).kind, OutcomeKind::Applied);
        }
        println!("1000 orders in {:?}", SystemClock.boot() - begin);
        assert_eq!(Firewall::open().unwrap().list(TABLE).unwrap().len(), 1_000);
        let mut waits = Vec::new();
        for n in 0..200 {
            let begin = SystemClock.boot();
            responder.submit(order(&format!("s{n}"), &format!("198.18.0.{}", n + 1), 600)).unwrap();
            assert_eq!(next(&outcomes).kind, OutcomeKind::Applied);
            waits.push(SystemClock.boot() - begin);
        }
        waits.sort();
        println!("single order to proven outcome: median {:?}, p99 {:?}", waits[100], waits[197]);
        responder.stop();
    });
}

/// Calls `mount` or `umount`; false where that is not permitted.
fn run_tool(program: &str, args: &[&str]) -> bool {
    let spec = Spec { args: args.iter().map(OsString::from).collect(), ..Spec::new(Path::new(program)) };
    run_capture(&spec, b"", 4_096, Duration::from_secs(10))
        .is_ok_and(|done| done.status.is_some_and(|status| status.success()))
}

/// Is taken down also where a test fails.
struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        run_tool("/bin/umount", &["-l", &self.0]);
    }
}

#[test]
fn a_full_disk_is_no_way_to_stay_unblocked() {
    isolated(|home| {
        let disk = home.join("disk");
        std::fs::create_dir(&disk).unwrap();
        let place = disk.to_str().unwrap();
        if !run_tool("/bin/mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", place]) {
            assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no tmpfs can be mounted");
            return println!("skipped: needs the right to mount a tmpfs");
        }
        let _mounted = Mounted(place.into());
        std::fs::create_dir_all(disk.join("active-response/bin")).unwrap();
        std::fs::create_dir_all(disk.join("logs")).unwrap();
        let program = disk.join("active-response/bin/firewall-drop");
        let script = b"#!/bin/sh\n";
        tld_sys::durable::replace(&program, script, 0o750).unwrap();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let (sender, outcomes) = channel();
        let mut full = setup(&disk, &said);
        // A short file stands for our executable, which would not fit.
        full.self_hash = Some(<sha2::Sha256 as sha2::Digest>::digest(script).into());
        let responder = Responder::start(full, sender).unwrap();
        let ballast = vec![0_u8; 4 << 20];
        let _no_room = tld_sys::durable::append_line(&disk.join("ballast"), &ballast, 0o600);
        let mut noted = 0;
        for n in 1..200 {
            responder.submit(order(&format!("o{n}"), &format!("203.0.113.{n}"), 600)).unwrap();
            let told = next(&outcomes);
            assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
            noted += usize::from(told.detail.contains("not journaled"));
        }
        assert!(noted > 0, "the disk was not full");
        assert!(blocked("203.0.113.199").is_some());
        assert!(said.lock().unwrap().iter().any(|line| line.contains("the journal cannot be written")));
        std::fs::remove_file(disk.join("ballast")).unwrap();
        eventually("it is made up for", || {
            tld_respond::journal::list(&disk, 0).is_ok_and(|open| open.len() == 199)
        });
        responder.stop();
    });
}

#[test]
fn killed_at_any_step_the_next_start_makes_it_right() {
    let points = ["before-apply", "after-apply", "while-active", "while-reverting", "after-revert"];
    for point in points {
        isolated(|home| {
            let reverting = point.contains("revert");
            // The child is this test program again, in our namespace; it kills itself.
            let program = std::env::current_exe().unwrap();
            let env =
                [("TLD_TEST_HOME", home.as_os_str().to_owned()), ("TLD_TEST_POINT", OsString::from(point))];
            let spec = Spec {
                args: ["--exact", "child", "--nocapture"].map(OsString::from).to_vec(),
                env: env.map(|(name, value)| (OsString::from(name), value)).to_vec(),
                ..Spec::new(&program)
            };
            let ended = run_capture(&spec, b"", 4_096, Duration::from_secs(30)).unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&ended.status.unwrap()),
                Some(9),
                "{point}"
            );
            let (responder, outcomes, _) = start(home);
            if reverting {
                eventually("lifted", || blocked("203.0.113.7").is_none());
                assert_eq!(next(&outcomes).kind, OutcomeKind::Reverted, "{point}");
                assert!(responder.active().is_empty(), "{point}");
            } else {
                assert!(blocked("203.0.113.7").flatten().is_some(), "{point}");
                assert_eq!(responder.active().len(), 1, "{point}");
                responder.submit(order("a", "203.0.113.7", 600)).unwrap();
                assert_eq!(next(&outcomes).kind, OutcomeKind::Applied, "{point}");
                responder.revert(RevertSelector::All);
            }
            responder.stop();
        });
    }
}

/// Not a test: the process that [`killed_at_any_step_the_next_start_makes_it_right`] starts.
#[test]
fn child() {
    let (Some(home), Ok(point)) = (std::env::var_os("TLD_TEST_HOME"), std::env::var("TLD_TEST_POINT")) else {
        return;
    };
    let mut setup = setup(&PathBuf::from(home), &Arc::default());
    setup.crash_at = CrashPoint::from_name(&point);
    let (sender, outcomes) = channel();
    let responder = Responder::start(setup, sender).unwrap();
    responder.submit(order("a", "203.0.113.7", if point.contains("revert") { 1 } else { 600 })).unwrap();
    while outcomes.recv_timeout(Duration::from_secs(20)).is_ok() {}
}

#[test]
fn without_the_right_to_the_firewall_nothing_is_pretended() {
    let home = home();
    let said = Arc::default();
    let mut setup = setup(home.path(), &said);
    setup.mode = Mode::DryRun("not root".into());
    let (sender, outcomes) = channel();
    let responder = Responder::start(setup, sender).unwrap();
    responder.submit(order("a", "203.0.113.7", 600)).unwrap();
    let told = next(&outcomes);
    assert_eq!(told.kind, OutcomeKind::DryRun);
    assert!(told.detail.contains("not root"));
    responder.stop();
    let log = std::fs::read_to_string(home.path().join("logs/active-responses.log")).unwrap();
    assert!(
        log.contains("Dry run: would block 203.0.113.7") && !log.contains("\"command\":\"add\""),
        "{log}"
    );
}

#[test]
fn a_second_responder_is_turned_away() {
    let home = home();
    let mut first = setup(home.path(), &Arc::default());
    first.mode = Mode::DryRun("test".into());
    let second = first.clone();
    let (sender, _outcomes) = channel();
    let responder = Responder::start(first, sender.clone()).unwrap();
    assert!(matches!(Responder::start(second, sender), Err(StartError::Journal(_))));
    responder.stop();
}

#[test]
fn our_executable_obeys_another_daemons_dialogue() {
    isolated(|home| {
        let alert = r#""parameters":{"extra_args":[],"alert":{"data":{"srcip":"203.0.113.7"}},"program":"active-response/bin/firewall-drop"}}"#;
        let line = |verb: &str| {
            format!(
                r#"{{"version":1,"origin":{{"name":"n","module":"wazuh-execd"}},"command":"{verb}",{alert}"#
            ) + "\n"
        };
        let run_as = |name: &str, input: String| {
            let mut output = Vec::new();
            let status = tld_respond::multicall::run_script(name, home, &mut input.as_bytes(), &mut output);
            (status, String::from_utf8(output).unwrap())
        };
        let run = |input: String| run_as("firewall-drop", input);
        let keys = r#"{"version":1,"origin":{"name":"firewall-drop","module":"active-response"},"command":"check_keys","parameters":{"keys":["203.0.113.7"]}}"#;
        let held = || {
            let spot = Spot { address: "203.0.113.7".parse().unwrap(), port: None };
            let table = tld_respond::multicall::TABLE;
            Firewall::open().unwrap().lookup_all(table, &[spot]).is_ok_and(|seen| seen[0].is_some())
        };
        assert_eq!(run(line("add") + &line("abort")), (0, format!("{keys}\n")));
        assert!(!held());
        assert_eq!(run(line("add") + &line("continue")).0, 0);
        assert!(held());
        // A responder beside that daemon has blocks of its own, and neither ends the other's.
        let (responder, outcomes, _) = start(home);
        assert!(responder.active().is_empty());
        responder.submit(order("a", "203.0.113.7", 600)).unwrap();
        assert_eq!(next(&outcomes).kind, OutcomeKind::Applied);
        responder.revert(RevertSelector::All);
        assert_eq!(next(&outcomes).kind, OutcomeKind::Reverted);
        assert!(held() && blocked("203.0.113.7").is_none());
        responder.stop();
        // Another name of the same action holds the address too.
        assert_eq!(run_as("block-ip", line("add") + &line("continue")).0, 0);
        assert_eq!(run(line("delete")), (0, String::new()));
        assert!(held());
        let five = r#"{"version":1,"command":"disable","source":{"ip":"203.0.113.7"},"wazuh":{"active_response":{"executable":"block-ip"}}}"#;
        assert_eq!(run_as("block-ip", format!("{five}\n")), (0, String::new()));
        assert!(!held());
        for bad in [String::new(), "{}\n".into(), line("other"), line("add") + "{}\n"] {
            assert_eq!(run(bad).0, 255);
        }
        let log = std::fs::read_to_string(home.join("logs/active-responses.log")).unwrap();
        for text in [": Starting\n", ": Aborted\n", ": Ended\n", ": Invalid input format\n"] {
            assert!(log.contains(text), "{text}");
        }
    });
}
