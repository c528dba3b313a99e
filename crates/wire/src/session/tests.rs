use std::time::Duration;

use proptest::prelude::*;
use tld_model::{ExecMessage, OrderId, OutcomeKind};

use super::agent::{Closing, Session as Agent, Step as AgentStep, Timing};
use super::manager::{Session as Manager, Step as ManagerStep};
use crate::control::{FromManager, KeepAlive};
use crate::extension::{self, Ticket};
use crate::merged::{self, chunks};
use crate::version::Version;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn message() -> ExecMessage {
    let json = r#"{"version":1,"origin":{"name":"n","module":"m"},"command":"c0","parameters":{"extra_args":[],"alert":{}}}"#;
    serde_json::from_str(json).unwrap()
}

fn ticket() -> Ticket {
    Ticket { deadline_ns: Some(9), ..Ticket::new(OrderId("o-1".into())) }
}

/// Hands every payload over to the agent and gives back what it makes of them.
fn deliver(agent: &mut Agent, steps: &[ManagerStep], now: Duration) -> Vec<AgentStep> {
    let sent = steps.iter().filter_map(|step| match step {
        ManagerStep::Send(payload) => Some(payload),
        _ => None,
    });
    sent.flat_map(|payload| agent.on_payload(payload, now)).collect()
}

fn connected() -> (Agent, Manager) {
    let (mut agent, startup) = Agent::start(Timing::default(), secs(0));
    let mut manager = Manager::new(Version::CONTRACT, false);
    let steps = manager.on_payload(&startup);
    assert_eq!(
        deliver(&mut agent, &steps, secs(1)),
        [AgentStep::Connected, AgentStep::Extended, AgentStep::KeepAlive]
    );
    (agent, manager)
}

#[test]
fn both_of_ours_agree_on_the_extension_and_orders_carry_tickets() {
    let (mut agent, manager) = connected();
    assert!(manager.confirms() && agent.is_extended());
    let order = manager.order(&message(), &ticket()).unwrap();
    let [AgentStep::Execd(_, Some(read))] = &agent.on_payload(&order, secs(2))[..] else { panic!() };
    assert_eq!(*read, ticket());
}

