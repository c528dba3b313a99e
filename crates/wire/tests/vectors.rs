//! Holds the room to recordings of original peers (`conformance/wire/vectors.json`).

#![expect(clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use std::path::PathBuf;

use serde_json::Value;
use tld_model::Timestamp;
use tld_wire::control::{FromAgent, FromManager};
use tld_wire::counter::{Counter, ReceiverCounter};
use tld_wire::enrol::decide::{Contact, Force, Registered, Registry, Settings, decide};
use tld_wire::enrol::{Answer, Request};
use tld_wire::key::{AgentKey, Secret, generate, md5_text};
use tld_wire::name::RegisteredIp;
use tld_wire::seal::{Envelope, Method, OpenError, Opener, Sealer, clear_text, seal_compressed};
use tld_wire::version::Version;
use tld_wire::{event, frame};

fn vectors() -> Option<Value> {
    let named = std::env::var_os("TLD_SHARED");
    let strict = named.is_some() && std::env::var("TLD_REQUIRE_ALL").as_deref() == Ok("1");
    let shared = named.map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let path = shared.join("conformance/wire/vectors.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(!strict, "{} cannot be read", path.display());
        println!("skipped: {} is not there", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).expect("the vectors are JSON"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

fn bytes(value: &Value, name: &str) -> Vec<u8> {
    let hex = text(value, name);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn number(value: &Value, name: &str) -> u32 {
    value[name]
        .as_u64()
        .and_then(|number| number.try_into().ok())
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

fn counter(value: &Value) -> Counter {
    Counter { global: number(value, "global"), local: number(value, "local").try_into().expect("small") }
}

fn agents(vectors: &Value) -> Vec<AgentKey> {
    let lines = vectors["agents"].as_array().expect("agents").iter();
    lines.map(|agent| text(agent, "client_keys_line").parse().expect("a key line")).collect()
}

fn agent<'a>(agents: &'a [AgentKey], id: &str) -> &'a AgentKey {
    agents.iter().find(|agent| agent.id == id).expect("a known agent")
}

fn method(vector: &Value) -> Method {
    if text(vector, "method") == "aes" { Method::Aes } else { Method::Blowfish }
}

#[test]
fn keys_are_derived_as_recorded() {
    let Some(vectors) = vectors() else { return };
    let listed = vectors["agents"].as_array().unwrap();
    assert_eq!(listed.len(), 3);
    for (value, agent) in listed.iter().zip(agents(&vectors)) {
        assert_eq!(agent.sealing().expose(), text(value, "key_string").as_bytes());
        assert_eq!(agent.hash(), text(value, "enrollment_key_hash_sha1"));
        assert_eq!(*agent.to_line(), text(value, "client_keys_line"));
        assert_eq!(agent.ip.to_string(), text(value, "ip"));
        assert_eq!(md5_text(agent.name.as_bytes()), text(value, "md5_name"));
    }
}

#[test]
fn valid_messages_are_sealed_to_the_same_bytes_and_opened() {
    let Some(vectors) = vectors() else { return };
    let agents = agents(&vectors);
    let (mut sealer, mut opener, mut seen) = (Sealer::default(), Opener::default(), 0);
    for vector in vectors["vectors"].as_array().unwrap().iter().filter(|vector| vector["expect"] == "valid") {
        let name = text(vector, "name");
        let agent = agent(&agents, text(vector, "agent"));
        let keys = agent.sealing();
        let (payload, counter) = (bytes(vector, "payload_hex"), counter(vector));
        let random = number(vector, "random").try_into().unwrap();
        let from_agent = text(vector, "sender") == "agent";
        let id = (from_agent && agent.announces_id()).then_some(agent.id.as_str());

        assert_eq!(clear_text(random, counter, &payload).unwrap(), bytes(vector, "clear_hex"), "{name}");
        let wire = bytes(vector, "wire_hex");
        let sealed = seal_compressed(&keys, method(vector), id, &bytes(vector, "compressed_hex")).unwrap();
        assert_eq!(sealed, wire, "{name}");
        assert_eq!(frame::encode(&sealed).unwrap(), bytes(vector, "tcp_hex"), "{name}");

        // Our compressor may choose other bytes; they must say the same.
        let own = sealer.seal(&keys, method(vector), id, random, counter, &payload).unwrap();
        for message in [&wire, &own] {
            let envelope = Envelope::parse(message).unwrap();
            assert_eq!((envelope.id, envelope.method), (id, method(vector)), "{name}");
            let opened = opener.open(&keys, envelope.method, envelope.ciphertext).unwrap();
            assert_eq!(opened.counter, counter, "{name}");
            assert_eq!(opened.payload, payload, "{name}");
        }
        seen += 1;
    }
    assert_eq!(seen, 23);
}

#[test]
fn damaged_messages_are_refused_with_the_recorded_class() {
    let Some(vectors) = vectors() else { return };
    let agents = agents(&vectors);
    let mut seen = 0;
    for vector in vectors["vectors"].as_array().unwrap().iter().filter(|vector| vector["expect"] != "valid") {
        let wire = bytes(vector, "wire_hex");
        let error = Envelope::parse(&wire)
            .and_then(|envelope| {
                let keys = agent(&agents, envelope.id.expect("an id")).sealing();
                Opener::default().open(&keys, envelope.method, envelope.ciphertext)
            })
            .expect_err(text(vector, "why"));
        let class = match error {
            OpenError::Corrupt(_) => "KS_CORRUPT",
            OpenError::BadKey => "KS_ENCKEY",
            OpenError::Replay => "KS_RIDS",
        };
        assert_eq!(class, text(vector, "expect"), "{}", text(vector, "name"));
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn replays_are_decided_as_recorded() {
    let Some(vectors) = vectors() else { return };
    let steps = vectors["replay"]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 7);
    let mut receiver = ReceiverCounter::default();
    for step in steps {
        assert_eq!(receiver.check(counter(step)).is_ok(), step["accepted"].as_bool().unwrap(), "{step}");
    }
}

struct Enrolled(Vec<Registered>);

impl Registry for Enrolled {
    fn by_name(&self, name: &str) -> Option<&Registered> {
        self.0.iter().find(|agent| agent.name == name)
    }
    fn by_ip(&self, ip: &RegisteredIp) -> Option<&Registered> {
        self.0.iter().find(|agent| agent.ip == *ip)
    }
    fn has_group(&self, group: &str) -> bool {
        group == "default"
    }
}

#[test]
fn enrolment_dialogues_run_as_recorded() {
    let Some(vectors) = vectors() else { return };
    let dialogues = vectors["enrollment"]["dialogues"].as_array().unwrap();
    assert_eq!(dialogues.len(), 22);
    let peer = "192.0.2.33";
    let secret = Secret::new("S3cret pass");
    let settings = Settings {
        manager_host: "manager-01".into(),
        manager_version: Version::CONTRACT,
        allow_higher_versions: false,
        use_source_ip: false,
        force: Force::default(),
    };
    let mut enrolled = Enrolled(Vec::new());
    let mut password = None;
    for (index, dialogue) in dialogues.iter().enumerate() {
        match dialogue["condition"].as_str() {
            Some(condition) if condition.starts_with("password option on") => password = Some(&secret),
            Some("password option off") => password = None,
            _ => {}
        }
        let line = format!("{}\n", text(dialogue, "request").replace("<manager host name>", "manager-01"));
        let id = format!("{:03}", index + 1);
        let answer = Request::parse(line.as_bytes(), password)
            .and_then(|request| {
                let peer = peer.parse().expect("an address");
                decide(&request, peer, &settings, &enrolled, Timestamp::from_nanos(1_000))
            })
            .map_or_else(Answer::from, |granted| {
                assert!(granted.replaces.is_empty(), "{dialogue}");
                let entry =
                    AgentKey { id: id.clone(), name: granted.name, ip: granted.ip, key: generate(&[7; 32]) };
                enrolled.0.push(Registered {
                    id: entry.id.clone(),
                    name: entry.name.clone(),
                    ip: entry.ip.clone(),
                    since: Timestamp::from_nanos(0),
                    key_hash: entry.hash(),
                    contact: Contact::Never,
                });
                Answer::Granted(entry)
            });
        let expected = text(dialogue, "reply")
            .replace("<id>", &id)
            .replace("<key>", generate(&[7; 32]).expose())
            .replace("<peer address>", peer)
            .replace("<manager host name>", "manager-01");
        assert_eq!(*answer.to_text(), expected, "{dialogue}");
        assert_eq!(Answer::parse(expected.as_bytes()), Ok(answer));
    }
}

#[test]
fn events_are_wrapped_as_recorded() {
    let Some(vectors) = vectors() else { return };
    let recorded = &vectors["event_wrapping"];
    let cases = recorded["vectors"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    let (id, name) = (text(&recorded["agent"], "id"), text(&recorded["agent"], "name"));
    let ip: RegisteredIp = text(&recorded["agent"], "ip").parse().unwrap();
    for case in cases {
        let mut payload = bytes(case, "payload_hex");
        if FromAgent::parse(&payload) == Some(FromAgent::Shutdown) {
            let agent =
                AgentKey { id: id.into(), name: name.into(), ip: ip.clone(), key: Secret::new("key") };
            payload = event::agent_stopped(&agent);
        }
        let wrapped = event::wrap(&payload, id, name, &ip).ok();
        let expected = case["datagram_hex"].is_string().then(|| bytes(case, "datagram_hex"));
        assert_eq!(wrapped, expected, "{case}");
    }
}

#[test]
fn control_messages_are_known_and_written_back_to_the_byte() {
    let Some(vectors) = vectors() else { return };
    let mut seen = 0;
    for vector in vectors["vectors"].as_array().unwrap().iter().filter(|vector| vector["expect"] == "valid") {
        let (name, payload) = (text(vector, "name"), bytes(vector, "payload_hex"));
        let written = if text(vector, "sender") == "agent" {
            FromAgent::parse(&payload).map(|message| {
                assert!(!matches!(message, FromAgent::Unknown(_)), "{name}");
                message.to_bytes()
            })
        } else {
            FromManager::parse(&payload).map(|message| {
                assert!(!matches!(message, FromManager::Unknown(_)), "{name}");
                message.to_bytes()
            })
        };
        assert_eq!(written.is_some(), payload.starts_with(b"#!-"), "{name}");
        if let Some(written) = written {
            assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&payload), "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 17);
}
