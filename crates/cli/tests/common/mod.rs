//! What the whole-system tests share: the real binary, hosts made of network namespaces, waiting for conditions.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "each test uses a part; tests start programs"
)]

pub mod fleet;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_threatlockdown");

/// Says why a test does nothing, or fails where everything must run (`TLD_REQUIRE_ALL=1`).
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("TLD_REQUIRE_ALL").is_none(),
        "cannot run here, and TLD_REQUIRE_ALL is set: {why}"
    );
    println!("skipped: {why}");
}

/// True when namespaces and firewalls can be made here; otherwise says what is missing.
pub fn namespaces() -> bool {
    for (tool, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if !installed(tool) {
            skip(&format!("`{tool}` is not installed (package {package})"));
            return false;
        }
    }
    let probe = Host::try_new("probe");
    if probe.is_none() {
        skip("network namespaces need root");
    }
    probe.is_some()
}

/// Whether a program is in one of the usual directories.
pub fn installed(tool: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|folder| Path::new(folder).join(tool).exists())
}

/// Test data beside the project, if it is there.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TLD_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let file = root.join(path);
    if !file.exists() {
        println!("skipped: `{}` is absent (set TLD_SHARED)", file.display());
        return None;
    }
    Some(file)
}

/// Waits until the condition holds and returns how long it took; panics with the account after `limit`.
pub fn until(limit: Duration, account: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    loop {
        if holds() {
            return start.elapsed();
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {account}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Longest wait for what takes a moment on a machine of its own: one that is busy with other things must not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A bound of the product in time. Each round waits for its event with patience and says whether it came within the
/// bound; a machine that is busy with other things may spoil a round, but not all of them.
pub fn in_time(bound: &str, mut round: impl FnMut(usize) -> bool) {
    const ROUNDS: usize = 5;
    let met = (0..ROUNDS).any(|number| {
        let met = round(number);
        if !met {
            println!("round {number}: later than {bound}");
        }
        met
    });
    assert!(met, "in none of {ROUNDS} rounds {bound}");
}

/// A time zone in which it was noon when the test began: files and counters of a day must not end during a test.
pub fn midday() -> &'static str {
    static ZONE: OnceLock<String> = OnceLock::new();
    ZONE.get_or_init(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let hour = i64::try_from(now.as_secs() / 3_600 % 24).unwrap();
        // POSIX counts westwards.
        format!("NOON{}", hour - 12)
    })
}

/// What must be seen while a limited effect lasts. `round` gets the effect's length in seconds and returns false when
/// the machine was too slow to tell; then it gets twice as many.
pub fn unhurried(first: u64, mut round: impl FnMut(u64) -> bool) {
    let mut lengths = [1, 2, 4, 8, 16].map(|times| first * times).into_iter();
    assert!(lengths.any(&mut round), "even an effect of {} seconds was over too soon", first * 16);
}

/// An effect of limited length that began after this value was made.
#[derive(Debug, Clone, Copy)]
pub struct Lasting {
    begin: Instant,
    length: Duration,
}

impl Lasting {
    pub fn new(seconds: u64) -> Self {
        Self { begin: Instant::now(), length: Duration::from_secs(seconds) }
    }

    /// Whether the effect may be over by now.
    pub fn is_over(&self) -> bool {
        self.is_over_since(Duration::ZERO)
    }

    /// Whether it may be over for so long; less, and it ended on time.
    pub fn is_over_since(&self, span: Duration) -> bool {
        self.begin.elapsed() >= self.length + span
    }

    /// Looks at something that holds as long as the effect: true, or the effect may be over.
    #[track_caller]
    pub fn holds(&self, account: &str, look: impl FnOnce() -> bool) -> bool {
        let seen = look();
        let over = self.is_over();
        assert!(seen || over, "{account}");
        !over
    }
}

/// Writes an executable through another process: were the file open for writing here while another test forks, that
/// child would keep it busy for an instant.
pub fn executable(path: &Path, text: &str, mode: u32) {
    use std::io::Write as _;
    let mut writer = Command::new("sh");
    writer.args(["-c", "cat > \"$1\"", "sh"]).arg(path).stdin(Stdio::piped());
    let mut writer = writer.spawn().expect("sh starts");
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success(), "`{}` is written", path.display());
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A process that has written its id into a file: killed with the value.
#[derive(Debug)]
pub struct Straggler(pub PathBuf);

impl Drop for Straggler {
    fn drop(&mut self) {
        let pid = fs::read_to_string(&self.0).unwrap_or_default();
        if pid.trim().parse::<u32>().is_ok() {
            run("kill", &["-KILL", pid.trim()]);
        }
    }
}

/// A host: one network namespace, deleted with the value.
#[derive(Debug)]
pub struct Host {
    pub name: String,
}

impl Host {
    pub fn new(role: &str) -> Self {
        Self::try_new(role).expect("`ip netns add` works")
    }

    fn try_new(role: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tld-{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]).then(|| {
            let host = Self { name };
            assert!(host.ip(&["link", "set", "lo", "up"]));
            host
        })
    }

    pub fn ip(&self, arguments: &[&str]) -> bool {
        let mut all = vec!["-n", &self.name];
        all.extend_from_slice(arguments);
        run("ip", &all)
    }

    /// A cable to another host with one address on each side.
    pub fn connect(&self, other: &Self, here: &str, there: &str) {
        let (a, b) = ("tldveth0", "tldveth1");
        assert!(self.ip(&["link", "add", a, "type", "veth", "peer", "name", b, "netns", &other.name]));
        for (host, link, address) in [(self, a, here), (other, b, there)] {
            assert!(
                host.ip(&["addr", "add", address, "dev", link, "nodad"])
                    || host.ip(&["addr", "add", address, "dev", link])
            );
            assert!(host.ip(&["link", "set", link, "up"]));
        }
    }

    /// A program inside the host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Whether a TCP connection opens within a second.
    pub fn reaches(&self, address: &str, port: u16) -> bool {
        let script = format!("exec 3<>/dev/tcp/{address}/{port}");
        let mut command = self.command("timeout");
        command.args(["1", "bash", "-c", &script]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Addresses that the kernel's sets of our table hold.
    pub fn blocked(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for set in ["blocked4", "blocked6"] {
            let output = self
                .command("nft")
                .args(["-j", "list", "set", "inet", "threatlockdown", set])
                .stderr(Stdio::null())
                .output()
                .expect("nft starts");
            let Ok(json) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { continue };
            collect_addresses(&json, &mut found);
        }
        found
    }
}

fn collect_addresses(json: &serde_json::Value, found: &mut Vec<IpAddr>) {
    match json {
        serde_json::Value::String(text) => found.extend(text.parse::<IpAddr>().ok()),
        serde_json::Value::Array(list) => list.iter().for_each(|one| collect_addresses(one, found)),
        serde_json::Value::Object(map) => map.values().for_each(|one| collect_addresses(one, found)),
        _ => {}
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.name]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A home directory with a configuration of the test's own, and the service that runs on it.
#[derive(Debug)]
pub struct Home {
    pub path: tempfile::TempDir,
}

impl Drop for Home {
    fn drop(&mut self) {
        // The service may have been ended without a chance to tidy up.
        run("nft", &["delete", "table", "inet", &self.table()]);
    }
}

impl Home {
    /// `responses` is XML put behind the default commands; `<localfile>`s watch `auth.log` of the home.
    pub fn new(responses: &str) -> Self {
        let path = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(path.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = Self { path };
        fs::create_dir_all(home.at("etc")).unwrap();
        fs::create_dir_all(home.at("active-response/bin")).unwrap();
        fs::write(home.at("auth.log"), "").unwrap();
        fs::write(home.at("etc/ossec.conf"), home.conf(responses)).unwrap();
        home
    }

    fn conf(&self, responses: &str) -> String {
        format!(
            "<ossec_config>\n  <global><white_list>127.0.0.1</white_list></global>\n  \
             <alerts><log_alert_level>3</log_alert_level></alerts>\n  \
             <command><name>firewall-drop</name><executable>firewall-drop</executable><timeout_allowed>yes</timeout_allowed></command>\n\
             {responses}\n  \
             <localfile><log_format>syslog</log_format><location>{}</location></localfile>\n  \
             <ruleset><decoder_dir>ruleset/decoders</decoder_dir><rule_dir>ruleset/rules</rule_dir>\
             <decoder_dir>etc/decoders</decoder_dir><rule_dir>etc/rules</rule_dir></ruleset>\n</ossec_config>\n",
            self.at("auth.log").display()
        )
    }

    /// The table of a service that runs on the host of the tests itself, where the usual one may be somebody's.
    pub fn table(&self) -> String {
        let name = self.path.path().to_string_lossy();
        let letters =
            name.chars().rev().take_while(|letter| *letter != '/').filter(char::is_ascii_alphanumeric);
        format!("tld_test_{}", letters.collect::<String>())
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.path.path().join(path)
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    /// An executable of the operator.
    pub fn script(&self, name: &str, text: &str) {
        executable(&self.at("active-response/bin").join(name), text, 0o750);
    }

    /// Appends lines to the watched log in one write.
    pub fn log(&self, lines: &str) {
        use std::io::Write as _;
        let mut file = fs::OpenOptions::new().append(true).open(self.at("auth.log")).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }

    /// Starts the service and waits until it watches.
    pub fn start(&self, host: Option<&Host>, extra: &[&str], environment: &[(&str, &str)]) -> Service {
        self.start_as("standalone", host, extra, environment)
    }

    /// The same for another form of the service.
    pub fn start_as(
        &self,
        form: &str,
        host: Option<&Host>,
        extra: &[&str],
        environment: &[(&str, &str)],
    ) -> Service {
        let started = self.read("logs/ossec.log").matches("started in").count();
        let mut command = host.map_or_else(|| Command::new(BINARY), |host| host.command(BINARY));
        command.args([form, "--home"]).arg(self.path.path()).args(extra);
        if !extra.contains(&"--user") {
            command.args(["--user", "tld-nobody-such"]);
        }
        if host.is_none() {
            command.args(["--table", &self.table()]);
        }
        command.env("TZ", midday()).envs(environment.iter().copied());
        let output = fs::OpenOptions::new().append(true).create(true).open(self.at("service.out")).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let service = Service { child: command.spawn().expect("the service starts") };
        let begin = Instant::now();
        while self.read("logs/ossec.log").matches("started in").count() <= started {
            assert!(
                begin.elapsed() < 2 * PATIENCE,
                "the service does not start: {}",
                self.read("service.out")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        service
    }

    /// Alerts written so far. A reader may come upon a write that is under way: what has no newline yet is no line.
    pub fn alerts(&self) -> Vec<serde_json::Value> {
        let text = fs::read(self.at("logs/alerts/alerts.json")).unwrap_or_default();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line of alerts.json is JSON")).collect()
    }
}

/// A running service, killed with the value.
#[derive(Debug)]
pub struct Service {
    pub child: Child,
}

impl Service {
    /// SIGKILL, as a crash.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM and the exit status.
    pub fn stop(mut self) -> Option<i32> {
        run("kill", &["-TERM", &self.child.id().to_string()]);
        self.child.wait().ok().and_then(|status| status.code())
    }

    /// Waits for the service to die by itself.
    pub fn dies(mut self, limit: Duration) {
        until(limit, "the service dies at its crash point", || self.child.try_wait().unwrap().is_some());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of failed logins as OpenSSH writes them, with the present time.
pub fn failures(address: &str, count: usize) -> String {
    let stamp = stamp();
    (0..count)
        .map(|n| {
            format!(
                "{stamp} web01 sshd[{}]: Failed password for root from {address} port {} ssh2\n",
                900 + n,
                40_000 + n
            )
        })
        .collect()
}

/// `Mon DD HH:MM:SS` of now, UTC.
pub fn stamp() -> String {
    let output = Command::new("date").args(["-u", "+%b %e %H:%M:%S"]).output().expect("date runs");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