#[test]
fn an_agent_of_another_make_gets_the_contract_and_nothing_else() {
    let mut manager = Manager::new(Version::CONTRACT, false);
    let steps = manager.on_payload(br#"#!-agent startup {"version":"v4.9.0"}"#);
    assert_eq!(
        steps,
        [ManagerStep::Bind, ManagerStep::Send(b"#!-agent ack ".to_vec()), ManagerStep::Pending]
    );
    let order = manager.order(&message(), &ticket()).unwrap();
    assert_eq!(order, [b"#!-execd ", message().to_line().unwrap().as_bytes()].concat());
    // It cannot push outcomes either.
    let forged = br#"#!-threatlockdown {"received":{"order":"o-1"}}"#;
    assert_eq!(manager.on_payload(forged), [ManagerStep::Ignored(forged.to_vec())]);
}

#[test]
fn a_manager_of_another_make_is_not_sent_outcomes_and_its_tickets_are_not_read() {
    let (mut agent, _) = Agent::start(Timing::default(), secs(0));
    assert_eq!(agent.on_payload(b"#!-agent ack ", secs(1)), [AgentStep::Connected]);
    let received = extension::FromAgent::Received { order: OrderId("o".into()) };
    assert_eq!(agent.report(received), None);
    let order = FromManager::Execd(extension::with_ticket(&message(), &ticket()).unwrap().into()).to_bytes();
    assert!(matches!(&agent.on_payload(&order, secs(2))[..], [AgentStep::Execd(_, None)]));
    assert_eq!(agent.on_payload(br#"#!-threatlockdown {"cancel":{"order":"o"}}"#, secs(2)), []);
}

#[test]
fn orders_are_received_and_confirmed() {
    let (mut agent, mut manager) = connected();
    let received = extension::FromAgent::Received { order: OrderId("o-1".into()) };
    let report = agent.report(received).unwrap();
    assert_eq!(manager.on_payload(&report), [ManagerStep::Received(OrderId("o-1".into()))]);
    let confirmed =
        extension::FromManager::Confirmed { order: OrderId("o-1".into()), kind: OutcomeKind::Applied };
    let steps = agent.on_payload(&FromManager::Extension(confirmed).to_bytes(), secs(3));
    assert_eq!(steps, [AgentStep::Confirmed(OrderId("o-1".into()), OutcomeKind::Applied)]);
}

#[test]
fn a_manager_of_ours_gets_the_first_sign_of_life_at_once_and_only_that_one() {
    let (mut agent, _) = connected();
    assert_eq!(agent.deadline(), secs(21));
    let hello = extension::FromManager::Hello(extension::Hello::default());
    assert_eq!(agent.on_payload(&FromManager::Extension(hello).to_bytes(), secs(2)), [AgentStep::Extended]);
}

#[test]
fn any_other_manager_gets_the_first_sign_of_life_an_interval_after_the_handshake() {
    let (_, mut manager) = connected();
    let (mut agent, _) = Agent::start(Timing::default(), secs(0));
    assert_eq!(agent.on_payload(b"#!-agent ack ", secs(1)), [AgentStep::Connected]);
    assert_eq!(agent.deadline(), secs(21));
    assert_eq!(agent.on_time(secs(20)), []);
    assert_eq!(agent.on_time(secs(21)), [AgentStep::KeepAlive]);
    assert_eq!(agent.deadline(), secs(41));
    let alive =
        KeepAlive { product: Some("Wazuh v4.14.6".into()), system: "Linux".into(), ..KeepAlive::default() };
    let steps = manager.on_payload(&crate::control::FromAgent::KeepAlive(alive.clone()).to_bytes());
    assert_eq!(steps[1], ManagerStep::Active(Box::new(alive)));
    assert_eq!(manager.version(), Some(Version::new(4, 14, 6)));
    assert_eq!(deliver(&mut agent, &steps, secs(22)), []);
    assert_eq!(agent.deadline(), secs(41));
}

#[test]
fn a_silent_manager_loses_the_connection() {
    let (mut agent, _) = connected();
    for now in [21, 41] {
        assert_eq!(agent.on_time(secs(now)), [AgentStep::KeepAlive]);
    }
    assert_eq!(agent.on_time(secs(61)), [AgentStep::Close(Closing::Silent)]);
    assert_eq!(agent.on_time(secs(99)), []);
    assert_eq!(agent.on_payload(b"#!-agent ack ", secs(99)), []);
}

#[test]
fn a_handshake_ends_with_an_answer_or_in_time() {
    let (mut agent, _) = Agent::start(Timing::default(), secs(5));
    assert_eq!(agent.deadline(), secs(65));
    // Another word than the answer neither connects nor prolongs.
    assert_eq!(agent.on_payload(b"#!-execd {}", secs(60)), []);
    assert_eq!(agent.on_payload(b"piece", secs(60)), []);
    assert_eq!(agent.on_time(secs(65)), [AgentStep::Close(Closing::HandshakeTimeout)]);
    let (mut agent, _) = Agent::start(Timing::default(), secs(5));
    let refusal = FromManager::Refused { message: "no".into() }.to_bytes();
    assert_eq!(agent.on_payload(&refusal, secs(6)), [AgentStep::Close(Closing::Refused("no".into()))]);
}

#[test]
fn too_short_a_reconnect_time_is_lengthened() {
    let timing = Timing { notify: secs(20), reconnect: secs(20), handshake: secs(1) };
    let (mut agent, _) = Agent::start(timing, secs(0));
    agent.on_payload(b"#!-agent ack ", secs(0));
    assert_eq!(agent.on_time(secs(59)), [AgentStep::KeepAlive]);
    assert_eq!(agent.on_time(secs(60)), [AgentStep::Close(Closing::Silent)]);
}

#[test]
fn a_file_arrives_whole_or_not_at_all() {
    let (mut agent, _) = connected();
    let file = merged::build("g", &[merged::Entry { name: "x", content: &[b'#'; 3_000] }]).unwrap();
    let mut push = |name: &str, damage: bool| {
        agent.on_payload(&FromManager::up_file(name, &file).to_bytes(), secs(2));
        for piece in chunks(&file).unwrap() {
            agent.on_payload(if damage { b"?" } else { piece }, secs(2));
        }
        agent.on_payload(&FromManager::CloseFile.to_bytes(), secs(2))
    };
    assert_eq!(
        push("merged.mg", false),
        [AgentStep::File { name: "merged.mg".into(), content: file.clone() }]
    );
    assert_eq!(push("merged.mg", true), [AgentStep::BadFile("merged.mg".into())]);
    assert_eq!(push("../merged.mg", false), [AgentStep::BadFile("../merged.mg".into())]);
    assert_eq!(agent.on_payload(&FromManager::CloseFile.to_bytes(), secs(2)), []);
}

#[test]
fn stray_queries_are_answered_without_opening_anything() {
    let (mut agent, _) = connected();
    let steps = agent.on_payload(b"#!-req ab ../x getconfig", secs(2));
    assert_eq!(steps, [AgentStep::Send(b"#!-req ab err No such file or directory".to_vec())]);
}

#[test]
fn events_bind_nothing_and_control_messages_do() {
    let mut manager = Manager::new(Version::CONTRACT, false);
    assert_eq!(manager.on_payload(b"1:a:b"), [ManagerStep::Event(b"1:a:b".to_vec())]);
    assert_eq!(manager.on_payload(b"#!-what"), [ManagerStep::Ignored(b"what".to_vec())]);
    assert_eq!(manager.on_payload(b"#!-agent shutdown "), [ManagerStep::Bind, ManagerStep::Left]);
}

#[test]
fn a_refused_agent_stays_without_the_extension() {
    let mut manager = Manager::new(Version::new(4, 0, 0), false);
    let (_, startup) = Agent::start(Timing::default(), secs(0));
    let steps = manager.on_payload(&startup);
    assert_eq!(steps.last(), Some(&ManagerStep::Refused));
    assert!(!manager.confirms());
}

proptest! {
    #[test]
    fn any_conversation_is_survived(payloads in prop::collection::vec(
        ("(#!-)?(agent ack |execd |up file 0123456789abcdef0123456789abcdef |close file |req 1 |threatlockdown )?", "\\PC{0,20}"), 0..12)) {
        let (mut agent, _) = connected();
        let mut manager = Manager::new(Version::CONTRACT, false);
        for (at, (lead, tail)) in payloads.iter().enumerate() {
            let payload = format!("{lead}{tail}");
            let now = secs(2 + at as u64);
            agent.on_payload(payload.as_bytes(), now);
            agent.on_time(now);
            manager.on_payload(payload.as_bytes());
        }
    }
}
