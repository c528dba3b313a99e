//! Thousands of simulated agents on one real manager process: `cargo xtask agents`.
//!
//! The agents speak the contract's bytes over TCP from a few threads, so that what is measured is the manager. Figures are
//! taken from the outside: memory and processor time from `/proc`, times from an event's write to the order's arrival.
//! Invariant: a figure is printed only when everything that it is about has happened; otherwise the task fails.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tld_sys::poller::{Interest, Poller};
use tld_sys::tcp;
use tld_wire::counter::SenderCounter;
use tld_wire::frame;
use tld_wire::key::{AgentKey, SealingKeys};
use tld_wire::seal::{Envelope, Method, Opener, Sealer};

/// What to simulate.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Agents
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// Events that each agent sends under load
    #[arg(long, default_value_t = 100)]
    events: usize,
    /// Agents among them that never read what they are sent
    #[arg(long, default_value_t = 100)]
    silent: usize,
    /// Orders whose way is timed
    #[arg(long, default_value_t = 1_000)]
    orders: usize,
    /// The manager's binary; built with --release when left out
    #[arg(long)]
    binary: Option<PathBuf>,
}

const THREADS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(180);
const RULES: &str = "<group name=\"sim,\">\n\
    <rule id=\"100100\" level=\"3\"><match>sim-event </match><description>An event.</description></rule>\n</group>\n";

/// Runs the simulation and prints its figures.
pub(crate) fn run(options: &Options, root: &Path) -> Result<()> {
    ensure!(options.silent < options.count && options.orders > 0, "some agents must read");
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            let built =
                build.current_dir(root).args(["build", "--release", "--package", "tld-cli"]).status()?;
            ensure!(built.success(), "the manager cannot be built");
            root.join("target/release/threatlockdown")
        }
    };
    let files = tcp::raise_open_files(options.count as u64 + 500);
    ensure!(files > options.count as u64 + 100, "only {files} open files are allowed here");
    let site = Site::make(options)?;
    let manager = site.start(&binary)?;
    let before = manager.resident()?;

    let clock = Instant::now();
    let shared = Arc::new(Shared::default());
    let steps = Arc::new(Barrier::new(THREADS + 1));
    let mut threads = Vec::new();
    for (index, share) in site.shares(options).into_iter().enumerate() {
        let (shared, steps, options, port) =
            (Arc::clone(&shared), Arc::clone(&steps), options.clone(), site.port);
        threads.push(std::thread::spawn(move || {
            let result =
                Crew::connect(share, port, shared).and_then(|crew| crew.act(index, &options, &steps));
            if let Err(error) = &result {
                println!("a thread of agents failed: {error:#}");
                give_up();
            }
        }));
    }
    steps.wait();
    println!("{} agents connected and active in {:.1} s", options.count, clock.elapsed().as_secs_f64());
    let after = manager.resident()?;
    let each = after.saturating_sub(before) as f64 / options.count as f64;
    println!(
        "memory: {} MiB before, {} MiB with all agents: {each:.0} bytes each",
        before >> 20,
        after >> 20
    );

    let cpu = manager.cpu()?;
    let clock = Instant::now();
    steps.wait();
    let wanted = (options.count * options.events + options.orders) as u64;
    steps.wait();
    site.until_judged(wanted)?;
    let (took, cpu) = (clock.elapsed().as_secs_f64(), manager.cpu()? - cpu);
    println!(
        "events: {wanted} in {took:.1} s ({:.0}/s), {cpu:.1} s of processor time: {:.0} events per CPU-second",
        wanted as f64 / took,
        wanted as f64 / cpu
    );
    println!("memory at its highest: {} MiB", manager.peak()? >> 20);
    shared.report("under load", options.orders, options.silent)?;
    steps.wait();
    steps.wait();
    shared.report("without load", options.orders, options.silent)?;
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// The others wait at a barrier that would never open.
#[expect(clippy::exit, reason = "a task that failed ends with its figures missing")]
fn give_up() -> ! {
    std::process::exit(1)
}

