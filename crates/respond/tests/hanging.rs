//! Files that hang delay no other response. `TLD_HANGING_ORDERS` asks for more orders than the gate has time for (10,000 is
//! the number that is promised), and for the times to be compared.

#![expect(clippy::unwrap_used, reason = "a test program: it reports by failing and says what it measured")]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tld_model::{Order, OrderId, OrderOptions, Outcome, OutcomeKind, RawJson, Target, Timestamp, Timings};
use tld_respond::{Mode, Responder, Setup};
use tld_sys::clock::{Clock as _, SystemClock};

/// Hangs where its message says so, without a key line, until the test is over: it reads what is never written.
const SCRIPT: &str = "#!/bin/sh
read -r line
case $line in *please-hang*) exec cat pipe ;; *please-end*) exec cat /dev/null ;; esac
";

const PATIENCE: Duration = Duration::from_secs(120);

/// What an order's file is asked to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    /// As much work as before hanging.
    End,
    Hang,
}

fn order(n: usize, executable: &str, wish: Wish) -> Order {
    let (name, argument) = match wish {
        Wish::Nothing => ("ends", None),
        Wish::End => ("ends", Some("please-end".to_owned())),
        Wish::Hang => ("hangs", Some("please-hang".to_owned())),
    };
    Order {
        id: OrderId(format!("{name}{n}")),
        response: format!("{executable}0"),
        executable: executable.into(),
        timeout_secs: 0,
        extra_args: argument.into_iter().collect(),
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

struct Rig {
    responder: Responder,
    outcomes: Receiver<Outcome>,
    pipe: File,
}

impl Rig {
    fn start(home: &Path) -> Self {
        for path in ["active-response/bin", "logs"] {
            std::fs::create_dir_all(home.join(path)).unwrap();
        }
        for name in ["custom", "other"] {
            let program = home.join("active-response/bin").join(name);
            tld_sys::durable::replace(&program, SCRIPT.as_bytes(), 0o750).unwrap();
        }
        let mut setup = Setup::new(home.into(), Arc::new(SystemClock), Arc::new(|_| {}));
        setup.mode = Mode::DryRun("only files are tested".into());
        let (sender, outcomes) = channel();
        let pipe = home.join("pipe");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, 0o600.into(), 0).unwrap();
        let pipe = File::options().read(true).write(true).open(pipe).unwrap();
        Self { responder: Responder::start(setup, sender).unwrap(), outcomes, pipe }
    }

    /// Waits for so many outcomes, all of orders that end.
    fn ended(&self, count: usize) {
        for n in 0..count {
            let told = self.outcomes.recv_timeout(PATIENCE);
            assert!(told.is_ok(), "only {n} of {count} outcomes came");
            let told = told.unwrap();
            assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
            assert!(told.order.0.starts_with("ends"), "{}", told.order.0);
        }
    }

    /// Ends what hangs.
    fn stop(self) {
        drop(self.pipe);
        self.responder.stop();
    }

    /// Time until every order that does not hang has its outcome.
    fn burst(&self, count: usize, wish: impl Fn(usize) -> Wish) -> Duration {
        let begin = SystemClock.boot();
        for n in 0..count {
            self.responder.submit_waiting(order(n, "custom", wish(n))).unwrap();
        }
        self.ended((0..count).filter(|n| wish(*n) != Wish::Hang).count());
        SystemClock.boot() - begin
    }
}

#[test]
fn every_tenth_file_hanging_keeps_no_other_from_its_outcome() {
    let asked = std::env::var("TLD_HANGING_ORDERS").ok().and_then(|text| text.parse::<usize>().ok());
    let home = tempfile::tempdir().unwrap();
    let tenth = |wish: Wish| move |n: usize| if n % 10 == 9 { wish } else { Wish::Nothing };
    // Those that hang are more than there are slots, so that without room made for them the others would never run.
    let Some(count) = asked else {
        let rig = Rig::start(home.path());
        rig.burst(800, tenth(Wish::Hang));
        return rig.stop();
    };
    let mut best = [Duration::MAX; 3];
    for _ in 0..3 {
        let nine = count - count / 10;
        for (at, best) in best.iter_mut().enumerate() {
            let home = tempfile::tempdir().unwrap();
            let rig = Rig::start(home.path());
            let took = match at {
                0 => rig.burst(nine, |_| Wish::Nothing),
                1 => rig.burst(count, tenth(Wish::End)),
                _ => rig.burst(count, tenth(Wish::Hang)),
            };
            println!(
                "{} took {took:?}",
                ["without every tenth", "every tenth ends", "every tenth hangs"][at]
            );
            *best = took.min(*best);
            rig.stop();
        }
    }
    println!("{count} orders, the best of three: {best:?}");
}

#[test]
fn a_file_that_always_hangs_delays_no_order_of_another() {
    let home = tempfile::tempdir().unwrap();
    let rig = Rig::start(home.path());
    // None of them ends; in one queue the others would stand behind them all.
    for n in 0..400 {
        rig.responder.submit_waiting(order(n, "custom", Wish::Hang)).unwrap();
    }
    for n in 0..50 {
        rig.responder.submit_waiting(order(n, "other", Wish::Nothing)).unwrap();
        rig.ended(1);
    }
    rig.stop();
}
