//! The operator's door: the same wishes while the service runs and when it is dead.

#![expect(clippy::unwrap_used, reason = "a test program: it reports by failing")]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use tld_model::{Order, OrderId, OrderOptions, OutcomeKind, RawJson, Target, Timestamp, Timings};
use tld_respond::control::{Request, carry_out, is_paused};
use tld_respond::{Places, Responder, RevertSelector, Setup, self_hash};
use tld_sys::clock::{Clock as _, SystemClock};

const PATIENCE: Duration = Duration::from_secs(20);

fn setup(home: &Path) -> Setup {
    let mut setup = Setup::new(home.into(), Arc::new(SystemClock), Arc::new(|_| {}));
    setup.self_hash = Some(self_hash().unwrap());
    setup.places = Places { hosts_deny: home.join("hosts.deny"), ..Places::default() };
    setup
}

fn order(id: &str, name: &str) -> Request {
    let alert = r#"{"data":{"srcip":"203.0.113.7"}}"#.to_owned();
    Request::Add(Box::new(Order {
        id: OrderId(id.into()),
        response: format!("{name}600"),
        executable: name.into(),
        timeout_secs: 600,
        extra_args: vec![],
        node: "node01".into(),
        alert: RawJson::from(serde_json::value::RawValue::from_string(alert).unwrap()),
        alert_id: "0".into(),
        rule: None,
        target: Target::Address("203.0.113.7".parse().unwrap()),
        created: Timestamp::from_nanos(SystemClock.wall_nanos()),
        timings: Timings::default(),
        options: OrderOptions::default(),
    }))
}

fn wishes(home: &Path, round: &str) {
    let ask = |request: Request| {
        let told = carry_out(setup(home), request, PATIENCE).unwrap().outcomes;
        told.into_iter().map(|outcome| outcome.kind).collect::<Vec<_>>()
    };
    let all = || Request::Revert(RevertSelector::All);
    let address = RevertSelector::Address("203.0.113.7".parse().unwrap());
    let id = |name: &str| format!("{round}-{name}");
    assert_eq!(ask(Request::Pause), []);
    assert!(is_paused(home));
    assert_eq!(ask(order(&id("paused"), "host-deny")), [OutcomeKind::Refused]);
    assert_eq!(ask(Request::Resume), []);
    assert!(!is_paused(home));
    assert_eq!(ask(order(&id("one"), "host-deny")), [OutcomeKind::Applied]);
    assert_eq!(ask(order(&id("two"), "firewall-drop")), [OutcomeKind::Applied]);
    assert_eq!(ask(Request::Extend(address.clone(), 5_000)).len(), 2);
    for listed in tld_respond::journal::list(home, 0).unwrap() {
        let left = listed.until.unwrap().since(Timestamp::from_nanos(SystemClock.wall_nanos()));
        assert!(left > Duration::from_secs(4_000), "{left:?}");
    }
    assert_eq!(ask(Request::Revert(address)), [OutcomeKind::Reverted; 2]);
    assert_eq!(std::fs::read_to_string(home.join("hosts.deny")).unwrap_or_default(), "");
    assert_eq!(ask(all()), []);
}

#[test]
fn wishes_are_carried_out_with_and_without_the_service() {
    let ran = std::thread::scope(|scope| {
        let work = || {
            if tld_sys::net_namespace::enter_private().is_err() {
                return false;
            }
            let home = tempfile::tempdir().unwrap();
            for path in ["active-response/bin", "logs"] {
                std::fs::create_dir_all(home.path().join(path)).unwrap();
            }
            for name in ["host-deny", "firewall-drop"] {
                let file = home.path().join("active-response/bin").join(name);
                std::fs::copy(std::env::current_exe().unwrap(), file).unwrap();
            }
            wishes(home.path(), "dead");
            let (sender, outcomes) = channel();
            let responder = Responder::start(setup(home.path()), sender).unwrap();
            wishes(home.path(), "alive");
            responder.stop();
            assert!(outcomes.try_iter().count() >= 5, "the service itself told the outcomes too");
            wishes(home.path(), "dead again");
            true
        };
        scope.spawn(work).join().expect("the test panicked")
    });
    if !ran {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "root is required");
        println!("skipped: needs root and a private network namespace");
    }
}
