//! What remembering costs: resident memory with the existing ruleset, then with a million remembered events of a sshd
//! log with very many attackers; and lines per second of processor time with few attackers and with many, one after the
//! other in turns. Needs the shared data and python3.
//! `cargo bench -p tld-rules --bench memory [-- memory|spread|LOG...]`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench starts programs and prints"
)]

mod common;

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use common::{END, SPAN, Sources, processor, resident};
use tld_model::{Agent, AgentId, Event, Timestamp};
use tld_rules::{Analyzer, Engine, Ruleset, Settings};

/// Events to remember.
const WANTED: usize = 1_000_000;
/// Hosts that send them, and lines of each.
const HOSTS: u32 = 8;
const LOG: usize = 400_000;
/// Seconds that they are spread over: no timeframe that matters here is shorter.
const WITHIN: i64 = 100;
/// Lines of the logs whose speed is taken, and rounds.
const LINES: usize = 200_000;
const ROUNDS: usize = 7;
/// Lines of them for which both engines must give the same alerts.
const COMPARED: usize = 20_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let Some(shared) = common::shared() else { return };
    let asked = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    if asked("memory") {
        memory(&shared);
    }
    if asked("spread") {
        spread(&shared);
    }
}

/// Events in, verdicts dropped, nothing else kept.
fn memory(shared: &Path) {
    let before = resident();
    let ruleset = Sources::existing(shared).load();
    let loaded = resident();
    println!("ruleset    {:>7.1} MB resident ({:.1} before)", mega(loaded), mega(before));
    let folder = tempfile::tempdir().unwrap();
    let lines = HOSTS as usize * LOG;
    let log = common::sshd(shared, folder.path(), LOG, 100_000).expect("python3 runs");
    let hosts: Vec<Arc<Agent>> =
        (0..HOSTS).map(|id| Arc::new(Agent { id: AgentId(id), ..Agent::default() })).collect();
    let location: Arc<[u8]> = b"/var/log/auth.log"[..].into();
    let mut analyzer = fresh(&ruleset);
    let mut most = 0;
    let mut report = |analyzer: &Analyzer, n: usize| {
        let (events, bytes, lost) = analyzer.memory();
        let resident = resident();
        most = most.max(resident);
        println!(
            "{n:>9} lines, {events:>8} events: {:>6.1} MB resident, {:>6.1} MB counted, {:>6.1} resident bytes per event, {lost} lost",
            mega(resident),
            mega(bytes),
            (resident - loaded) as f64 / events.max(1) as f64,
        );
    };
    let start = processor();
    let mut n = 0;
    // The same attackers at one host after the other.
    'hosts: for host in &hosts {
        for line in BufReader::new(File::open(&log).unwrap()).split(b'\n') {
            let at = END - WITHIN + WITHIN * n as i64 / lines as i64;
            let mut event = Event::local("", line.unwrap(), Timestamp::from_secs(at));
            event.location = Arc::clone(&location);
            event.agent = Arc::clone(host);
            let verdict = analyzer.analyze(&event);
            analyzer.recycle(verdict);
            n += 1;
            if n % 250_000 == 0 {
                report(&analyzer, n);
            }
            if analyzer.memory().0 >= WANTED {
                break 'hosts;
            }
        }
    }
    report(&analyzer, n);
    println!("{:.0} lines per CPU second, reading the log included", n as f64 / (processor() - start));
}

