//! Time from `write()` of the decisive log line to the element in the kernel's set: the real binary, a real file, the real kernel,
//! in a private network namespace. Prints percentiles of 200 samples; run it as root with
//! `cargo bench -p tld-cli --bench latency`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a bench starts programs and prints"
)]

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tld_sys::nft::Firewall;

const SAMPLES: usize = 200;

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    if !tld_sys::privilege::has_net_admin() || tld_sys::net_namespace::enter_private().is_err() {
        println!("skipped: a private network namespace needs root");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    prepare(home.path());
    let _service = start(home.path());
    let mut firewall = Firewall::open().unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(home.path().join("auth.log")).unwrap();
    let mut samples = Vec::with_capacity(SAMPLES);
    for n in 0..SAMPLES + 5 {
        let address: IpAddr = format!("198.18.{}.{}", n / 250, n % 250 + 1).parse().unwrap();
        let line = format!("Nov 22 10:00:00 web01 sshd[{n}]: Invalid user oracle from {address} port 4022\n");
        std::thread::sleep(Duration::from_millis(20 + (n as u64 * 7) % 30));
        let start = Instant::now();
        log.write_all(line.as_bytes()).unwrap();
        while firewall.lookup("threatlockdown", address).unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(5), "{address} was not blocked");
            std::thread::sleep(Duration::from_micros(20));
        }
        // The first ones warm the caches, as a service that runs for days has them.
        if n >= 5 {
            samples.push(start.elapsed());
        }
    }
    samples.sort();
    let at = |percent: usize| samples[(samples.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "write() of the decisive line to element in the kernel, {SAMPLES} samples, ms: min {:.2} p50 {:.2} p90 {:.2} p99 {:.2} max {:.2}",
        at(0),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

fn prepare(home: &Path) {
    fs::create_dir_all(home.join("etc")).unwrap();
    fs::write(home.join("auth.log"), "").unwrap();
    let conf = format!(
        "<ossec_config><command><name>firewall-drop</name><executable>firewall-drop</executable>\
         <timeout_allowed>yes</timeout_allowed></command><active-response><command>firewall-drop</command>\
         <location>local</location><rules_id>5710</rules_id><timeout>600</timeout></active-response>\
         <localfile><log_format>syslog</log_format><location>{}</location></localfile>\
         <ruleset><decoder_dir>ruleset/decoders</decoder_dir><rule_dir>ruleset/rules</rule_dir></ruleset></ossec_config>",
        home.join("auth.log").display()
    );
    fs::write(home.join("etc/ossec.conf"), conf).unwrap();
}

fn start(home: &Path) -> Service {
    let output = fs::File::create(home.join("out")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_threatlockdown"));
    command.args(["standalone", "--user", "tld-nobody-such", "--home"]).arg(home);
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let service = Service(command.spawn().unwrap());
    let start = Instant::now();
    while !fs::read_to_string(home.join("logs/ossec.log")).unwrap_or_default().contains("started in") {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{}",
            fs::read_to_string(home.join("out")).unwrap()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    service
}
