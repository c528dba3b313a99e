//! The state machine over a firewall in memory and a clock that is moved by hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tld_model::{
    Order, OrderId, OrderOptions, Outcome, OutcomeKind, RawJson, Target, Timestamp, Timings, Zone,
};
use tld_sys::clock::{ManualClock, SystemClock};
use tld_sys::nft::Spot;

use super::slots::{Room, Slots};
use super::{Executor, Input, Parts, Settings};
use crate::executable::Recogniser;
use crate::guard::Guard;
use crate::journal::{self, Journal, State};
use crate::kernel::{Change, Kernel, KernelError, Seen};
use crate::log::Writer;
use crate::reconcile::Disturbance;
use crate::{Limits, RevertSelector};

mod trouble;

const OURS: &[u8] = b"our own executable";
const DROP: &str = "active-response/bin/firewall-drop";

/// A firewall in memory. Only for tests.
#[derive(Debug, Default)]
struct Memory {
    set: BTreeMap<Spot, Option<Duration>>,
    changes: usize,
    broken: bool,
}

#[derive(Debug, Clone, Default)]
struct Fake(Arc<Mutex<Memory>>);

impl Kernel for Fake {
    fn place(&self) -> String {
        "memory".into()
    }

    fn change(&mut self, changes: &[Change]) -> Vec<Result<(), KernelError>> {
        let mut memory = self.0.lock().unwrap();
        memory.changes += 1;
        if memory.broken {
            return changes.iter().map(|_| Err(KernelError("broken".into()))).collect();
        }
        for change in changes {
            match *change {
                Change::Block(spot, lease) | Change::Create(spot, lease) => {
                    let _ = memory.set.insert(spot, lease);
                }
                Change::Unblock(spot) => {
                    let _ = memory.set.remove(&spot);
                }
            }
        }
        changes.iter().map(|_| Ok(())).collect()
    }

    fn look(&mut self, spots: &[Spot]) -> Result<Vec<Seen>, KernelError> {
        let memory = self.0.lock().unwrap();
        let seen = |spot| memory.set.get(spot).map_or(Seen::Absent, |lease| Seen::Present(*lease));
        Ok(spots.iter().map(seen).collect())
    }

    fn list(&mut self) -> Result<Vec<(Spot, Option<Duration>)>, KernelError> {
        Ok(self.0.lock().unwrap().set.iter().map(|(address, lease)| (*address, *lease)).collect())
    }

    fn ensure(&mut self) -> Result<(), KernelError> {
        Ok(())
    }
}

struct Rig {
    home: tempfile::TempDir,
    clock: Arc<ManualClock>,
    kernel: Fake,
    offenders: Vec<u32>,
    boot_id: String,
}

struct Running {
    executor: Executor,
    outcomes: Receiver<Outcome>,
    _inputs: Receiver<Input>,
}

impl Rig {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for directory in ["active-response/bin", "logs"] {
            std::fs::create_dir_all(home.path().join(directory)).unwrap();
        }
        place(home.path(), "firewall-drop", OURS);
        let clock = ManualClock::new(1_772_446_530_000_000_000, Duration::from_secs(1_000));
        Self {
            home,
            clock: Arc::new(clock),
            kernel: Fake::default(),
            offenders: vec![],
            boot_id: "boot-1".into(),
        }
    }

    fn start(&self) -> Running {
        let (sender, outcomes) = channel();
        let (inbox, inputs) = sync_channel(64);
        let log: crate::LogFn = Arc::new(|_| {});
        let (journal, damage) = Journal::open(self.home.path(), &self.boot_id).unwrap();
        let mut executor = Executor::new(Parts {
            settings: Settings {
                home: self.home.path().into(),
                repeated_offenders: self.offenders.clone(),
                limits: Limits::default(),
                zone: Zone::utc(),
                crash_at: None,
                log: Arc::clone(&log),
                boot_id: self.boot_id.clone(),
                places: crate::Places::default(),
                groups: tld_sys::group::Groups::counted(),
                unable: None,
                dry_run: None,
            },
            clock: self.clock.clone(),
            journal,
            kernel: Some(Box::new(self.kernel.clone())),
            guard: Guard::start(vec!["198.51.100.0/24".parse().unwrap()], &[], Box::new(Vec::new)).unwrap(),
            recogniser: Recogniser::new(Some(Sha256::digest(OURS).into())),
            writer: {
                let clock = Arc::new(SystemClock);
                let keeper = crate::log::Keeper::new(
                    self.home.path(),
                    crate::Rotation::default(),
                    &Zone::utc(),
                    clock,
                );
                Writer::start(self.home.path(), log, keeper).unwrap()
            },
            outcomes: sender,
            inbox,
        });
        executor.replay(damage.as_deref()).unwrap();
        Running { executor, outcomes, _inputs: inputs }
    }

    fn blocked(&self, address: &str) -> Option<Option<Duration>> {
        let address: std::net::IpAddr = address.parse().unwrap();
        self.kernel.0.lock().unwrap().set.get(&address.into()).copied()
    }

    fn wipe(&self) {
        self.kernel.0.lock().unwrap().set.clear();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join(crate::log::PATH)).unwrap_or_default()
    }
}

