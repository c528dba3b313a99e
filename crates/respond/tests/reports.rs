//! What a manager is told of its orders, over restarts, until it has confirmed it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tld_model::{Order, OrderId, OrderOptions, OutcomeKind, Target, Timestamp, Timings};
use tld_respond::{Mode, Report, Responder, Setup};
use tld_sys::clock::{Clock, SystemClock};

fn start(home: &Path) -> (Responder, Receiver<Report>) {
    let (reports, told) = channel();
    let setup = Setup {
        mode: Mode::DryRun("a test".into()),
        reports: Some(reports),
        ..Setup::new(home.to_path_buf(), Arc::new(SystemClock), Arc::new(|_| {}))
    };
    (Responder::start(setup, channel().0).unwrap(), told)
}

fn order(id: &str, options: OrderOptions) -> Order {
    Order {
        id: OrderId(id.into()),
        response: "nothing0".into(),
        executable: "nothing".into(),
        timeout_secs: 0,
        extra_args: Vec::new(),
        node: String::new(),
        alert: serde_json::value::RawValue::from_string("{}".into()).unwrap(),
        alert_id: "1.0".into(),
        rule: None,
        target: Target::None,
        created: Timestamp::EPOCH,
        timings: Timings::default(),
        options,
    }
}

fn reported() -> OrderOptions {
    OrderOptions { reported: true, ..OrderOptions::default() }
}

fn next(told: &Receiver<Report>) -> Report {
    told.recv_timeout(Duration::from_secs(20)).expect("a report")
}

fn outcome(told: &Receiver<Report>) -> (String, OutcomeKind) {
    match next(told) {
        Report::Outcome(outcome) => (outcome.order.0, outcome.kind),
        Report::Received(order) => panic!("received {order}"),
    }
}

#[test]
fn an_outcome_is_told_after_every_start_until_it_is_confirmed() {
    let home = tempfile::tempdir().unwrap();
    let (responder, told) = start(home.path());
    responder.submit(order("o-1", reported())).unwrap();
    responder.submit(order("o-2", OrderOptions::default())).unwrap();
    assert_eq!(next(&told), Report::Received(OrderId("o-1".into())));
    assert_eq!(outcome(&told), ("o-1".into(), OutcomeKind::NotFound));
    responder.stop();
    let (responder, told) = start(home.path());
    assert_eq!(outcome(&told), ("o-1".into(), OutcomeKind::NotFound));
    // Sent again, it is answered again and nothing else happens.
    responder.submit(order("o-1", reported())).unwrap();
    assert_eq!(next(&told), Report::Received(OrderId("o-1".into())));
    assert_eq!(outcome(&told), ("o-1".into(), OutcomeKind::NotFound));
    responder.confirm(OrderId("o-1".into()), OutcomeKind::NotFound);
    responder.stop();
    let (responder, told) = start(home.path());
    responder.stop();
    assert!(told.try_recv().is_err());
}

#[test]
fn an_order_behind_its_deadline_or_withdrawn_is_not_carried_out() {
    let home = tempfile::tempdir().unwrap();
    let (responder, told) = start(home.path());
    let past = Timestamp::from_nanos(SystemClock.wall_nanos() - 5_000_000_000);
    responder.submit(order("late", OrderOptions { deadline: Some(past), ..reported() })).unwrap();
    assert_eq!(next(&told), Report::Received(OrderId("late".into())));
    assert_eq!(outcome(&told), ("late".into(), OutcomeKind::Expired));
    responder.withdraw(OrderId("gone".into()));
    assert_eq!(next(&told), Report::Received(OrderId("gone".into())));
    assert_eq!(outcome(&told), ("gone".into(), OutcomeKind::Cancelled));
    responder.submit(order("gone", reported())).unwrap();
    assert_eq!(next(&told), Report::Received(OrderId("gone".into())));
    assert_eq!(outcome(&told), ("gone".into(), OutcomeKind::Cancelled));
    responder.stop();
}
