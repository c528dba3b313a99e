//! Files that hang delay no other response. `TLD_HANGING_ORDERS` asks for more orders than the gate has time for (10,000 is
//! the number that is promised).

#![expect(clippy::unwrap_used, reason = "a test program: it reports by failing and says what it measured")]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use tld_model::{Order, OrderId, OrderOptions, OutcomeKind, RawJson, Target, Timestamp, Timings};
use tld_respond::{Mode, Responder, Setup};
use tld_sys::clock::{Clock as _, SystemClock};

/// Hangs where its message says so, without a key line and without end.
const SCRIPT: &str = "#!/bin/sh
read -r line
case $line in *please-hang*) exec sleep 40 ;; esac
";

fn order(n: usize, hang: bool) -> Order {
    Order {
        id: OrderId(format!("o{n}")),
        response: "custom0".into(),
        executable: "custom".into(),
        timeout_secs: 0,
        extra_args: if hang { vec!["please-hang".into()] } else { vec![] },
        node: "node01".into(),
        alert: RawJson::from(serde_json::value::RawValue::from_string("{}".into()).unwrap()),
        alert_id: "1.2".into(),
        rule: None,
        target: Target::None,
        created: Timestamp::from_nanos(SystemClock.wall_nanos()),
        timings: Timings::default(),
        options: OrderOptions::default(),
    }
}

/// Time until every order that does not hang has its outcome.
fn run(home: &Path, count: usize, hangs: impl Fn(usize) -> bool) -> Duration {
    for path in ["active-response/bin", "logs"] {
        std::fs::create_dir_all(home.join(path)).unwrap();
    }
    let program = home.join("active-response/bin/custom");
    tld_sys::durable::replace(&program, SCRIPT.as_bytes(), 0o750).unwrap();
    let mut setup = Setup::new(home.into(), Arc::new(SystemClock), Arc::new(|_| {}));
    setup.mode = Mode::DryRun("only files are tested".into());
    let (sender, outcomes) = channel();
    let responder = Responder::start(setup, sender).unwrap();
    let begin = SystemClock.boot();
    for n in 0..count {
        responder.submit_waiting(order(n, hangs(n))).unwrap();
    }
    let mut left = (0..count).filter(|n| !hangs(*n)).count();
    while left > 0 {
        let told = outcomes.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
        left -= 1;
    }
    let took = SystemClock.boot() - begin;
    responder.stop();
    took
}

#[test]
fn every_tenth_file_hanging_delays_no_other_outcome() {
    let count = std::env::var("TLD_HANGING_ORDERS").ok().and_then(|text| text.parse().ok()).unwrap_or(800);
    // A machine that is busy with other things in one half and not in the other may spoil a round, but not all of them.
    let delays_none = (0..4).any(|_| {
        let (quiet, troubled) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let alone = run(quiet.path(), count - count / 10, |_| false);
        let beside = run(troubled.path(), count, |n| n % 10 == 9);
        println!("{count} orders: without those that hang {alone:?}, beside them {beside:?}");
        // A slot is given up after half a second; what the kernel shares out among processes is not ours.
        let rounds = Duration::from_millis(500) * u32::try_from(count / 640 + 1).unwrap();
        beside < alone * 2 + rounds + Duration::from_secs(2)
    });
    assert!(delays_none, "in none of 4 rounds");
}