impl Running {
    fn give(&mut self, orders: impl IntoIterator<Item = Order>) -> Vec<Outcome> {
        self.executor.cycle(orders.into_iter().map(|order| Input::Order(Box::new(order))).collect());
        self.told()
    }

    fn tick(&mut self) -> Vec<Outcome> {
        self.executor.cycle(Vec::new());
        self.told()
    }

    fn told(&self) -> Vec<Outcome> {
        self.outcomes.try_iter().collect()
    }
}

fn place(home: &Path, name: &str, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = home.join("active-response/bin").join(name);
    tld_sys::durable::replace(&path, content, 0o750).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o750)).unwrap();
}

pub(super) fn order(id: &str, address: &str, timeout: u64) -> Order {
    let alert = format!(r#"{{"rule":{{"level":10,"id":"100200"}},"data":{{"srcip":"{address}"}}}}"#);
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
        target: address.parse().map_or(Target::None, Target::Address),
        created: Timestamp::from_secs(1_772_446_530),
        timings: Timings::default(),
        options: OrderOptions::default(),
    }
}

fn flushed(by: Option<&str>) -> Disturbance {
    Disturbance { by: by.map(str::to_owned), all: true, ..Disturbance::default() }
}

fn kinds(outcomes: &[Outcome]) -> Vec<OutcomeKind> {
    outcomes.iter().map(|outcome| outcome.kind).collect()
}

#[test]
fn a_block_is_applied_read_back_and_lifted_at_its_end() {
    let rig = Rig::new();
    let mut running = rig.start();
    let told = running.give([order("a", "203.0.113.7", 600)]);
    assert_eq!(kinds(&told), [OutcomeKind::Applied]);
    assert_eq!(told[0].evidence.read_back.as_deref(), Some("memory has 203.0.113.7, 600 s left"));
    assert_eq!(told[0].until, Some(Timestamp::from_secs(1_772_447_130)));
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(600))));
    rig.clock.advance(Duration::from_secs(599));
    assert!(running.tick().is_empty());
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(kinds(&running.tick()), [OutcomeKind::Reverted]);
    assert_eq!(rig.blocked("203.0.113.7"), None);
    drop(running);
    let line = |verb: &str| {
        format!(
            r#"{{"version":1,"origin":{{"name":"node01","module":"wazuh-execd"}},"command":"{verb}","parameters":{{"extra_args":[],"alert":{{"rule":{{"level":10,"id":"100200"}},"data":{{"srcip":"203.0.113.7"}}}},"program":"{DROP}"}}}}"#
        )
    };
    let keys = r#"{"version":1,"origin":{"name":"firewall-drop","module":"active-response"},"command":"check_keys","parameters":{"keys":["203.0.113.7"]}}"#;
    let (on, off) = (format!("2026/03/02 10:15:30 {DROP}"), format!("2026/03/02 10:25:30 {DROP}"));
    let (add, go, delete) = (line("add"), line("continue"), line("delete"));
    assert_eq!(
        rig.log(),
        format!(
            "{on}: Starting\n{on}: {add}\n\n{on}: {keys}\n{on}: {go}\n\n{on}: Ended\n\
             {off}: Starting\n{off}: {delete}\n\n{off}: Ended\n"
        )
    );
}

