//! What comes over the network, before and behind the key. Invariant checked: what was read can be written and read again.

use std::sync::{Arc, OnceLock};

use tld_model::{Agent, Timestamp};
use tld_server::intake::syslog;
use tld_wire::control::{FromAgent, FromManager};
use tld_wire::enrol::{Answer, Request};
use tld_wire::frame::{self, Decoder};
use tld_wire::key::{KeyFile, SealingKeys, Secret};
use tld_wire::seal::{Envelope, Method, Opener, seal_compressed};
use tld_wire::{ar, event, merged};

pub(crate) const WORDS: &[&str] = &[
    "#!-",
    "#!-execd ",
    "#!-req 1 ",
    "#!-agent startup ",
    "!001!",
    "#AES:",
    ":",
    "OSSEC PASS: secret ",
    "OSSEC A:'",
    "' V:'",
    "' G:'",
    "' IP:'src'",
    "' K:'",
    "OSSEC K:'",
    "ERROR: ",
    "!9 agent.conf\n",
    "!3 ../x\n",
    "\0",
    "\u{3}\0\0\0abc",
    "#ping",
    "|:",
    "(x) [] NNS 001 ",
    "any",
    "{}",
    "\n",
    " - ",
    "001 a any ",
    "<34>",
    "7 <1>",
];

/// A stream of frames: pieces of any size give what the whole gives.
pub fn frames(data: &[u8]) {
    const LIMIT: usize = 4096;
    let read = |size: usize| {
        let mut decoder = Decoder::with_limit(LIMIT);
        let mut frames = Vec::new();
        for mut piece in data.chunks(size) {
            loop {
                match decoder.next(&mut piece) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error.to_string())),
                }
            }
            assert!(piece.is_empty(), "bytes were left");
        }
        (frames, None)
    };
    let (whole, error) = read(usize::MAX);
    assert_eq!((&whole, &error), (&read(3).0, &read(7).1), "the size of the pieces counts");
    for one in whole {
        assert!(one.len() <= LIMIT);
        let written = frame::encode(&one).expect("what was read can be written");
        assert_eq!(written.get(4..), Some(one.as_slice()));
    }
}

fn keys() -> &'static SealingKeys {
    static KEYS: OnceLock<SealingKeys> = OnceLock::new();
    KEYS.get_or_init(|| SealingKeys::derive("001", "web01", "0123456789abcdef"))
}

/// Sealed messages: as they come, and as a peer that knows the key can forge what lies behind it.
pub fn sealed(data: &[u8]) {
    let mut opener = Opener::default();
    if let Ok(envelope) = Envelope::parse(data) {
        opener.open(keys(), envelope.method, envelope.ciphertext).ok();
    }
    for method in [Method::Aes, Method::Blowfish] {
        let Ok(message) = seal_compressed(keys(), method, Some("001"), data) else { continue };
        let envelope = Envelope::parse(&message).expect("our own envelope");
        assert_eq!((envelope.id, envelope.method), (Some("001"), method));
        if let Ok(opened) = opener.open(keys(), method, envelope.ciphertext) {
            assert!(opened.payload.len() <= 1 << 20, "a payload of {} bytes", opened.payload.len());
        }
    }
}

/// Control messages of both directions.
pub fn control(data: &[u8]) {
    if let Some(message) = FromAgent::parse(data) {
        let bytes = message.to_bytes();
        let again = FromAgent::parse(&bytes).expect("what was written can be read");
        assert_eq!(again.to_bytes(), bytes, "written twice, it is the same");
    }
    if let Some(message) = FromManager::parse(data) {
        let bytes = message.to_bytes();
        let again = FromManager::parse(&bytes).expect("what was written can be read");
        assert_eq!(again.to_bytes(), bytes, "written twice, it is the same");
    }
}

/// Enrolment: request lines with and without a password, and answers.
pub fn enrol(data: &[u8]) {
    let secret = Secret::new("secret");
    for password in [None, Some(&secret)] {
        if let Ok(request) = Request::parse(data, password) {
            let line = request.to_line(password);
            let again = Request::parse(line.as_bytes(), password).expect("what was written can be read");
            assert_eq!(*again.to_line(password), *line);
        }
    }
    if let Ok(answer) = Answer::parse(data) {
        Answer::parse(answer.to_text().as_bytes()).expect("what was written can be read");
    }
}

/// Shared files, events, routed orders and key files.
pub fn bundle(data: &[u8]) {
    if let Ok(files) = merged::parse(data) {
        assert!(files.iter().all(|file| merged::is_safe_name(file.name)), "a name that leaves the folder");
        let written = merged::build("head", &files).expect("what was read can be written");
        assert_eq!(merged::parse(&written).map(|again| again.len()).ok(), Some(files.len()));
    }
    if let Ok(read) = event::from_agent(data, Arc::new(Agent::default()), Timestamp::from_secs(0)) {
        let bytes = event::to_bytes(&read);
        let again = event::from_agent(&bytes, Arc::clone(&read.agent), read.received);
        assert_eq!(again.ok().as_ref(), Some(&read), "what was written can be read");
    }
    if let Ok(routed) = ar::Routed::parse(data) {
        routed.message();
    }
    // A kept line loses one carriage return with each reading, and may be a key afterwards: left out until `tld_wire` decides.
    let text = String::from_utf8_lossy(data).replace('\r', "");
    let (keys, before) = KeyFile::parse(&text);
    let written = keys.to_text();
    let (again, wrong) = KeyFile::parse(&written);
    assert_eq!(wrong.len(), before.len(), "lines that are no key are kept as they are");
    assert_eq!(*again.to_text(), *written);
    merged::parse_responses(&text);
}

/// Syslog from the network: where a stream is torn does not matter, and what is told is bounded.
pub fn syslog(data: &[u8]) {
    let read = |size: usize| {
        let (mut splitter, mut told) = (syslog::Splitter::default(), Vec::new());
        let mut tell = |message: &[u8]| told.push(message.to_vec());
        data.chunks(size).for_each(|piece| splitter.push(piece, &mut tell));
        splitter.end(&mut tell);
        told
    };
    let whole = read(usize::MAX);
    assert_eq!(whole, read(1), "bytes one by one");
    assert_eq!(whole, read(7), "pieces");
    for message in &whole {
        assert!(message.len() <= 1 << 16);
        if let Some(event) = syslog::event(message, std::net::Ipv4Addr::LOCALHOST.into(), Timestamp::EPOCH) {
            assert!(!event.text.is_empty() && !event.text.contains(&0));
        }
    }
}
