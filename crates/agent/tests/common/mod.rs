//! What the tests of the drop-in share: a 4.x installation made of a temporary directory, the real binary on it, and
//! peers that speak on its sockets.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "each test uses a part; tests start programs"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_threatlockdown-agent");
pub const SECOND: Duration = Duration::from_secs(1);
/// Longest wait for what takes a moment on a machine of its own.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Says why a test does nothing, or fails where everything must run (`TLD_REQUIRE_ALL=1`).
pub fn skip(why: &str) {
    assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "cannot run, and TLD_REQUIRE_ALL is set: {why}");
    println!("skipped: {why}");
}

/// A network of our own, or the reason why not.
pub fn network() -> Option<Network> {
    for (tool, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        let there =
            ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(tool).exists());
        if !there {
            skip(&format!("`{tool}` is not installed (package {package})"));
            return None;
        }
    }
    let network = Network::new();
    if network.is_none() {
        skip("network namespaces need root");
    }
    network
}

/// Waits until the condition holds; panics with the account after `limit`.
pub fn until(limit: Duration, account: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {}", account());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A network namespace, deleted with the value.
#[derive(Debug)]
pub struct Network {
    name: String,
}

impl Network {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tlda-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]).then_some(Self { name })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// What the kernel holds in our table.
    pub fn rules(&self) -> String {
        let mut command = self.command("nft");
        let output = command.args(["list", "ruleset"]).stderr(Stdio::null()).output().expect("nft starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.name]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An installation.
#[derive(Debug)]
pub struct Home {
    path: tempfile::TempDir,
}

impl Home {
    /// `options` stand in the endpoint's `<active-response>`.
    pub fn new(options: &str, ar_conf: &str) -> Self {
        let home = Self { path: tempfile::tempdir().expect("a temporary directory") };
        for folder in
            ["etc/shared", "active-response/bin", "queue/alerts", "queue/sockets", "logs", "var/run"]
        {
            fs::create_dir_all(home.at(folder)).unwrap();
        }
        let conf = format!(
            "<ossec_config>\n  <client><server><address>192.0.2.1</address></server></client>\n  \
             <active-response>{options}</active-response>\n</ossec_config>\n"
        );
        fs::write(home.at("etc/ossec.conf"), conf).unwrap();
        home.ar_conf(ar_conf);
        home
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.path.path().join(path)
    }

    pub fn ar_conf(&self, text: &str) {
        let fresh = self.at("etc/shared/.ar.conf");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.at("etc/shared/ar.conf")).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        self.read("logs/ossec.log")
    }

    pub fn responses(&self) -> String {
        self.read("logs/active-responses.log")
    }

    /// Both logs, for the account of a failure.
    pub fn logs(&self) -> String {
        format!("{}\n--\n{}", self.log(), self.responses())
    }

    /// An executable of the operator.
    pub fn script(&self, name: &str, text: &str) {
        let path = self.at("active-response/bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    }

    /// Our own program under a response's name.
    pub fn ours(&self, name: &str) {
        let path = self.at("active-response/bin").join(name);
        fs::copy(BINARY, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    }

    /// The service, once it answers on its control socket: in that network, or in one of its own where that can be.
    pub fn start(&self, network: Option<&Network>, extra: &[&str]) -> Service {
        let own = if network.is_none() { Network::new() } else { None };
        let network = network.or(own.as_ref());
        let mut command = network.map_or_else(|| Command::new(BINARY), |network| network.command(BINARY));
        command.args(["responder", "-dd", "--home"]).arg(self.path.path()).args(extra);
        let output = fs::OpenOptions::new().append(true).create(true).open(self.at("service.out")).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let ready = self.marks();
        let service = Service { child: command.spawn().expect("the service starts"), _network: own };
        until(
            2 * PATIENCE,
            || format!("the service starts: {}", self.read("service.out")),
            || self.marks() > ready,
        );
        service
    }

    fn marks(&self) -> usize {
        let log = self.log();
        log.matches("taking requests").count() + log.matches("(1350)").count()
    }

    /// One datagram to the service.
    pub fn send(&self, message: impl AsRef<[u8]>) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(message.as_ref(), self.at("queue/alerts/execq")).expect("the request is taken");
    }

    /// One question on the control socket.
    pub fn ask(&self, question: &str) -> String {
        let mut stream =
            UnixStream::connect(self.at("queue/sockets/com")).expect("the control socket is served");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut frame = u32::try_from(question.len()).unwrap().to_le_bytes().to_vec();
        frame.extend_from_slice(question.as_bytes());
        stream.write_all(&frame).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Waits for a text in the service's log.
    pub fn logged(&self, text: &str) {
        until(PATIENCE, || format!("`{text}` in {}", self.logs()), || self.log().contains(text));
    }

    /// Waits for a text in the log of responses.
    pub fn responded(&self, text: &str) {
        until(PATIENCE, || format!("`{text}` in {}", self.logs()), || self.responses().contains(text));
    }
}

/// A running service, killed with the value.
#[derive(Debug)]
pub struct Service {
    pub child: Child,
    _network: Option<Network>,
}

impl Service {
    fn terminate(&self) {
        assert!(run("kill", &["-TERM", &self.child.id().to_string()]));
    }

    /// SIGTERM and the exit status.
    pub fn stop(mut self) -> Option<i32> {
        self.terminate();
        self.child.wait().ok().and_then(|status| status.code())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request as a manager sends it, with the alert of the contract's peer tests.
pub fn request(command: &str, data: &str) -> String {
    format!(
        r#"{{"version":1,"origin":{{"name":"","module":"wazuh-analysisd"}},"command":"{command}","parameters":{{"extra_args":[],"alert":{{"rule":{{"level":5,"description":"Test.","id":554}},"data":{data}}}}}}}"#
    )
}

pub const BOTH: &str = r#"{"dstuser":"Test.","srcip":"3.3.3.3"}"#;