#[test]
fn the_same_order_acts_once_and_gets_the_same_answer() {
    let rig = Rig::new();
    let mut running = rig.start();
    let twice = [order("a", "203.0.113.7", 600), order("a", "203.0.113.7", 600)];
    assert_eq!(kinds(&running.give(twice)), [OutcomeKind::Applied]);
    let changes = rig.kernel.0.lock().unwrap().changes;
    assert_eq!(kinds(&running.give([order("a", "203.0.113.7", 600)])), [OutcomeKind::Applied]);
    drop(running);
    let mut running = rig.start();
    assert_eq!(kinds(&running.give([order("a", "203.0.113.7", 600)])), [OutcomeKind::Applied]);
    assert_eq!(rig.kernel.0.lock().unwrap().changes, changes);
}

#[test]
fn a_second_order_for_the_key_only_moves_the_end_out() {
    let rig = Rig::new();
    let mut running = rig.start();
    running.give([order("a", "203.0.113.7", 600)]);
    assert_eq!(kinds(&running.give([order("b", "203.0.113.7", 60)])), [OutcomeKind::AlreadyActive]);
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(600))));
    let told = running.give([order("c", "::ffff:203.0.113.7", 900), order("d", "203.0.113.7", 30)]);
    assert_eq!(kinds(&told), [OutcomeKind::AlreadyActive, OutcomeKind::AlreadyActive]);
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(900))));
    rig.clock.advance(Duration::from_secs(899));
    assert!(running.tick().is_empty());
    rig.clock.advance(Duration::from_secs(1));
    let told = running.tick();
    assert_eq!((kinds(&told), told[0].order.0.as_str()), (vec![OutcomeKind::Reverted], "a"));
}

#[test]
fn orders_for_one_key_within_a_burst_become_one_block() {
    let rig = Rig::new();
    let mut running = rig.start();
    let told = running.give((0..100).map(|n| order(&format!("o{n}"), "203.0.113.7", 600)));
    let applied = told.iter().filter(|outcome| outcome.kind == OutcomeKind::Applied).count();
    assert_eq!((told.len(), applied), (100, 1));
}

#[test]
fn a_burst_of_a_thousand_is_a_few_transactions() {
    let rig = Rig::new();
    let mut running = rig.start();
    let told = running
        .give((0..1_000).map(|n| order(&format!("o{n}"), &format!("10.9.{}.{}", n / 250, n % 250), 600)));
    assert!(told.iter().all(|outcome| outcome.kind == OutcomeKind::Applied) && told.len() == 1_000);
    assert!(rig.kernel.0.lock().unwrap().changes <= 4);
    running.executor.cycle(vec![Input::Revert(RevertSelector::All)]);
    assert_eq!(running.told().len(), 1_000);
    assert!(rig.kernel.0.lock().unwrap().set.is_empty());
}

#[test]
fn guards_refuse_and_say_why() {
    let rig = Rig::new();
    let mut running = rig.start();
    let told = running.give([order("a", "127.0.0.1", 600), order("b", "198.51.100.9", 600)]);
    assert_eq!(kinds(&told), [OutcomeKind::Refused, OutcomeKind::Refused]);
    assert!(told[0].detail.contains("loopback") && told[1].detail.contains("configuration"));
    assert!(rig.kernel.0.lock().unwrap().set.is_empty());
}

#[test]
fn an_unknown_file_and_a_missing_address_are_said() {
    let rig = Rig::new();
    let mut running = rig.start();
    let mut unknown = order("a", "203.0.113.7", 600);
    unknown.executable = "nothing".into();
    let told = running.give([unknown, order("b", "host.example", 600)]);
    assert_eq!(kinds(&told), [OutcomeKind::NotFound, OutcomeKind::Refused]);
    drop(running);
    assert!(rig.log().contains("Cannot read 'srcip' from data or invalid IP format"));
}

#[test]
fn nesting_of_ten_thousand_levels_does_not_hide_the_address() {
    let rig = Rig::new();
    let mut running = rig.start();
    let mut deep = order("a", "203.0.113.7", 600);
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let alert = format!(r#"{{"data":{{"x":{nested},"srcip":"203.0.113.7","y":{nested}}}}}"#);
    deep.alert = RawJson::from(serde_json::value::RawValue::from_string(alert).unwrap());
    assert_eq!(kinds(&running.give([deep])), [OutcomeKind::Applied]);
    drop(running);
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(600))));
    assert_eq!(kinds(&rig.start().told()), [], "the journal holds it in a form that can be read again");
}

