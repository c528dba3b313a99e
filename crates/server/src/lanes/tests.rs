use std::sync::mpsc::{Sender, channel};

use proptest::prelude::*;
use tld_model::{Agent, AgentId, QUEUE_LOCAL};
use tld_rules::{Options, Ruleset, Settings};

use super::*;

/// Sends out what each event became.
struct Teller(Sender<String>);

impl Sink for Teller {
    fn take(&mut self, arrival: &Arrival, verdict: &mut Verdict<'_>, _preparer: &mut Preparer) {
        let mut text = String::from_utf8_lossy(&arrival.event.text).into_owned();
        if let Some(alert) = &verdict.alert {
            let mut json = Vec::new();
            alert.json.write("1.0", &mut json);
            text.push_str(&String::from_utf8_lossy(&json));
        }
        text.push_str(&format!("{:?}", verdict.effects));
        self.0.send(text).unwrap();
    }
}

fn shipped() -> Arc<Ruleset> {
    let (decoders, rules) = crate::shipped::texts();
    Ruleset::load(&decoders, &rules, &[], &Options::default()).ruleset.unwrap()
}

fn line(agent: u16, n: usize, source: u8) -> Event {
    let texts = [
        format!("Nov 22 10:00:00 web01 sshd[7]: Invalid user eve from 203.0.113.{source} port 4242"),
        format!(
            "Nov 22 10:00:00 web01 sshd[7]: Failed password for root from 203.0.113.{source} port 42 ssh2"
        ),
        format!("Nov 22 10:00:00 web01 sudo: user{source} : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls"),
        "nothing knows this line".to_owned(),
    ];
    let agent = Agent { id: AgentId(u32::from(agent)), name: format!("host{agent}"), ..Agent::default() };
    Event {
        queue: QUEUE_LOCAL,
        location: b"/var/log/auth.log".as_slice().into(),
        agent: Arc::new(agent),
        text: texts[n % texts.len()].clone().into_bytes(),
        received: Timestamp::from_secs(1_795_381_200 + n as i64 / 16),
    }
}

/// All that the sink saw, with batches of the given lengths.
fn run(ruleset: &Arc<Ruleset>, events: &[Event], threads: usize, lengths: &[usize]) -> Vec<String> {
    let (told, seen) = channel();
    let mut lanes =
        Lanes::new(Analyzer::new(Arc::clone(ruleset), Settings::default()), Teller(told), threads);
    let mut lengths = lengths.iter().cycle();
    let mut left = lengths.next().copied().unwrap_or(usize::MAX);
    for event in events {
        lanes.push(Arrival { event: event.clone(), at: event.received });
        left = left.saturating_sub(1);
        if left == 0 {
            lanes.flush();
            left = lengths.next().copied().unwrap_or(usize::MAX);
        }
    }
    lanes.finish(|_, _| ());
    seen.iter().collect()
}

/// The same where the lanes ask for the events.
fn drained(ruleset: &Arc<Ruleset>, events: &[Event], threads: usize) -> Vec<String> {
    let (told, seen) = channel();
    let mut lanes =
        Lanes::new(Analyzer::new(Arc::clone(ruleset), Settings::default()), Teller(told), threads);
    let (first, rest) = events.split_at(events.len() / 3);
    for part in [first, rest] {
        let mut events = part.iter();
        lanes.drain(|mut text| {
            assert!(text.is_empty());
            let event = events.next()?;
            text.extend_from_slice(&event.text);
            Some(Arrival { event: Event { text, ..event.clone() }, at: event.received })
        });
        assert!(lanes.is_idle());
    }
    lanes.finish(|_, _| ());
    seen.iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_number_of_threads_gives_the_alerts_of_one_in_the_same_order(
        events in prop::collection::vec((0_u16..5, 0_usize..4, 0_u8..6), 1..1_500),
        threads in 2_usize..5,
        lengths in prop::collection::vec(1_usize..400, 1..6),
    ) {
        let ruleset = shipped();
        let events: Vec<_> = events.iter().enumerate().map(|(n, (agent, kind, source))| {
            line(*agent, n / 4 * 4 + kind, *source)
        }).collect();
        let one = run(&ruleset, &events, 1, &[1]);
        prop_assert_eq!(one.len(), events.len());
        prop_assert_eq!(&run(&ruleset, &events, threads, &lengths), &one);
        prop_assert_eq!(drained(&ruleset, &events, threads), one);
    }
}

#[test]
fn a_single_event_is_handled_before_flush_returns() {
    let (told, seen) = channel();
    let analyzer = Analyzer::new(shipped(), Settings::default());
    let mut lanes = Lanes::new(analyzer, Teller(told), 4);
    for n in 0..3 {
        let event = line(0, n, 1);
        lanes.push(Arrival { at: event.received, event });
        lanes.flush();
        assert!(seen.try_recv().is_ok() && lanes.is_idle());
    }
    assert!(lanes.threads.is_empty(), "nothing was worth a thread");
}

#[test]
fn new_rules_hold_from_one_event_on_and_all_threads_prepare_by_them() {
    let ruleset = shipped();
    let (told, seen) = channel();
    let mut lanes = Lanes::new(Analyzer::new(Arc::clone(&ruleset), Settings::default()), Teller(told), 2);
    let push = |lanes: &mut Lanes<Teller>| {
        for n in 0..2_000 {
            let event = line(0, n * 4, 1);
            lanes.push(Arrival { at: event.received, event });
        }
    };
    push(&mut lanes);
    let silent = Ruleset::load(&[], &[], &[], &Options::default()).ruleset.unwrap();
    lanes.between(|analyzer, _| analyzer.swap(silent));
    push(&mut lanes);
    lanes.finish(|_, _| ());
    let alerts: Vec<bool> = seen.iter().map(|text| text.contains("\"rule\":{")).collect();
    assert!(alerts[..2_000].iter().all(|alert| *alert) && !alerts[2_000..].iter().any(|alert| *alert));
}

#[test]
fn what_is_on_its_way_is_bounded() {
    struct Slow(Arc<Mutex<()>>);
    impl Sink for Slow {
        fn take(&mut self, _: &Arrival, _: &mut Verdict<'_>, _: &mut Preparer) {
            drop(lock(&self.0));
        }
    }
    let gate = Arc::new(Mutex::new(()));
    let analyzer = Analyzer::new(shipped(), Settings::default());
    let mut lanes = Lanes::new(analyzer, Slow(Arc::clone(&gate)), 2);
    let closed = lock(&gate);
    let (told, progress) = channel();
    let pusher = std::thread::spawn(move || {
        for n in 0..10_000 {
            let event = line(0, n, 1);
            lanes.push(Arrival { at: event.received, event });
            told.send(n).unwrap();
        }
        lanes.finish(|_, _| ());
    });
    // A batch at work in each of both lanes and two that wait; the caller is one of the lanes.
    while progress.recv_timeout(std::time::Duration::from_millis(500)).is_ok_and(|n| n < 10_000) {}
    assert!(!pusher.is_finished(), "the sink takes nothing, and all was pushed");
    drop(closed);
    pusher.join().unwrap();
}
