//! SIGKILL at every journal step of every action whose effect lasts, chosen at random; the next start must make it right:
//! no expired effect, no missing one, and the host afterwards as it was before. In some runs the journal is damaged between
//! the kill and the next start, which then knows from the firewall what it must end; in some the disk is full.
//! `TLD_CRASH_RUNS` asks for more runs, `TLD_CRASH_SEED` repeats them.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test program: it reports by failing and says what it skips"
)]

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tld_model::{
    Contract, Order, OrderId, OrderOptions, Outcome, OutcomeKind, RawJson, Target, Timestamp, Timings,
};
use tld_respond::{CrashPoint, Places, Responder, RevertSelector, Setup, State, TABLE, self_hash};
use tld_sys::child::{Spec, run_capture};
use tld_sys::clock::{Clock as _, SystemClock};
use tld_sys::nft::{Firewall, Spot};
use tld_sys::route;

const POINTS: [&str; 5] = ["before-apply", "after-apply", "while-active", "while-reverting", "after-revert"];

/// A case: its name, the file that is asked for, its extra arguments, and the tool that it needs.
struct Case {
    name: &'static str,
    file: &'static str,
    arguments: &'static [&'static str],
    needs: Option<&'static str>,
}

const fn case(name: &'static str, file: &'static str) -> Case {
    Case { name, file, arguments: &[], needs: None }
}

/// Everything that the contract or its users know and that has something to undo. The first ones are in the firewall.
const CASES: [Case; 15] = [
    case("firewall-drop", "firewall-drop"),
    case("default-firewall-drop", "default-firewall-drop"),
    case("block-ip", "block-ip"),
    case("ports", "firewall-drop"),
    case("host-deny", "host-deny"),
    case("route-null", "route-null"),
    case("ip-customblock", "ip-customblock"),
    case("quarantine-file", "quarantine-file"),
    Case { needs: Some("/usr/sbin/usermod"), ..case("disable-account", "disable-account") },
    Case { arguments: &["expire"], needs: Some("/usr/sbin/usermod"), ..case("expire", "disable-account") },
    Case { needs: Some("/usr/sbin/nft"), ..case("isolate-host", "isolate-host") },
    case("firewalld-drop", "firewalld-drop"),
    case("script", "custom"),
    case("script of words", "words"),
    case("script of 5.x", "five"),
];
const IN_FIREWALL: usize = 4;
const PORTS: [u16; 2] = [22, 8080];
const ADDRESSES: [&str; 2] = ["203.0.113.7", "2001:db8::7"];
const SHADOW: &str = "bob:$6$x$y:19000:0:99999:7:::\n";
const LIST: &str = "ALL:203.0.113.70\n";

/// Operators' files whose effect is a file beside them.
const SCRIPT: &str = r#"#!/bin/sh
read -r line
case $line in
*'"command":"add"'*)
  echo '{"version":1,"origin":{"name":"custom","module":"active-response"},"command":"check_keys","parameters":{"keys":["k"]}}'
  read -r answer
  case $answer in *'"command":"continue"'*) : > host/blocked;; esac;;
*) rm -f host/blocked;;
esac
"#;
const WORDS: &str = "#!/bin/sh\ncase $1 in add) : > host/blocked;; delete) rm -f host/blocked;; esac\n";
const FIVE: &str = r#"#!/bin/sh
read -r line
case $line in
*'"command":"enable"'*)
  echo '{"version":1,"origin":{"name":"custom","module":"active-response"},"command":"check_keys","parameters":{"keys":["k"]}}'
  read -r answer
  case $answer in *'"command":"continue"'*) : > host/blocked;; esac;;
*) rm -f host/blocked;;
esac
"#;
/// Stands for firewalld, which keeps one rule in a file.
const FIREWALL_CMD: &str = r#"#!/bin/sh
rules=$(dirname "$0")/../rules
case $1 in
--query-rich-rule) grep -qxF -- "$2" "$rules";;
--add-rich-rule) printf '%s\n' "$2" > "$rules";;
--remove-rich-rule) : > "$rules";;
esac
"#;

fn setup(home: &Path) -> Setup {
    let mut setup = Setup::new(home.into(), Arc::new(SystemClock), Arc::new(|_| {}));
    setup.self_hash = Some(self_hash().unwrap());
    setup.managers = vec!["192.0.2.1".into()];
    setup.places = Places {
        hosts_deny: home.join("host/etc/hosts.deny"),
        ipblock: home.join("host/ipblock"),
        accounts: home.join("host"),
        bus: home.join("host/no-bus"),
        ..Places::default()
    };
    setup.places.tools.insert(0, home.join("host/tools"));
    setup
}

