//! How the responder bears many blocks, on the real kernel in a network namespace of its own: `cargo bench -p tld-respond
//! --bench scale`. Needs root. `TLD_SCALE` sets how many blocks are present at most (1,000,000), `TLD_SCALE_BURSTS` leaves all out but
//! bursts; run by `cargo test`
//! it is a tiny one, so that it cannot rot.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench: it reports by failing and prints its figures"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tld_model::{
    Order, OrderId, OrderOptions, Outcome, OutcomeKind, RawJson, Target, Timestamp, Timings, Zone,
};
use tld_respond::{Responder, Setup, TABLE, self_hash};
use tld_sys::clock::{Clock as _, SystemClock};
use tld_sys::nft::Firewall;

/// What an alert of the contract looks like; about 900 bytes, as a common one for a failed login.
fn alert(address: IpAddr) -> RawJson {
    let log =
        format!("Nov 23 02:00:00 web sshd[811]: Failed password for root from {address} port 40022 ssh2");
    let alert = serde_json::json!({
        "timestamp": "2026-11-23T02:00:00.000+0000",
        "rule": {"level": 10, "description": "Several failed logins from one address", "id": "100200", "frequency": 8,
                 "firedtimes": 1, "mail": false, "groups": ["syslog", "sshd", "authentication_failures"],
                 "mitre": {"id": ["T1110"], "tactic": ["Credential Access"], "technique": ["Brute Force"]}},
        "agent": {"id": "000", "name": "web"}, "manager": {"name": "web"}, "id": "1795399200.123456",
        "previous_output": log.repeat(3), "full_log": log,
        "predecoder": {"program_name": "sshd", "timestamp": "Nov 23 02:00:00", "hostname": "web"},
        "decoder": {"parent": "sshd", "name": "sshd"},
        "data": {"srcip": address, "srcport": "40022", "dstuser": "root"}, "location": "/var/log/auth.log",
    });
    RawJson::from(serde_json::value::to_raw_value(&alert).unwrap())
}

fn order(n: u32, timeout: u64) -> Order {
    let address = IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + n));
    Order {
        id: OrderId(format!("node01-1795399200.{n}-0")),
        response: format!("firewall-drop{timeout}"),
        executable: "firewall-drop".into(),
        timeout_secs: timeout,
        extra_args: vec![],
        node: "node01".into(),
        alert: alert(address),
        alert_id: format!("1795399200.{n}"),
        rule: Some(tld_model::RuleId(100_200)),
        target: Target::Address(address),
        created: Timestamp::from_nanos(SystemClock.wall_nanos()),
        timings: Timings::default(),
        options: OrderOptions::default(),
    }
}

