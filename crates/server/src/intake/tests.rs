use std::io::Write as _;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};

use proptest::prelude::*;
use tld_model::{AgentId, OutcomeKind, Zone};
use tld_sys::clock::SystemClock;

use super::syslog::Splitter;
use super::*;
use crate::dispatch::fleet::tests::Bed;

const LONG: Duration = Duration::from_secs(30);

fn open(bed: &Bed, fleet: &Arc<Fleet>, remotes: &str) -> (Intake, Receiver<Event>) {
    for folder in ["queue/sockets", "queue/alerts"] {
        fs::create_dir_all(bed.home.path().join(folder)).unwrap();
    }
    let text = format!("<ossec_config>{remotes}</ossec_config>");
    let source = tld_xml::Source::new("ossec.conf", text.into_bytes());
    let settings = tld_config::parse(&source, tld_config::Role::Manager).settings;
    let (sender, events) = sync_channel(1_000);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = bed.home.path().join("logs/ossec.log");
    let setup = Setup {
        home: bed.home.path().into(),
        events: Arc::new(move |event| sender.send(event).is_ok()),
        registry: Arc::clone(&bed.registry),
        fleet: Arc::clone(fleet),
        clock: Arc::clone(&clock),
        log: Log::new(log, clock, Zone::utc(), false),
        remotes: settings.remotes,
    };
    (Intake::start(&setup).unwrap(), events)
}

fn send(bed: &Bed, socket: &str, datagram: &[u8]) {
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(datagram, bed.home.path().join(socket)).unwrap();
}

fn shown(event: &Event) -> (u8, u32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (event.queue, event.agent.id.0, text(&event.location), text(&event.text))
}