/// What the action acts on lies beside the home: below it, it would be refused.
fn victim(home: &Path) -> std::path::PathBuf {
    home.with_extension("victim")
}

fn order(home: &Path, case: &Case, address: &str, timeout: u64) -> Order {
    let data = serde_json::json!({"srcip": address, "dstuser": "bob", "file": victim(home)});
    let alert = serde_json::json!({"data": data}).to_string();
    let ports = if case.name == "ports" { PORTS.to_vec() } else { Vec::new() };
    let contract = match case.file {
        "words" => Contract::Argv,
        "five" => Contract::Five,
        _ => Contract::default(),
    };
    Order {
        id: OrderId("a".into()),
        response: format!("{}{timeout}", case.file),
        executable: case.file.into(),
        timeout_secs: timeout,
        extra_args: case.arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        node: "node01".into(),
        alert: RawJson::from(serde_json::value::RawValue::from_string(alert).unwrap()),
        alert_id: "1.2".into(),
        rule: None,
        target: Target::None,
        created: Timestamp::from_nanos(SystemClock.wall_nanos()),
        timings: Timings::default(),
        options: OrderOptions { ports, contract, ..OrderOptions::default() },
    }
}

/// How many of an address's elements the firewall holds.
fn held(address: &str, ports: &[u16]) -> usize {
    let address = address.parse().unwrap();
    let each = ports.iter().map(|port| Spot { address, port: Some(*port) });
    let spots: Vec<Spot> = if ports.is_empty() { vec![Spot::from(address)] } else { each.collect() };
    Firewall::open().unwrap().lookup_all(TABLE, &spots).unwrap().iter().flatten().count()
}

/// Whether the effect is there; one of several parts must be there or gone as a whole in the end.
fn in_place(home: &Path, case: &Case, address: &str, whole: bool) -> bool {
    let read = |path: &str| std::fs::read_to_string(home.join(path)).unwrap_or_default();
    match case.name {
        "host-deny" => read("host/etc/hosts.deny") != LIST,
        "route-null" => !route::host_routes(address.parse().unwrap()).unwrap().is_empty(),
        "ip-customblock" => home.join("host/ipblock").join(address).exists(),
        "quarantine-file" => !victim(home).exists(),
        "disable-account" | "expire" => {
            let line = read("host/etc/shadow");
            let fields: Vec<&str> = line.trim_end().split(':').collect();
            let (locked, expired) = (fields[1].starts_with('!'), fields[7] == "1");
            match case.name {
                "expire" if whole => locked && expired,
                _ => locked || expired || line != SHADOW,
            }
        }
        "isolate-host" => {
            let args = ["list", "table", "inet", "threatlockdown_isolation"];
            std::process::Command::new("/usr/sbin/nft").args(args).output().unwrap().status.success()
        }
        "firewalld-drop" => !read("host/rules").is_empty(),
        "script" | "script of words" | "script of 5.x" => home.join("host/blocked").exists(),
        "ports" if whole => held(address, &PORTS) == PORTS.len(),
        "ports" => held(address, &PORTS) > 0,
        _ => held(address, &[]) > 0,
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

/// A host that is a directory.
fn furnish(home: &Path, case: &Case) {
    for path in ["active-response/bin", "logs", "host/etc", "host/tools"] {
        std::fs::create_dir_all(home.join(path)).unwrap();
    }
    std::fs::write(victim(home), "bad").unwrap();
    let etc = home.join("host/etc");
    std::fs::write(etc.join("hosts.deny"), LIST).unwrap();
    std::fs::write(etc.join("passwd"), "bob:x:5001:5001::/:/bin/sh\n").unwrap();
    std::fs::write(etc.join("group"), "bob:x:5001:\n").unwrap();
    std::fs::write(etc.join("shadow"), SHADOW).unwrap();
    std::fs::write(home.join("host/rules"), "").unwrap();
    let executable = |path: &Path, text: &str| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o750)).unwrap();
    };
    executable(&home.join("host/tools/firewall-cmd"), FIREWALL_CMD);
    let file = home.join("active-response/bin").join(case.file);
    match case.file {
        "custom" => executable(&file, SCRIPT),
        "words" => executable(&file, WORDS),
        "five" => executable(&file, FIVE),
        _ => {
            let program = std::env::current_exe().unwrap();
            std::fs::hard_link(&program, &file)
                .or_else(|_| std::fs::copy(&program, &file).map(drop))
                .unwrap();
        }
    }
}