/// The same ruleset against few and many attackers. The generator gives many attackers other kinds of lines than few, so
/// there is a third log: the lines of the many with their addresses folded into those of few.
fn spread(shared: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let ruleset = Sources::existing(shared).load();
    let made = |attackers| common::sshd(shared, folder.path(), LINES, attackers).expect("python3 runs");
    let log = |attackers| std::fs::read(made(attackers)).unwrap();
    let (few, many) = (log(1_000), log(100_000));
    let folded = folded(&many);
    let logs = [("1,000 attackers", few), ("100,000 attackers", many), ("the same folded", folded)];
    for (name, text) in &logs {
        let engines = [Engine::Reference, Engine::Indexed].map(|engine| alerts_of(engine, &ruleset, text));
        assert_eq!(engines[0], engines[1], "both engines give the alerts of {name}");
    }
    let mut best = [[f64::MAX; 3]; 3];
    let mut facts = [(0, 0); 3];
    for _ in 0..ROUNDS {
        for (at, (_, text)) in logs.iter().enumerate() {
            let (times, fact) = timed(&ruleset, text);
            best[at].iter_mut().zip(times).for_each(|(best, time)| *best = best.min(time));
            facts[at] = fact;
        }
    }
    for (at, (name, text)) in logs.iter().enumerate() {
        let (alerts, bytes) = facts[at];
        let rate = |stage: usize| LINES as f64 / best[at][stage];
        println!(
            "{name:>17}: {:>8.0} lines per CPU second, {:>8.0} without rendering, {:>8.0} prepared only; {} bytes a line, {:.1} % alert, {:.0} bytes of alerts a line",
            rate(0),
            rate(1),
            rate(2),
            text.len() / LINES,
            100.0 * alerts as f64 / LINES as f64,
            bytes as f64 / LINES as f64,
        );
    }
    for (name, other) in [("few", 0), ("folded", 2)] {
        let ratio = |stage: usize| 100.0 * best[other][stage] / best[1][stage];
        println!(
            "many to {name}: {:.1} %, without rendering {:.1} %, prepared only {:.1} %",
            ratio(0),
            ratio(1),
            ratio(2)
        );
    }
}

/// Processor time of everything, of everything but the alerts, and of preparing; alerts and their bytes.
fn timed(ruleset: &Arc<Ruleset>, text: &[u8]) -> ([f64; 3], (usize, usize)) {
    let events = || {
        common::lines(text).enumerate().map(|(n, line)| {
            let at = END - SPAN + SPAN * n as i64 / LINES as i64;
            Event::local("/var/log/auth.log", line, Timestamp::from_secs(at))
        })
    };
    let mut fact = (0, 0);
    let mut analyzer = fresh(ruleset);
    let start = processor();
    for event in events() {
        let verdict = analyzer.analyze(&event);
        if let Some(alert) = &verdict.alert {
            fact = (fact.0 + 1, fact.1 + alert.json.len(""));
        }
        analyzer.recycle(black_box(verdict));
    }
    let whole = processor() - start;
    let mut analyzer = fresh(ruleset);
    let mut preparer = analyzer.preparer();
    let start = processor();
    for event in events() {
        let mut prepared = preparer.prepare(&event);
        analyzer.judge(&mut prepared);
        black_box(prepared);
    }
    let judged = processor() - start;
    let start = processor();
    for event in events() {
        black_box(preparer.prepare(&event));
    }
    ([whole, judged, processor() - start], fact)
}

/// The same lines with other addresses: 1,000 of the attackers', at most.
fn folded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let version4 = rest.starts_with(b"198.18.") || rest.starts_with(b"198.19.");
        if !version4 && !rest.starts_with(b"2001:db8:") {
            out.push(byte);
            rest = behind;
            continue;
        }
        let inside = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
        let end = rest.iter().position(|byte| !inside(byte)).unwrap_or(rest.len());
        let mut hasher = DefaultHasher::new();
        rest[..end].hash(&mut hasher);
        let number = hasher.finish() % 500;
        let address = match version4 {
            true => format!("198.18.{}.{}", 100 + number / 250, number % 250),
            false => format!("2001:db8:0:{:x}::{:x}", 256 + number, 4096 + number),
        };
        out.extend_from_slice(address.as_bytes());
        rest = &rest[end..];
    }
    out
}

/// A hash over all alerts of the first lines, by one engine.
fn alerts_of(engine: Engine, ruleset: &Arc<Ruleset>, text: &[u8]) -> (usize, u64) {
    let settings = Settings { with_plain: true, ..Settings::default() };
    let mut analyzer = Analyzer::with_engine(engine, Arc::clone(ruleset), settings);
    let mut hasher = DefaultHasher::new();
    let mut count = 0;
    for (n, line) in common::lines(text).take(COMPARED).enumerate() {
        let at = END - SPAN + SPAN * n as i64 / LINES as i64;
        let event = Event::local("/var/log/auth.log", line, Timestamp::from_secs(at));
        if let Some(alert) = analyzer.analyze(&event).alert {
            for part in [alert.json.head(), alert.json.tail(), alert.plain.head(), alert.plain.tail()] {
                part.hash(&mut hasher);
            }
            count += 1;
        }
    }
    (count, hasher.finish())
}

fn fresh(ruleset: &Arc<Ruleset>) -> Analyzer {
    Analyzer::new(Arc::clone(ruleset), Settings { with_plain: false, ..Settings::default() })
}

fn mega(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