/// The manager's home.
struct Site {
    home: PathBuf,
    port: u16,
    keys: Vec<AgentKey>,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Site {
    fn make(options: &Options) -> Result<Self> {
        let home = std::env::temp_dir().join(format!("tld-fleet-{}", std::process::id()));
        let port = free_port()?;
        for folder in ["etc/rules", "etc/shared/default", "queue", "logs"] {
            fs::create_dir_all(home.join(folder))?;
        }
        fs::write(home.join("etc/rules/sim.xml"), RULES)?;
        let conf = format!(
            "<ossec_config><global><alerts_log>no</alerts_log></global><alerts><log_alert_level>4</log_alert_level></alerts>\
             <remote><connection>secure</connection><port>{port}</port></remote><auth><disabled>yes</disabled></auth>\
             <command><name>firewall-drop</name><executable>firewall-drop</executable><timeout_allowed>yes</timeout_allowed></command>\
             <active-response><command>firewall-drop</command><location>local</location><rules_id>5760</rules_id>\
             <timeout>60</timeout></active-response><ruleset><decoder_dir>ruleset/decoders</decoder_dir>\
             <rule_dir>ruleset/rules</rule_dir><rule_dir>etc/rules</rule_dir></ruleset></ossec_config>"
        );
        fs::write(home.join("etc/ossec.conf"), conf)?;
        let mut text = String::new();
        let mut keys = Vec::with_capacity(options.count);
        for number in 1..=options.count {
            let line = format!("{number:03} sim-{number} any {number:064x}");
            keys.push(line.parse()?);
            text.push_str(&line);
            text.push('\n');
        }
        fs::write(home.join("etc/client.keys"), text)?;
        Ok(Self { home, port, keys })
    }

    fn start(&self, binary: &Path) -> Result<Manager> {
        let output = fs::File::create(self.home.join("manager.out"))?;
        let mut command = Command::new(binary);
        command.args(["manager", "--user", "tld-nobody-such", "--home"]).arg(&self.home);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let manager = Manager(command.spawn().context("the manager does not start")?);
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if begin.elapsed() > PATIENCE {
                bail!("the manager does not listen: {}", fs::read_to_string(self.home.join("manager.out"))?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_secs(1));
        Ok(manager)
    }

    fn shares(&self, options: &Options) -> Vec<Vec<(AgentKey, bool)>> {
        let mut shares = vec![Vec::new(); THREADS];
        for (number, key) in self.keys.iter().enumerate() {
            shares[number % THREADS].push((key.clone(), number >= options.count - options.silent));
        }
        shares
    }

    /// Waits until the channel has handed so many events to the pipeline and the pipeline's alerts stand.
    fn until_judged(&self, wanted: u64) -> Result<()> {
        let begin = Instant::now();
        loop {
            let mut socket = UnixStream::connect(self.home.join("queue/sockets/remote"))?;
            socket.write_all(&frame::encode(b"{\"version\":1,\"command\":\"getstats\"}")?)?;
            let mut head = [0; 4];
            socket.read_exact(&mut head)?;
            let mut text = vec![0; u32::from_le_bytes(head) as usize];
            socket.read_exact(&mut text)?;
            let stats: serde_json::Value = serde_json::from_slice(&text)?;
            let events = stats["data"]["metrics"]["messages"]["received_breakdown"]["event"].as_u64();
            if events.is_some_and(|events| events >= wanted) {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "only {events:?} of {wanted} events were taken");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The real process, ended with the value.
struct Manager(Child);

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Manager {
    fn memory(&self, field: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)).context("no such figure")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib << 10)
    }

    fn resident(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    fn peak(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// Seconds of all threads, user and system.
    fn cpu(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((ticks(11) + ticks(12)) / 100.0)
    }
}

#[derive(Default)]
struct Shared {
    sent: Mutex<HashMap<String, Instant>>,
    times: Mutex<Vec<Duration>>,
    done: AtomicU64,
    loaded: AtomicBool,
}

impl Shared {
    fn report(&self, when: &str, wanted: usize, silent: usize) -> Result<()> {
        let begin = Instant::now();
        while (self.done.load(Ordering::Relaxed) as usize) < wanted {
            let done = self.done.load(Ordering::Relaxed);
            ensure!(begin.elapsed() < PATIENCE, "only {done} of {wanted} orders came");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.done.store(0, Ordering::Relaxed);
        let mut times =
            std::mem::take(&mut *self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        println!(
            "event to order at the agent, {when}, {silent} agents never read: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        );
        Ok(())
    }
}

/// One agent.
struct Member {
    id: String,
    keys: SealingKeys,
    stream: TcpStream,
    counter: SenderCounter,
    is_silent: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    acks: u32,
    left: usize,
}

/// The agents of one thread.
struct Crew {
    members: Vec<Member>,
    poller: Poller,
    sealer: Sealer,
    opener: Opener,
    shared: Arc<Shared>,
    scratch: Vec<u8>,
}

impl Crew {
    fn connect(share: Vec<(AgentKey, bool)>, port: u16, shared: Arc<Shared>) -> Result<Self> {
        let poller = Poller::new()?;
        let mut members = Vec::with_capacity(share.len());
        for (key, is_silent) in share {
            let stream = TcpStream::connect(("127.0.0.1", port)).context("an agent cannot connect")?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let interest = if is_silent { Interest::default() } else { Interest::READ };
            poller.add(&stream, members.len() as u64, interest)?;
            members.push(Member {
                id: key.id.clone(),
                keys: key.sealing(),
                stream,
                counter: SenderCounter::default(),
                is_silent,
                input: Vec::new(),
                output: Vec::new(),
                acks: 0,
                left: 0,
            });
        }
        let (sealer, opener) = (Sealer::default(), Opener::default());
        Ok(Self { members, poller, sealer, opener, shared, scratch: vec![0; 64 << 10] })
    }

    fn act(mut self, index: usize, options: &Options, steps: &Barrier) -> Result<()> {
        for at in 0..self.members.len() {
            self.say(at, b"#!-agent startup {\"version\":\"v4.14.7\"}")?;
            let alive = "#!-Linux |sim |6.1 |#1 |x86_64 [Debian GNU/Linux|debian: 13 (trixie)] - Wazuh v4.14.7\nx merged.mg\n";
            self.say(at, alive.as_bytes())?;
        }
        self.serve(|crew| crew.members.iter().all(|member| member.is_silent || member.acks >= 2))?;
        steps.wait();
        // The main thread has looked at the memory.
        steps.wait();
        self.shared.loaded.store(true, Ordering::Relaxed);
        let timed = options.orders / THREADS + usize::from(index < options.orders % THREADS);
        for member in &mut self.members {
            member.left = options.events;
        }
        self.load(timed, index)?;
        steps.wait();
        self.serve_until_quiet()?;
        steps.wait();
        self.shared.loaded.store(false, Ordering::Relaxed);
        for number in 0..timed {
            let name = self.trigger(index, 1_000_000 + number)?;
            // One after the other, so that only the way itself is timed.
            let shared = Arc::clone(&self.shared);
            self.serve(move |_| !lock(&shared.sent).contains_key(&name))?;
        }
        steps.wait();
        Ok(())
    }

    /// Every agent's events in turn, with the timed ones spread among them.
    fn load(&mut self, timed: usize, index: usize) -> Result<()> {
        let total = self.members.iter().map(|member| member.left).sum::<usize>().max(1);
        let (mut sent, mut fired) = (0, 0);
        let line = "1:/var/log/syslog:Nov 23 02:00:00 web01 sim[7]: sim-event number of an ordinary length for a log line";
        while sent < total || fired < timed {
            for at in 0..self.members.len() {
                // What the manager does not take yet waits here, as an agent's buffer would.
                if self.members[at].left > 0 && self.members[at].output.len() < 4_096 {
                    self.members[at].left -= 1;
                    sent += 1;
                    self.say(at, line.as_bytes())?;
                }
                if fired < timed && fired * total <= sent * timed {
                    self.trigger(index, fired)?;
                    fired += 1;
                }
                if at % 64 == 0 {
                    self.turn(Duration::ZERO)?;
                }
            }
            self.turn(Duration::from_millis(1))?;
        }
        self.serve(|crew| crew.members.iter().all(|member| member.output.is_empty()))
    }

    fn trigger(&mut self, index: usize, number: usize) -> Result<String> {
        let readers = self.members.iter().filter(|member| !member.is_silent).count();
        let at = self.members.iter().enumerate().filter(|(_, member)| !member.is_silent).map(|(at, _)| at);
        let at = at.clone().nth(number % readers).context("an agent that reads")?;
        let name = format!("sim-trigger-{index}-{number} ");
        lock(&self.shared.sent).insert(name.clone(), Instant::now());
        // Addresses of their own, so that no order is for a target that has one already.
        let address = format!("203.0.{}.{}", number / 250 % 250, number % 250 + 1);
        let line = format!(
            "1:/var/log/auth.log:Nov 23 02:00:00 web01 sshd[7]: Failed password for {name}from {address} port 40022 ssh2"
        );
        self.say(at, line.as_bytes())?;
        Ok(name)
    }

    fn say(&mut self, at: usize, payload: &[u8]) -> Result<()> {
        let member = &mut self.members[at];
        let pair = member.counter.advance()?;
        let sealed = self.sealer.seal(&member.keys, Method::Aes, Some(&member.id), 7, pair, payload)?;
        member.output.extend_from_slice(&frame::encode(&sealed)?);
        self.write(at)
    }

    fn write(&mut self, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        let before = member.output.is_empty();
        while !member.output.is_empty() {
            match member.stream.write(&member.output) {
                Ok(count) => drop(member.output.drain(..count)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the manager closed a connection"),
            }
        }
        if before || member.output.is_empty() {
            let interest = Interest { read: !member.is_silent, write: !member.output.is_empty() };
            self.poller.change(&member.stream, at as u64, interest)?;
        }
        Ok(())
    }

    fn serve(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        let begin = Instant::now();
        while !done(self) {
            ensure!(begin.elapsed() < PATIENCE, "the manager does not answer");
            self.turn(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn serve_until_quiet(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        self.serve(move |_| lock(&shared.sent).is_empty())
    }

    fn turn(&mut self, patience: Duration) -> Result<()> {
        let mut ready = Vec::new();
        self.poller.wait(&mut ready, patience)?;
        for one in ready {
            let at = one.token as usize;
            if one.write {
                self.write(at)?;
            }
            if one.read && !self.members[at].is_silent {
                self.read(at)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        match member.stream.read(&mut self.scratch) {
            Ok(0) => bail!("the manager closed a connection"),
            Ok(count) => member.input.extend_from_slice(&self.scratch[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut taken = 0;
        while let Some(message) = frame::split(&member.input[taken..])? {
            let envelope = Envelope::parse(message)?;
            let opened = self.opener.open(&member.keys, envelope.method, envelope.ciphertext)?;
            taken += 4 + message.len();
            if opened.payload.starts_with(b"#!-agent ack ") {
                member.acks += 1;
            } else if opened.payload.starts_with(b"#!-execd ") {
                self.shared.arrived(&opened.payload);
            }
        }
        member.input.drain(..taken);
        Ok(())
    }
}

impl Shared {
    fn arrived(&self, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        let Some(at) = text.find("sim-trigger-") else { return };
        let Some(end) = text[at + 12..].find(' ') else { return };
        // The same order may come again; only its first arrival counts.
        if let Some(begin) = lock(&self.sent).remove(&text[at..=at + 12 + end]) {
            lock(&self.times).push(begin.elapsed());
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