/// Runs the process that is killed.
fn killed(what: &str, home: &Path, n: usize, address: &str, point: &str) {
    let env = [
        ("TLD_TEST_HOME", home.as_os_str().to_owned()),
        ("TLD_TEST_POINT", point.into()),
        ("TLD_TEST_CASE", n.to_string().into()),
        ("TLD_TEST_ADDRESS", address.into()),
    ];
    let program = std::env::current_exe().unwrap();
    let spec = Spec {
        args: ["--exact", "child", "--nocapture"].map(OsString::from).to_vec(),
        env: env.map(|(name, value): (&str, OsString)| (OsString::from(name), value)).to_vec(),
        ..Spec::new(&program)
    };
    let ended = run_capture(&spec, b"", 4_096, Duration::from_secs(60)).unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&ended.status.unwrap());
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(signal, Some(9), "{what}: {said:?}");
}

/// What a bad disk makes of the journal.
fn damage(home: &Path, how: usize) {
    let path = home.join("var/threatlockdown/journal.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    match how % 4 {
        0 => bytes.fill(0x55),
        1 => bytes[..100].fill(0),
        2 => bytes[middle..].fill(0xaa),
        _ => bytes.truncate(middle + 100),
    }
    std::fs::write(&path, bytes).unwrap();
    if how % 8 < 4 {
        // With the log of changes there may be enough to go on.
        let log = home.join("var/threatlockdown/journal.db-wal");
        let length = std::fs::metadata(&log).map(|about| about.len()).unwrap_or_default();
        std::fs::write(log, vec![0x55; usize::try_from(length).unwrap()]).unwrap();
    }
}

fn run(what: &str, n: usize, address: &str, point: &str, damaged: Option<usize>) {
    let case = &CASES[n];
    let directory = tempfile::tempdir().unwrap();
    let home = &directory.path().join("home");
    furnish(home, case);
    killed(what, home, n, address, point);
    if let Some(how) = damaged {
        damage(home, how);
    }
    let (responder, outcomes) = start(home);
    let reverts = point.contains("revert");
    if damaged.is_some() {
        // Only what the firewall holds is known, and it is known to the last element.
        let there = in_place(home, case, address, false);
        assert!(there || reverts || point == "before-apply", "{what}: missing");
        assert!(there || responder.active().is_empty(), "{what}: what is not there is not active");
        if there && !reverts {
            assert!(!responder.active().is_empty(), "{what}: not taken over");
            responder.revert(RevertSelector::All);
        }
    } else if !reverts {
        eventually(&format!("{what}: missing"), || in_place(home, case, address, true));
        eventually(&format!("{what}: not active"), || {
            responder.active().iter().filter(|effect| effect.state == State::Active).count() == 1
        });
        responder.revert(RevertSelector::All);
    }
    eventually(&format!("{what}: expired"), || !in_place(home, case, address, false));
    eventually(&format!("{what}: still known"), || responder.active().is_empty());
    responder.stop();
    drop(outcomes);
}

/// splitmix64
struct Dice(u64);

