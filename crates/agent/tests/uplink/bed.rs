//! A home with an agent on it, and a manager that can be paused, restarted and asked.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tld_model::{ExecMessage, OrderId, OutcomeKind};
use tld_wire::control::{FromManager, QueryId, QueryTarget};
use tld_wire::counter::Counter;
use tld_wire::extension::{self, Ticket};
use tld_wire::frame::{self, Decoder};
use tld_wire::key::AgentKey;
use tld_wire::merged::{self, Entry};
use tld_wire::seal::{Envelope, Method, Opener, Sealer};
use tld_wire::session::manager::{Session, Step};
use tld_wire::version::Version;

const BINARY: &str = env!("CARGO_BIN_EXE_threatlockdown-agent");
pub(crate) const KEY: &str =
    "007 web-01 any 6f1c2b0a9d8e7f605142332415060718293a4b5c6d7e8f90a1b2c3d4e5f60718";

/// Waits until the condition holds; panics with the account after `limit`.
pub(crate) fn until(limit: Duration, account: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {account}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An agent's home.
pub(crate) struct Bed {
    path: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new(manager: &Manager, more: &str) -> Self {
        let bed = Self { path: tempfile::tempdir().unwrap() };
        for folder in ["etc/shared", "active-response/bin", "logs", "var/run"] {
            fs::create_dir_all(bed.at(folder)).unwrap();
        }
        fs::write(bed.at("etc/client.keys"), format!("{KEY}\n")).unwrap();
        fs::write(bed.at("auth.log"), "").unwrap();
        let (ip, port) = (manager.address.ip(), manager.address.port());
        let conf = format!(
            "<ossec_config><client><server><address>{ip}</address><port>{port}</port><max_retries>50</max_retries>\
             <retry_interval>1</retry_interval></server><notify_time>1</notify_time>\
             <enrollment><enabled>no</enabled></enrollment></client>\
             <localfile><log_format>syslog</log_format><location>{}</location></localfile>{more}</ossec_config>",
            bed.at("auth.log").display()
        );
        fs::write(bed.at("etc/ossec.conf"), conf).unwrap();
        bed
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path.path().join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    pub(crate) fn script(&self, name: &str, text: &str) {
        let path = self.at("active-response/bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    }

    pub(crate) fn log(&self, lines: &[String]) {
        let mut file = fs::OpenOptions::new().append(true).open(self.at("auth.log")).unwrap();
        file.write_all(format!("{}\n", lines.join("\n")).as_bytes()).unwrap();
    }

    pub(crate) fn spool_contains(&self, text: &str) -> bool {
        let files = fs::read_dir(self.at("queue/threatlockdown/spool")).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read(file.path()).ok())
            .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }
}

/// The running agent, killed with the value.
pub(crate) struct Agent(Child);

impl Agent {
    pub(crate) fn start(bed: &Bed) -> Self {
        let started = bed.read("logs/ossec.log").matches("started in").count();
        let output = fs::OpenOptions::new().append(true).create(true).open(bed.at("agent.out")).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["run", "--dry-run", "-d", "--home"]).arg(bed.path.path());
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let agent = Self(command.spawn().unwrap());
        let begin = Instant::now();
        while bed.read("logs/ossec.log").matches("started in").count() <= started {
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "it does not start: {}",
                bed.read("agent.out")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        agent
    }

    pub(crate) fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn stop(mut self) {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the manager has seen; outlives its restarts.
#[derive(Default)]
struct Seen {
    events: Vec<String>,
    products: Vec<String>,
    answers: Vec<(QueryId, String)>,
    received: Vec<String>,
    outcomes: Vec<(String, String)>,
    taken: Counter,
    goodbye: bool,
}

struct Shared {
    seen: Mutex<Seen>,
    connections: AtomicUsize,
    /// Connections are let in.
    open: AtomicBool,
    live: Mutex<Option<TcpStream>>,
    sealing: Mutex<(Sealer, Counter)>,
    key: AgentKey,
    version: Version,
    extended: bool,
}

/// A manager on one port.
pub(crate) struct Manager {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Manager {
    pub(crate) fn start(extended: bool, version: Version) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicBool::new(true),
            live: Mutex::new(None),
            sealing: Mutex::new((Sealer::default(), Counter { global: 1, local: 1 })),
            key: KEY.parse().unwrap(),
            version,
            extended,
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.open.load(Ordering::SeqCst) {
                    let serving = Arc::clone(&serving);
                    std::thread::spawn(move || serving.serve(stream));
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().events.clone()
    }

    pub(crate) fn products(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().products.clone()
    }

    /// Texts of the lines from files.
    pub(crate) fn lines(&self) -> Vec<String> {
        let events = self.events();
        let lines = events.iter().filter_map(|event| event.strip_prefix("1:/")?.split_once(".log:"));
        lines.map(|(_, line)| line.to_owned()).collect()
    }

    pub(crate) fn said_goodbye(&self) -> bool {
        self.shared.seen.lock().unwrap().goodbye
    }

    /// Drops the connection; what it has not read is lost with it.
    pub(crate) fn restart(&mut self) {
        self.pause();
        self.resume();
    }

    pub(crate) fn pause(&mut self) {
        self.shared.open.store(false, Ordering::SeqCst);
        if let Some(stream) = self.shared.live.lock().unwrap().take() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    pub(crate) fn resume(&mut self) {
        self.shared.open.store(true, Ordering::SeqCst);
    }

    pub(crate) fn send(&self, message: &FromManager) {
        self.shared.send(&message.to_bytes());
    }

    pub(crate) fn ask(&self, question: &str) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let id = QueryId::new(NEXT.fetch_add(1, Ordering::SeqCst) as u32);
        let (target, text) = question.split_once(' ').unwrap();
        let target = QueryTarget::of_name(target.as_bytes()).unwrap();
        self.send(&FromManager::Query { id: id.clone(), target, text: text.into() });
        let mut found = None;
        until(Duration::from_secs(20), question, || {
            let seen = self.shared.seen.lock().unwrap();
            found = seen.answers.iter().find(|(of, _)| *of == id).map(|(_, text)| text.clone());
            found.is_some()
        });
        found.unwrap()
    }

    pub(crate) fn received(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().received.clone()
    }

    pub(crate) fn outcomes(&self) -> Vec<(String, String)> {
        self.shared.seen.lock().unwrap().outcomes.clone()
    }

    pub(crate) fn order(&self, id: &str, command: &str, deadline_ns: Option<i64>) {
        let json = format!(
            r#"{{"version":1,"origin":{{"name":"n","module":"m"}},"command":"{command}","parameters":{{"extra_args":[],"alert":{{"id":"1.2"}}}}}}"#
        );
        let message: ExecMessage = serde_json::from_str(&json).unwrap();
        let ticket = Ticket { deadline_ns, ..Ticket::new(OrderId(id.into())) };
        let text = extension::with_ticket(&message, &ticket).unwrap();
        self.send(&FromManager::Execd(text.into_bytes()));
    }

    pub(crate) fn confirm(&self, order: &str, kind: &str) {
        let kind: OutcomeKind = serde_json::from_value(kind.into()).unwrap();
        let order = OrderId(order.into());
        self.send(&FromManager::Extension(extension::FromManager::Confirmed { order, kind }));
    }

    pub(crate) fn cancel(&self, order: &str) {
        let order = OrderId(order.into());
        self.send(&FromManager::Extension(extension::FromManager::Cancel { order }));
    }

    pub(crate) fn push(&self, files: &[(&str, &[u8])]) {
        let entries: Vec<_> = files.iter().map(|(name, content)| Entry { name, content }).collect();
        let bundle = merged::build("default", &entries).unwrap();
        self.send(&FromManager::up_file("merged.mg", &bundle));
        for chunk in merged::chunks(&bundle).unwrap() {
            self.shared.send(chunk);
        }
        self.send(&FromManager::CloseFile);
    }
}

impl Shared {
    fn send(&self, payload: &[u8]) {
        let live = self.live.lock().unwrap();
        let Some(mut stream) = live.as_ref() else { return };
        let mut sealing = self.sealing.lock().unwrap();
        let (sealer, counter) = &mut *sealing;
        counter.local += 1;
        let sealed = sealer.seal(&self.key.sealing(), Method::Aes, None, 7, *counter, payload).unwrap();
        let _ = stream.write_all(&frame::encode(&sealed).unwrap());
    }

    fn serve(&self, mut stream: TcpStream) {
        *self.live.lock().unwrap() = Some(stream.try_clone().unwrap());
        let mut session = Session::new(self.version, false);
        let (mut decoder, mut opener) = (Decoder::default(), Opener::default());
        let mut buffer = vec![0; 4096];
        let mut told = Instant::now();
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let mut bytes = &buffer[..count];
            while let Ok(Some(message)) = decoder.next(&mut bytes) {
                let envelope = Envelope::parse(&message).unwrap();
                let opened = opener.open(&self.key.sealing(), envelope.method, envelope.ciphertext).unwrap();
                self.take(&mut session, &opened.payload, opened.counter);
            }
            if session.confirms() && told.elapsed() > Duration::from_millis(100) {
                told = Instant::now();
                self.tell_taken();
            }
        }
    }

    fn tell_taken(&self) {
        let taken = self.seen.lock().unwrap().taken;
        self.send(&FromManager::Extension(extension::FromManager::Taken(taken)).to_bytes());
    }

    fn take(&self, session: &mut Session, payload: &[u8], counter: Counter) {
        let before = self.seen.lock().unwrap().taken;
        // The handshake of one that is to look like a peer of the plain contract.
        let text = String::from_utf8_lossy(payload).into_owned();
        let plain = text.split_once(",\"threatlockdown\"").map(|(head, _)| format!("{head}}}"));
        let payload = plain.filter(|_| !self.extended).map_or(payload.to_vec(), String::into_bytes);
        for step in session.on_payload(&payload) {
            match step {
                Step::Send(answer) => self.send(&answer),
                Step::Pending => {
                    self.connections.fetch_add(1, Ordering::SeqCst);
                    if session.confirms() {
                        self.seen.lock().unwrap().taken = before;
                        self.tell_taken();
                    }
                }
                Step::Active(alive) => self.seen.lock().unwrap().products.extend(alive.product),
                Step::Left => self.seen.lock().unwrap().goodbye = true,
                Step::Event(event) => {
                    self.seen.lock().unwrap().events.push(String::from_utf8_lossy(&event).into_owned());
                }
                Step::Received(order) => self.seen.lock().unwrap().received.push(order.0),
                Step::Outcome(outcome) => {
                    let told = (outcome.order.0.clone(), outcome.kind.to_string());
                    self.seen.lock().unwrap().outcomes.push(told);
                }
                Step::Answer(id, text) => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    self.seen.lock().unwrap().answers.push((id, text));
                }
                _ => {}
            }
        }
        self.seen.lock().unwrap().taken = counter;
    }
}
