//! A manager under test, and small agents that speak the contract's bytes.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tld_wire::control::{FromAgent, FromManager, KeepAlive, Startup};
use tld_wire::counter::SenderCounter;
use tld_wire::extension::Hello;
use tld_wire::frame;
use tld_wire::key::AgentKey;
use tld_wire::seal::{Envelope, Method, Opener, Sealer};
use tld_wire::version::Version;

use super::{BINARY, Home, Host, Service};

/// Longest wait for anything a manager says.
const LIMIT: Duration = super::PATIENCE;
/// A file's end.
const CLOSE: &[u8] = b"#!-close file ";

/// A home for a manager on ports of its own.
#[derive(Debug)]
pub struct Site {
    pub home: Home,
    pub port: u16,
    pub enrolment: u16,
}

/// A port that nobody has now, below those that the kernel gives to connections: none can take it before its service
/// does, nor while that one restarts.
pub fn free_port() -> u16 {
    const FIRST: u64 = 12_000;
    const COUNT: u64 = 20_000;
    static NEXT: OnceLock<AtomicU64> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU64::new(RandomState::new().hash_one(std::process::id()) % COUNT));
    let any = Ipv4Addr::UNSPECIFIED;
    (0..COUNT)
        .map(|_| u16::try_from(FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT).unwrap())
        .find(|port| TcpListener::bind((any, *port)).is_ok() && UdpSocket::bind((any, *port)).is_ok())
        .expect("a port is free")
}

impl Site {
    /// `responses` is XML as for [`Home::new`].
    pub fn new(responses: &str) -> Self {
        let (port, enrolment) = (free_port(), free_port());
        let extra = format!(
            "<remote><connection>secure</connection><port>{port}</port><protocol>tcp,udp</protocol></remote>\
             <auth><port>{enrolment}</port></auth>\n{responses}"
        );
        Self { home: Home::new(&extra), port, enrolment }
    }

    pub fn start(&self, host: Option<&Host>, extra: &[&str]) -> Service {
        self.home.start_as("manager", host, extra, &[])
    }

    /// Registers an agent over the local socket, as tools do.
    pub fn enrol(&self, name: &str) -> AgentKey {
        enrol(self.home.path.path(), name, "any")
    }

    /// An agent that is connected and has told its state.
    pub fn agent(&self, name: &str) -> Peer {
        let mut peer = Peer::connect(self.port, self.enrol(name));
        peer.start();
        peer
    }
}

pub fn enrol(home: &Path, name: &str, ip: &str) -> AgentKey {
    let mut socket = UnixStream::connect(home.join("queue/sockets/auth")).unwrap();
    let request = format!("{{\"function\":\"add\",\"arguments\":{{\"name\":\"{name}\",\"ip\":\"{ip}\"}}}}");
    socket.write_all(&frame::encode(request.as_bytes()).unwrap()).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&read_frame(&mut socket).unwrap()).unwrap();
    let field = |name: &str| answer["data"][name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    format!("{} {} {} {}", field("id"), field("name"), field("ip"), field("key")).parse().unwrap()
}