impl Dice {
    fn pick(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % most as u64).unwrap()
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs `work` in a private network with a firewall.
fn isolated(work: impl FnOnce() + Send) {
    let ran = std::thread::scope(|scope| {
        let work = || {
            let able = tld_sys::net_namespace::enter_private().is_ok() && Firewall::open().is_ok();
            if able {
                work();
            }
            able
        };
        scope.spawn(work).join().expect("the test panicked")
    });
    if !ran {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no private network namespace with nftables");
        println!("skipped: needs root and nftables in a private network namespace");
    }
}

#[test]
fn killed_anywhere_nothing_expired_stays_and_nothing_wanted_is_missing() {
    let seed = number("TLD_CRASH_SEED").unwrap_or_else(|| SystemClock.wall_nanos().cast_unsigned());
    let runs = number("TLD_CRASH_RUNS").unwrap_or(50);
    println!("seed {seed}, {runs} runs");
    isolated(|| {
        let mut dice = Dice(seed);
        let able = |case: &Case| case.needs.is_none_or(|tool| Path::new(tool).is_file());
        let able: Vec<usize> = (0..CASES.len()).filter(|n| able(&CASES[*n])).collect();
        // Every case comes once, in another order each time, and then any.
        let mut left = Vec::new();
        for n in 0..runs {
            if left.is_empty() {
                left.clone_from(&able);
            }
            let case = left.swap_remove(dice.pick(left.len()));
            let (address, point) = (ADDRESSES[dice.pick(2)], POINTS[dice.pick(5)]);
            let how = dice.pick(24);
            let damaged = (case < IN_FIREWALL && how < 8).then_some(how);
            let name = CASES[case].name;
            let damage = damaged.map(|how| format!(", journal damaged {how}")).unwrap_or_default();
            let what = format!("seed {seed} run {n}: {name} {address} {point}{damage}");
            run(&what, case, address, point, damaged);
        }
    });
}

/// What a full disk leaves to be done, in a home on a small disk of its own.
fn on_a_full_disk(home: &Path) {
    for (n, case) in CASES.iter().enumerate().filter(|(_, case)| case.needs.is_none()) {
        for (timeout, address) in [(600, ADDRESSES[0]), (2, ADDRESSES[1])] {
            if home.exists() {
                std::fs::remove_dir_all(home).unwrap();
            }
            furnish(home, case);
            let what = format!("full disk: {} {address} for {timeout} s", case.name);
            let point = if timeout == 600 { "full" } else { "full-short" };
            killed(&what, home, n, address, point);
            // Still full: the next start must come up all the same.
            let (responder, outcomes) = start(home);
            if n >= IN_FIREWALL {
                assert!(!in_place(home, case, address, false), "{what}: not begun without a journal");
            } else if timeout == 600 {
                assert!(in_place(home, case, address, true), "{what}: missing");
            }
            std::fs::remove_file(home.join("filler")).unwrap();
            if timeout == 2 {
                eventually(&format!("{what}: expired"), || !in_place(home, case, address, false));
            } else if n < IN_FIREWALL {
                assert!(in_place(home, case, address, true), "{what}: lost");
            }
            responder.stop();
            Firewall::open().unwrap().delete_table(TABLE).unwrap();
            drop(outcomes);
        }
    }
}

#[test]
fn killed_on_a_full_disk_what_the_kernel_ends_is_in_force_and_nothing_else_was_begun() {
    if std::env::var_os("TLD_TEST_DISK").is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let disk = directory.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    // Room for this program, which stands there as a response, and a little more.
    let size = std::fs::metadata(&program).unwrap().len() + (4 << 20);
    let script = format!(
        "mount -t tmpfs -o size={size},mode=755 tmpfs {disk} && exec {program} --exact disk --nocapture",
        disk = disk.display(),
        program = program.display()
    );
    let unshare = Path::new("/usr/bin/unshare");
    let spec = Spec {
        args: ["-m", "sh", "-c", &script].map(OsString::from).to_vec(),
        env: vec![("TLD_TEST_DISK".into(), disk.into_os_string())],
        limits: tld_sys::child::Limits::none(),
        ..Spec::new(unshare)
    };
    isolated(|| {
        let ended = run_capture(&spec, b"", 1 << 16, Duration::from_secs(120)).unwrap();
        let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(ended.status.unwrap().success(), "{}\n{}", said[0], said[1]);
    });
}

/// Not a test: the part that sees the small disk.
#[test]
fn disk() {
    if let Some(disk) = std::env::var_os("TLD_TEST_DISK") {
        on_a_full_disk(&Path::new(&disk).join("home"));
    }
}

/// Writes until there is no room.
fn fill(home: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(home.join("filler")).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
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
    let n: usize = var("TLD_TEST_CASE").unwrap().parse().unwrap();
    let address = var("TLD_TEST_ADDRESS").unwrap();
    let timeout = match point.as_str() {
        "full-short" => 2,
        point if point.contains("revert") => 1,
        _ => 600,
    };
    let full = point.starts_with("full");
    if full {
        fill(home);
    }
    responder.submit(order(home, &CASES[n], &address, timeout)).unwrap();
    while let Ok(told) = outcomes.recv_timeout(Duration::from_secs(20)) {
        if full {
            // What the kernel ends is in force, said so, and nothing else was begun.
            let expected = if n < IN_FIREWALL { OutcomeKind::Applied } else { OutcomeKind::Failed };
            assert_eq!(told.kind, expected, "{}: {}", CASES[n].name, told.detail);
            assert!(n >= IN_FIREWALL || told.detail.contains("not journaled"), "{}", told.detail);
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