fn setup(home: &Path) -> Setup {
    let log: tld_respond::LogFn = Arc::new(|line| println!("    log: {line}"));
    let mut setup = Setup::new(home.into(), Arc::new(SystemClock), log);
    setup.zone = Zone::utc();
    setup.self_hash = Some(self_hash().unwrap());
    setup
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = SystemClock.boot();
    let done = work();
    (done, SystemClock.boot() - begin)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

struct Rig {
    responder: Responder,
    outcomes: Receiver<Outcome>,
    next: u32,
}

impl Rig {
    fn start(setup: Setup, next: u32) -> Self {
        let (sender, outcomes) = channel();
        Self { responder: Responder::start(setup, sender).unwrap(), outcomes, next }
    }

    fn applied(&self) {
        let told = self.outcomes.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
    }

    /// Orders that arrive as fast as they are taken, ten thousand at a time; for each such burst the time until the last
    /// is proven, and this process's processor time.
    fn bursts(&mut self, count: u32) -> Vec<(Duration, Duration)> {
        let mut left = count;
        let mut all = Vec::new();
        while left > 0 {
            let piece = left.min(10_000);
            // Orders are made outside of what is measured.
            let orders: Vec<_> = (self.next..self.next + piece).map(|n| order(n, 86_400)).collect();
            self.next += piece;
            left -= piece;
            let before = tld_sys::usage::processor();
            let ((), took) = timed(|| {
                let (responder, outcomes) = (&self.responder, &self.outcomes);
                for order in orders {
                    responder.submit_waiting(order).unwrap();
                }
                for _ in 0..piece {
                    let told = outcomes.recv_timeout(Duration::from_secs(60)).unwrap();
                    assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
                }
            });
            all.push((took, tld_sys::usage::processor() - before));
        }
        all
    }

    /// Five bursts of `count` at most, shown; between them the log's thread gets a moment to end.
    fn show_bursts(&mut self, present: u32, count: u32) {
        for _ in 0..5 {
            let (took, processor) = self.bursts(count)[0];
            println!(
                "burst of {count} orders to proven outcomes, {present} present: {took:?}, processor time {processor:?}"
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn singles(&mut self, present: u32, count: usize) {
        let mut whole = Vec::new();
        let mut step = Vec::new();
        let mut firewall = Firewall::open().unwrap();
        for n in 0..count {
            let order = order(self.next, 86_400);
            self.next += 1;
            whole.push(
                timed(|| {
                    self.responder.submit(order).unwrap();
                    self.applied();
                })
                .1,
            );
            // The kernel's part alone: one transaction and one question.
            let probe =
                IpAddr::from(Ipv4Addr::from_bits(0xc000_0000 + self.next + u32::try_from(n).unwrap()));
            step.push(
                timed(|| {
                    firewall.block(TABLE, &[(probe, Some(Duration::from_secs(60)))]).unwrap();
                    assert!(firewall.lookup(TABLE, probe).unwrap().is_some());
                })
                .1,
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        println!("single block, {present} present: {}", quantiles(&mut whole));
        println!("    kernel step alone: {}", quantiles(&mut step));
    }
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 1_000).min(times.len() - 1)];
    format!("p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}", at(500), at(990), at(999), times[times.len() - 1])
}

fn run(most: u32, singles: usize) {
    let home = tempfile::tempdir().unwrap();
    for path in ["active-response/bin", "logs"] {
        std::fs::create_dir_all(home.path().join(path)).unwrap();
    }
    let own = std::env::current_exe().unwrap();
    std::fs::copy(own, home.path().join("active-response/bin/firewall-drop")).unwrap();
    let small = most / 100;
    let mut rig = Rig::start(setup(home.path()), 0);
    rig.singles(0, singles);
    rig.show_bursts(0, small);
    let bursts_only = std::env::var_os("TLD_SCALE_BURSTS").is_some();
    let singles = if bursts_only { 1 } else { singles };
    rig.singles(small, singles);
    let before = resident_kib();
    let all = rig.bursts(most - small);
    let sum = |which: fn(&(Duration, Duration)) -> Duration| all.iter().map(which).sum::<Duration>();
    let (wall, processor) = (sum(|one| one.0), sum(|one| one.1));
    println!("{} more blocks in bursts of 10000: {wall:?}, processor time {processor:?}", most - small);
    for tenth in all.chunks(all.len().div_ceil(10)) {
        println!(
            "    the next {} bursts: {:?}",
            tenth.len(),
            tenth.iter().map(|one| one.1).sum::<Duration>()
        );
    }
    rig.singles(most, singles);
    rig.show_bursts(most, small);
    let grown = resident_kib().saturating_sub(before) * 1024;
    println!("resident memory of this process: {} bytes per block", grown / u64::from(most));
    if bursts_only {
        return rig.responder.stop();
    }
    let next = rig.next;
    let held = rig.responder.active().len();
    rig.responder.stop();
    let (rig, took) = timed(|| Rig::start(setup(home.path()), next));
    println!("restart with {held} blocks, all in the kernel: {took:?}");
    assert_eq!(rig.responder.active().len(), held);
    rig.responder.stop();
    Firewall::open().unwrap().delete_table(TABLE).unwrap();
    let mut rebooted = setup(home.path());
    rebooted.boot_id = Some("another boot".into());
    let (mut rig, took) = timed(|| Rig::start(rebooted, next));
    println!("start after a reboot with {held} blocks, none in the kernel: {took:?}");
    let heal = SystemClock.boot();
    Firewall::open().unwrap().delete_table(TABLE).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    rig.singles(most, singles.min(200));
    let last = IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + next - 1));
    let mut firewall = Firewall::open().unwrap();
    while firewall.lookup(TABLE, last).unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!(
        "flush of {held} blocks healed within {:?}, single blocks above meanwhile",
        SystemClock.boot() - heal
    );
    rig.responder.stop();
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let most = std::env::var("TLD_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let ran = std::thread::scope(|scope| {
        let work = || {
            if tld_sys::net_namespace::enter_private().is_err() || Firewall::open().is_err() {
                return false;
            }
            if measured {
                run(most, 2_000);
            } else {
                run(1_000, 20);
            }
            true
        };
        scope.spawn(work).join().expect("the bench panicked")
    });
    if !ran {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no private network namespace with nftables");
        println!("skipped: needs root and nftables in a private network namespace");
    }
}