pub fn read_frame(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let mut message = vec![0; u32::from_le_bytes(head) as usize];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

/// One agent's end of a connection.
#[derive(Debug)]
pub struct Peer {
    pub key: AgentKey,
    pub stream: TcpStream,
    pub method: Method,
    pub counter: SenderCounter,
    pub version: String,
    pub merged: Option<String>,
    /// Orders, questions and files that came while something else was waited for.
    passed: Vec<Vec<u8>>,
    sealer: Sealer,
    opener: Opener,
}

impl Peer {
    pub fn connect(port: u16, key: AgentKey) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self {
            key,
            stream,
            method: Method::Aes,
            counter: SenderCounter::default(),
            version: Version::CONTRACT.to_string(),
            merged: None,
            passed: Vec::new(),
            sealer: Sealer::default(),
            opener: Opener::default(),
        }
    }

    /// Seals a payload as it goes on the wire, without the frame.
    pub fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let id = self.key.announces_id().then(|| self.key.id.clone());
        let pair = self.counter.advance().unwrap();
        self.sealer.seal(&self.key.sealing(), self.method, id.as_deref(), 7, pair, payload).unwrap()
    }

    pub fn send(&mut self, payload: &[u8]) {
        let sealed = self.seal(payload);
        self.stream.write_all(&frame::encode(&sealed).unwrap()).unwrap();
    }

    /// The next message of the manager that nobody has waited past; none when the connection is closed.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let message = read_frame(&mut self.stream)?;
        let envelope = Envelope::parse(&message).unwrap();
        assert_eq!((envelope.id, envelope.method), (None, self.method));
        Some(self.opener.open(&self.key.sealing(), envelope.method, envelope.ciphertext).unwrap().payload)
    }

    /// The payload of a sealed message.
    pub fn open(&mut self, message: &[u8]) -> Vec<u8> {
        let envelope = Envelope::parse(message).unwrap();
        self.opener.open(&self.key.sealing(), envelope.method, envelope.ciphertext).unwrap().payload
    }

    /// Waits for a message that starts so. Orders, questions and files come when they come: those that are passed over
    /// are kept for whoever waits for them later.
    pub fn expect(&mut self, lead: &str) -> Vec<u8> {
        if let Some(at) = self.passed.iter().position(|message| message.starts_with(lead.as_bytes())) {
            return self.passed.remove(at);
        }
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            let message = self.receive().unwrap_or_else(|| panic!("closed or silent before `{lead}`"));
            if message.starts_with(lead.as_bytes()) {
                return message;
            }
            self.pass(message);
        }
        panic!("no `{lead}`");
    }

    fn pass(&mut self, message: Vec<u8>) {
        // Acknowledgements and confirmations may come at any time, and nobody waits for one of the past.
        if ![&b"#!-agent ack "[..], b"#!-threatlockdown "].iter().any(|lead| message.starts_with(lead)) {
            self.passed.push(message);
        }
    }

    /// Whether a file was announced while something else was waited for.
    pub fn has_passed_a_file(&self) -> bool {
        self.passed.iter().any(|message| message.starts_with(b"#!-up file "))
    }

    /// The handshake of an agent of the contract.
    pub fn greet(&mut self) {
        let startup = Startup::Told { version: Some(self.version.clone()), hello: None };
        self.send(&FromAgent::Startup(startup).to_bytes());
        assert_eq!(self.receive().unwrap(), FromManager::Ack.to_bytes());
    }

    pub fn keep_alive(&mut self) {
        let alive = KeepAlive {
            system: "Linux |web-01 |6.1.0 |#1 SMP |x86_64 [Debian GNU/Linux|debian: 13 (trixie)]".into(),
            product: Some(format!("Wazuh {}", self.version)),
            merged_sum: self.merged.clone(),
            ip: Some("192.0.2.77".parse().unwrap()),
            ..KeepAlive::default()
        };
        self.send(&FromAgent::KeepAlive(alive).to_bytes());
    }

    /// Handshake and first sign of life.
    pub fn start(&mut self) {
        self.greet();
        self.keep_alive();
        self.expect("#!-agent ack ");
    }

    /// The same of an agent of ours, which confirms orders.
    pub fn start_confirming(&mut self) {
        let startup = Startup::Told { version: Some(self.version.clone()), hello: Some(Hello::default()) };
        self.send(&FromAgent::Startup(startup).to_bytes());
        assert_eq!(self.receive().unwrap(), FromManager::Ack.to_bytes());
        self.receive().unwrap();
        self.keep_alive();
        self.expect("#!-agent ack ");
    }

    pub fn event(&mut self, location: &str, line: &str) {
        self.send(format!("1:{location}:{line}").as_bytes());
    }

    /// Takes the file that the manager pushes.
    pub fn pushed(&mut self) -> String {
        let announced = String::from_utf8(self.expect("#!-up file ")).unwrap();
        let mut file = Vec::new();
        loop {
            let message = self.chunk();
            if message == CLOSE {
                break;
            }
            assert!(message.len() <= 900);
            file.extend_from_slice(&message);
        }
        let md5 = tld_wire::key::md5_text(&file);
        assert_eq!(announced, format!("#!-up file {md5} merged.mg\n"));
        self.merged = Some(md5);
        String::from_utf8(file).unwrap()
    }

    /// The next part of a file or its end: an agent tells them from other messages by their beginning.
    fn chunk(&mut self) -> Vec<u8> {
        let is_part = |message: &Vec<u8>| !message.starts_with(b"#!-") || message == CLOSE;
        if let Some(at) = self.passed.iter().position(is_part) {
            return self.passed.remove(at);
        }
        loop {
            let message = self.receive().expect("the file goes on");
            if is_part(&message) {
                return message;
            }
            self.pass(message);
        }
    }
}

/// A home for an agent of that manager.
pub fn agent_home(address: &str, site: &Site, name: &str, notify: u32) -> Home {
    let home = Home::new("");
    let conf = format!(
        "<ossec_config><client><server><address>{address}</address><port>{}</port><max_retries>100</max_retries>\
         <retry_interval>1</retry_interval></server><notify_time>{notify}</notify_time>\
         <enrollment><port>{}</port><agent_name>{name}</agent_name>\
         <delay_after_enrollment>1</delay_after_enrollment></enrollment></client>\
         <localfile><log_format>syslog</log_format><location>{}</location></localfile></ossec_config>",
        site.port,
        site.enrolment,
        home.at("auth.log").display()
    );
    std::fs::write(home.at("etc/ossec.conf"), conf).unwrap();
    home
}

/// Starts our agent and waits until it watches.
pub fn start_agent(home: &Home, host: Option<&Host>, extra: &[&str]) -> Service {
    let started = home.read("logs/ossec.log").matches("started in").count();
    let mut command = host.map_or_else(|| Command::new(BINARY), |host| host.command(BINARY));
    command.args(["agent", "--home"]).arg(home.path.path()).args(extra).env("TZ", super::midday());
    let output = std::fs::OpenOptions::new().append(true).create(true).open(home.at("service.out")).unwrap();
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let service = Service { child: command.spawn().expect("the agent starts") };
    let begin = Instant::now();
    while home.read("logs/ossec.log").matches("started in").count() <= started {
        assert!(begin.elapsed() < 2 * LIMIT, "it does not start: {}", home.read("service.out"));
        std::thread::sleep(Duration::from_millis(10));
    }
    service
}