#[test]
fn a_permanent_block_has_no_lease_and_is_lifted_by_hand() {
    let rig = Rig::new();
    let mut running = rig.start();
    let told = running.give([order("a", "203.0.113.7", 0)]);
    assert_eq!((told[0].kind, told[0].until), (OutcomeKind::Applied, None));
    assert_eq!(rig.blocked("203.0.113.7"), Some(None));
    assert_eq!(kinds(&running.give([order("b", "203.0.113.7", 60)])), [OutcomeKind::AlreadyActive]);
    assert_eq!(rig.blocked("203.0.113.7"), Some(None));
    running.executor.cycle(vec![Input::Revert(RevertSelector::Address("203.0.113.7".parse().unwrap()))]);
    assert_eq!(kinds(&running.told()), [OutcomeKind::Reverted]);
    assert_eq!(rig.blocked("203.0.113.7"), None);
}

#[test]
fn a_restart_keeps_blocks_and_their_ends() {
    let rig = Rig::new();
    rig.start().give([order("a", "203.0.113.7", 600), order("b", "203.0.113.8", 60)]);
    rig.clock.advance(Duration::from_secs(100));
    // The wall clock jumps a year; within one boot it does not matter.
    rig.clock.set_wall(1_803_982_530_000_000_000);
    rig.wipe();
    let mut running = rig.start();
    let told = running.told();
    assert_eq!((kinds(&told), told[0].order.0.as_str()), (vec![OutcomeKind::Reverted], "b"));
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(500))));
    rig.clock.advance(Duration::from_secs(500));
    assert_eq!(kinds(&running.tick()), [OutcomeKind::Reverted]);
}

#[test]
fn after_a_reboot_the_wall_clock_counts_but_never_beyond_the_length() {
    let mut rig = Rig::new();
    rig.start().give([order("a", "203.0.113.7", 600)]);
    rig.boot_id = "boot-2".into();
    rig.clock.set_boot(Duration::from_secs(5));
    rig.clock.set_wall(1_772_446_530_000_000_000 + 200_000_000_000);
    rig.wipe();
    drop(rig.start());
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(400))));
    rig.boot_id = "boot-3".into();
    rig.clock.set_wall(0);
    drop(rig.start());
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(600))));
}

#[test]
fn replaying_twice_is_replaying_once() {
    let rig = Rig::new();
    rig.start().give((0..50).map(|n| order(&format!("o{n}"), &format!("203.0.113.{n}"), 600)));
    drop(rig.start());
    let before = rig.kernel.0.lock().unwrap().set.clone();
    let running = rig.start();
    assert!(running.told().is_empty());
    assert_eq!(rig.kernel.0.lock().unwrap().set, before);
    assert_eq!(running.executor.active().len(), 50);
}

#[test]
fn a_failed_revert_is_told_once_and_tried_until_it_works() {
    let rig = Rig::new();
    let mut running = rig.start();
    running.give([order("a", "203.0.113.7", 60)]);
    rig.kernel.0.lock().unwrap().broken = true;
    rig.clock.advance(Duration::from_secs(60));
    assert_eq!(kinds(&running.tick()), [OutcomeKind::RevertFailed]);
    rig.clock.advance(Duration::from_secs(2));
    assert!(running.tick().is_empty());
    rig.kernel.0.lock().unwrap().broken = false;
    rig.clock.advance(Duration::from_secs(300));
    assert_eq!(kinds(&running.tick()), [OutcomeKind::Reverted]);
    assert_eq!(rig.blocked("203.0.113.7"), None);
}

#[test]
fn a_kernel_that_refuses_makes_the_order_fail() {
    let rig = Rig::new();
    rig.kernel.0.lock().unwrap().broken = true;
    let mut running = rig.start();
    assert_eq!(kinds(&running.give([order("a", "203.0.113.7", 60)])), [OutcomeKind::Failed]);
    assert!(running.executor.active().is_empty());
}

#[test]
fn repeat_offenders_stay_longer_after_each_finished_block_also_over_restarts() {
    let mut rig = Rig::new();
    rig.offenders = vec![1, 30];
    let mut running = rig.start();
    for (round, length) in [(0, 600), (1, 600), (2, 1_800), (3, 1_800)] {
        running.give([order(&format!("o{round}"), "203.0.113.7", 600)]);
        assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(length))), "round {round}");
        rig.clock.advance(Duration::from_secs(length));
        running.tick();
        drop(running);
        running = rig.start();
    }
    running.give([order("x", "203.0.113.7", 600)]);
    running.executor.cycle(vec![Input::Revert(RevertSelector::All)]);
    assert_eq!(rig.blocked("203.0.113.7"), None);
}