#[test]
fn tools_bring_events_in_the_contracts_form() {
    let bed = Bed::new();
    let (fleet, agent) = (bed.start(), bed.agent("web01"));
    agent.update(|activity| activity.ip = Some("10.0.0.21".into()));
    let (intake, events) = open(&bed, &fleet, "");
    let mode = fs::metadata(bed.home.path().join("queue/sockets/queue")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let datagrams: [&[u8]; 6] = [
        b"1:/var/log/auth.log:Nov 22 21:07:38 web01 sshd[1]: hello: x\0",
        b"1:[001] (web01) any->C|:\\x.log:hi",
        b"1:[001] (other) any->/l:forged",
        b"no event",
        b"5:database:sync",
        b"9:rootcheck:File '/x' is odd.",
    ];
    for datagram in datagrams {
        send(&bed, "queue/sockets/queue", datagram);
    }
    let seen: Vec<_> = (0..4).map(|_| events.recv_timeout(LONG).unwrap()).collect();
    let text = |s: &str| s.to_owned();
    assert_eq!(
        shown(&seen[0]),
        (b'1', 0, text("/var/log/auth.log"), text("Nov 22 21:07:38 web01 sshd[1]: hello: x"))
    );
    assert_eq!(shown(&seen[1]), (b'1', 1, text("C:\\x.log"), text("hi")));
    assert_eq!(seen[1].agent.ip.as_deref(), Some("10.0.0.21"), "the registry's agent is meant");
    assert_eq!(seen[2].agent.ip, None, "another name is another agent");
    assert_eq!(seen[3].queue, b'9');
    drop(intake);
    assert!(!bed.home.path().join("queue/sockets/queue").exists());
    fleet.stop();
}

#[test]
fn text_for_an_agent_arrives_as_it_was_written() {
    let bed = Bed::new();
    let (fleet, agent) = (bed.start(), bed.agent("web01"));
    bed.come(&fleet, &agent, false);
    let (_intake, _events) = open(&bed, &fleet, "");
    // Peer cases F1 to F8.
    let text = "dummy-ar admin 1.1.1.1 1.1 44 (any-agent) any->/testing/testing.txt - -";
    send(&bed, "queue/alerts/ar", format!("(local_source) [] NRN 001 {text}").as_bytes());
    send(&bed, "queue/alerts/ar", b"(msg_to_agent) [] N!S 001 force_reconnect\0");
    send(&bed, "queue/alerts/ar", b"(msg_to_agent) [] NNN 001 nobody is addressed");
    send(&bed, "queue/alerts/ar", b"garbage");
    send(&bed, "queue/alerts/ar", b"(msg_to_agent) [] NNS 099 unknown");
    send(&bed, "queue/alerts/ar", b"(msg_to_agent) [] N!S 001 syscheck restart");
    let relayed = || bed.line.relayed.lock().unwrap().clone();
    bed.until("all are passed on", || relayed().len() == 3);
    let payloads: Vec<_> =
        relayed().into_iter().map(|(_, payload)| String::from_utf8(payload).unwrap()).collect();
    assert_eq!(
        payloads,
        [format!("#!-execd {text}"), "#!-force_reconnect".into(), "#!-syscheck restart".into()]
    );
    bed.until("what is wrong is told", || {
        let log = fs::read_to_string(bed.home.path().join("logs/ossec.log")).unwrap_or_default();
        log.contains("(1310)") && log.contains("(1320)")
    });
    fleet.stop();
}

#[test]
fn an_order_of_another_tool_is_followed_and_keeps_its_bytes() {
    let bed = Bed::new();
    let (fleet, plain, ours) = (bed.start(), bed.agent("plain"), bed.agent("ours"));
    bed.come(&fleet, &plain, false);
    bed.come(&fleet, &ours, true);
    let (_intake, _events) = open(&bed, &fleet, "");
    let json = r#"{"version": 1, "origin": {"name": null, "module": "API"}, "command": "firewall-drop600", "parameters": {"extra_args": ["a", "b"], "alert": {"data": {"srcip": "203.0.113.7"}}}}"#;
    for id in ["001", "002"] {
        send(&bed, "queue/alerts/ar", format!("(msg_to_agent) [] NNS {id} {json}").as_bytes());
    }
    bed.until("both are sent", || bed.sent().len() == 1 && bed.line.relayed.lock().unwrap().len() == 1);
    let (agent, payload) = bed.line.relayed.lock().unwrap()[0].clone();
    assert_eq!((agent, payload), (plain.id, format!("#!-execd {json}").into_bytes()));
    assert_eq!(bed.sent()[0].0, ours.id);
    let listed = bed.listed();
    assert!(
        listed.iter().all(|one| one.order.timeout_secs == 600 && one.order.executable == "firewall-drop")
    );
    fleet.stop();
}

#[test]
fn the_allow_list_holds_for_other_tools() {
    let bed = Bed::new();
    let (fleet, agent) = (bed.start(), bed.agent("web01"));
    bed.come(&fleet, &agent, false);
    let (_intake, _events) = open(&bed, &fleet, "");
    let json = r#"{"version":1,"origin":{"name":"","module":""},"command":"firewall-drop600","parameters":{"extra_args":[],"alert":{"data":{"srcip":"198.51.100.7"}}}}"#;
    send(&bed, "queue/alerts/ar", format!("(msg_to_agent) [] NNS 001 {json}").as_bytes());
    bed.until("it is refused", || {
        bed.listed().iter().any(|one| {
            one.outcome.as_ref().is_some_and(|outcome| outcome.kind == OutcomeKind::Refused)
                && one.agent == AgentId(1)
        })
    });
    assert!(bed.line.relayed.lock().unwrap().is_empty());
    fleet.stop();
}

#[test]
fn syslog_of_allowed_senders_becomes_events() {
    let bed = Bed::new();
    let fleet = bed.start();
    let block = |port: u16, protocol: &str, allowed: &str| {
        format!(
            "<remote><connection>syslog</connection><port>{port}</port><protocol>{protocol}</protocol>\
             <local_ip>127.0.0.1</local_ip><allowed-ips>{allowed}</allowed-ips></remote>"
        )
    };
    // Below the ports that the kernel gives to others.
    let is_free = |port: &u16| {
        UdpSocket::bind(("127.0.0.1", *port)).is_ok() && TcpListener::bind(("127.0.0.1", *port)).is_ok()
    };
    let first = 10_000 + u16::try_from(std::process::id() % 2_000).unwrap();
    let ports: Vec<u16> = (first..first + 2_000).filter(is_free).take(3).collect();
    let blocks = [
        block(ports[0], "udp", "127.0.0.0/8"),
        block(ports[1], "tcp", "127.0.0.1"),
        block(ports[2], "udp", "192.0.2.0/24"),
    ];
    let (intake, events) = open(&bed, &fleet, &blocks.concat());
    let addresses = intake.addresses().to_vec();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(b"<34>nobody hears this", addresses[2]).unwrap();
    udp.send_to(b"<34>Oct 11 22:14:15 fw su: by udp\n", addresses[0]).unwrap();
    let of = |event: Event| shown(&event);
    let wanted = |text: &str| (b'2', 0, "127.0.0.1".to_owned(), text.to_owned());
    assert_eq!(of(events.recv_timeout(LONG).unwrap()), wanted("Oct 11 22:14:15 fw su: by udp"));
    let mut tcp = TcpStream::connect(addresses[1]).unwrap();
    tcp.write_all(b"<34>by tcp\n<34>and mo").unwrap();
    assert_eq!(of(events.recv_timeout(LONG).unwrap()), wanted("by tcp"));
    tcp.write_all(b"re\n").unwrap();
    assert_eq!(of(events.recv_timeout(LONG).unwrap()), wanted("and more"));
    tcp.write_all(b"its rest").unwrap();
    drop(tcp);
    assert_eq!(of(events.recv_timeout(LONG).unwrap()), wanted("its rest"));
    bed.until("the refused sender is named", || {
        fs::read_to_string(bed.home.path().join("logs/ossec.log"))
            .unwrap_or_default()
            .contains("not in <allowed-ips>")
    });
    drop(intake);
    fleet.stop();
}

#[test]
fn priorities_and_closing_newlines_are_cut() {
    let sender: IpAddr = "2001:db8::1".parse().unwrap();
    let of = |message: &[u8]| syslog::event(message, sender, Timestamp::EPOCH).map(|event| shown(&event));
    let wanted = |text: &str| Some((b'2', 0, "2001:db8::1".to_owned(), text.to_owned()));
    assert_eq!(of(b"<34>Oct 11 22:14:15 fw su: no\n"), wanted("Oct 11 22:14:15 fw su: no"));
    assert_eq!(of(b"no priority"), wanted("no priority"));
    assert_eq!(of(b"<never closed"), wanted("<never closed"));
    assert_eq!(of(b"<34>\n"), None);
    assert_eq!(of(b""), None);
}

fn split(pieces: &[&[u8]]) -> Vec<String> {
    let told = Mutex::new(Vec::new());
    let mut tell = |message: &[u8]| told.lock().unwrap().push(String::from_utf8_lossy(message).into_owned());
    let mut splitter = Splitter::default();
    for piece in pieces {
        splitter.push(piece, &mut tell);
    }
    splitter.end(&mut tell);
    told.into_inner().unwrap()
}

#[test]
fn streams_are_cut_at_newlines_or_by_count() {
    assert_eq!(split(&[b"<1>one\n<2>t", b"wo\r\n\n<3>three"]), ["<1>one", "<2>two", "<3>three"]);
    assert_eq!(split(&[b"7 <1>o\nne6 <2>", b"two"]), ["<1>o\nne", "<2>two"]);
    assert_eq!(split(&[b"34 is no count\n"]), ["34 is no count"]);
    let long = vec![b'x'; 100_000];
    assert_eq!(split(&[&long]).iter().map(String::len).collect::<Vec<_>>(), [65_536, 34_464]);
}

proptest! {
    #[test]
    fn where_a_stream_is_torn_does_not_matter(
        lines in prop::collection::vec("[a-z0-9<> ]{1,20}", 1..8), at in 0usize..100
    ) {
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let at = at.min(text.len());
        prop_assert_eq!(split(&[&text.as_bytes()[..at], &text.as_bytes()[at..]]), split(&[text.as_bytes()]));
    }

    #[test]
    fn any_stream_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = split(&[&bytes]);
    }
}