#[test]
fn what_others_remove_is_put_back_with_the_remaining_time_but_not_for_ever() {
    let rig = Rig::new();
    let mut running = rig.start();
    running.give([order("a", "203.0.113.7", 600)]);
    for _ in 0..5 {
        rig.wipe();
        rig.clock.advance(Duration::from_secs(1));
        running.executor.cycle(vec![Input::KernelChanged(flushed(Some("nft")))]);
        assert!(rig.blocked("203.0.113.7").is_some());
    }
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(595))));
    rig.wipe();
    rig.clock.advance(Duration::from_secs(1));
    running.executor.cycle(vec![Input::KernelChanged(flushed(None))]);
    assert_eq!(rig.blocked("203.0.113.7"), None);
    rig.clock.advance(Duration::from_secs(61));
    running.tick();
    assert!(rig.blocked("203.0.113.7").is_some());
}

#[test]
fn a_crash_between_the_steps_leaves_what_the_next_start_needs() {
    let rig = Rig::new();
    {
        let mut running = rig.start();
        running.give([order("a", "203.0.113.7", 600)]);
        // As if killed after the intent: the row says `applying`, the kernel knows nothing.
        let id = *running.executor.effects.keys().next().unwrap();
        running.executor.effects.get_mut(&id).unwrap().state = State::Applying;
        running.executor.note(id);
        running.executor.commit();
    }
    rig.wipe();
    rig.clock.advance(Duration::from_secs(10));
    let running = rig.start();
    assert_eq!(kinds(&running.told()), [OutcomeKind::Applied]);
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(590))));
    drop(running);
    let listed = journal::list(rig.home.path(), 10).unwrap();
    assert_eq!((listed.len(), listed[0].state), (1, State::Active));
}

#[test]
fn two_responses_on_one_address_hold_it_until_the_later_end() {
    let rig = Rig::new();
    place(rig.home.path(), "default-firewall-drop", OURS);
    let mut running = rig.start();
    let mut other = order("b", "203.0.113.7", 900);
    other.executable = "default-firewall-drop".into();
    running.give([order("a", "203.0.113.7", 600), other]);
    assert_eq!(rig.blocked("203.0.113.7"), Some(Some(Duration::from_secs(900))));
    rig.clock.advance(Duration::from_secs(600));
    assert_eq!(kinds(&running.tick()), [OutcomeKind::Reverted]);
    assert!(rig.blocked("203.0.113.7").is_some());
    rig.clock.advance(Duration::from_secs(300));
    assert_eq!(kinds(&running.tick()), [OutcomeKind::Reverted]);
    assert_eq!(rig.blocked("203.0.113.7"), None);
}

#[test]
fn only_one_responder_owns_a_home() {
    let rig = Rig::new();
    let _running = rig.start();
    assert!(matches!(Journal::open(rig.home.path(), "b"), Err(journal::JournalError::Held { .. })));
}

#[test]
fn a_stateless_file_cut_by_a_crash_is_not_repeated() {
    let rig = Rig::new();
    place(rig.home.path(), "notify", b"#!/bin/sh\ntrue\n");
    let mut notify = order("a", "203.0.113.7", 0);
    notify.executable = "notify".into();
    assert!(rig.start().give([notify]).is_empty());
    assert_eq!(kinds(&rig.start().told()), [OutcomeKind::Interrupted]);
    assert!(rig.start().told().is_empty());
}

#[test]
fn a_file_that_waits_is_withdrawn_when_it_is_lifted() {
    let rig = Rig::new();
    place(rig.home.path(), "notify", b"#!/bin/sh\ntrue\n");
    let mut running = rig.start();
    running.executor.adds = Slots::new(Room { slots: 0, parked: 0, memory: 0 });
    let mut notify = order("a", "203.0.113.7", 60);
    notify.executable = "notify".into();
    running.give([notify]);
    running.executor.cycle(vec![Input::Revert(RevertSelector::Order(OrderId("a".into())))]);
    assert_eq!(kinds(&running.told()), [OutcomeKind::Cancelled]);
}
