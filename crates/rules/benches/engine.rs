//! Lines per second of processor time through decoders and rules: an existing ruleset of about 4,500 rules and the shipped one,
//! on generated logs with 1,000 and with 98,000 attackers and on the conformance cases. Needs the shared data and python3.
//! Processor time instead of wall time, so that a busy machine does not count; each figure is the median of three runs.
//! Events are analysed in batches, each step for all of a batch, as the service does it where more than one event waits.
//! Before each log stands how long this machine waits for memory in that minute.
//! `cargo bench -p tld-rules --bench engine`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench starts programs and prints"
)]

mod common;

use std::hint::black_box;
use std::sync::Arc;

use common::{END, SPAN, Sources, lines, processor, resident};
use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Prepared, Preparer, Ruleset, Settings};

const RUNS: usize = 3;
/// Lines of each generated log.
const LINES: usize = 200_000;
/// Most events of a batch (`server/src/lanes.rs`).
const BATCH: usize = 128;
/// How often the cases are repeated: about as many lines as the other logs have.
const ROUNDS: usize = 145;

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let Some(shared) = common::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let read = |log: Option<std::path::PathBuf>| std::fs::read(log.expect("python3 runs")).unwrap();
    let sshd = |attackers| read(common::sshd(&shared, folder.path(), LINES, attackers));
    let logs = [
        ("sshd", sshd(1_000)),
        ("sshd 100k", sshd(98_000)),
        ("web", read(common::generated(&shared, folder.path(), "gen_weblog.py", LINES, &[]))),
        ("cases", common::cases(&shared).repeat(ROUNDS)),
    ];
    drop(folder);
    let events = Events::new();
    let rulesets = [("existing", Sources::existing(&shared)), ("shipped", Sources::shipped())];
    let rulesets = rulesets.map(|(name, sources)| (name, load(name, &sources)));
    for (log, text) in &logs {
        let lines: Vec<&[u8]> = lines(text).collect();
        println!("{log:<9} {}", waits());
        // What is left without any analysis: cutting a file into events.
        let reading = median(|| {
            lines
                .iter()
                .enumerate()
                .for_each(|(n, line)| drop(black_box(events.event(n, line, lines.len()))));
        });
        println!("{log:<9} reading   {:>10.0} lines/CPU-s", rate(&lines, reading));
        for (name, ruleset) in &rulesets {
            measure(log, name, ruleset, &lines, reading);
        }
        if *log == "cases" {
            rulesets
                .iter()
                .for_each(|(name, ruleset)| first_round(name, ruleset, &lines[..lines.len() / ROUNDS]));
        }
    }
}

fn measure(log: &str, name: &str, ruleset: &Arc<Ruleset>, lines: &[&[u8]], reading: f64) {
    let mut alerts = 0;
    let mut memory = (0, 0, 0);
    let spent = median(|| {
        let settings = Settings { with_plain: false, ..Settings::default() };
        let mut analyzer = Analyzer::new(Arc::clone(ruleset), settings);
        let mut preparer = analyzer.preparer();
        alerts = analyze(&mut analyzer, &mut preparer, lines);
        memory = analyzer.memory();
    });
    println!(
        "{log:<9} {name:<9} {:>10.0} lines/CPU-s, {:>6.2} CPU-s/million, {:>7.0} x reading, {alerts} alerts, {} events remembered in {} KiB, RSS {} MiB",
        rate(lines, spent),
        spent * 1e6 / lines.len() as f64,
        spent / reading,
        memory.0,
        memory.1 >> 10,
        resident() >> 20
    );
}

/// All lines, batch by batch; how many alert.
fn analyze(analyzer: &mut Analyzer, preparer: &mut Preparer, lines: &[&[u8]]) -> usize {
    let made = Events::new();
    let mut numbered = lines.iter().enumerate();
    let mut events = Vec::with_capacity(BATCH);
    let mut alerts = 0;
    loop {
        events.clear();
        events.extend(numbered.by_ref().take(BATCH).map(|(n, line)| made.event(n, line, lines.len())));
        if events.is_empty() {
            return alerts;
        }
        alerts += batch(analyzer, preparer, &events);
    }
}

fn batch(analyzer: &mut Analyzer, preparer: &mut Preparer, events: &[Event]) -> usize {
    let mut prepared: Vec<_> = events.iter().map(|event| preparer.prepare(event)).collect();
    prepared.iter_mut().for_each(|event| analyzer.judge(event));
    prepared.iter_mut().for_each(|event| preparer.finish(event));
    let verdicts = prepared.into_iter().map(Prepared::into_verdict);
    verdicts.fold(0, |alerts, verdict| {
        let alerts = alerts + usize::from(verdict.alert.is_some());
        preparer.recycle(black_box(verdict));
        alerts
    })
}

/// How long one waits for a line of memory of which so many megabytes are in use: neighbours on the machine share its last
/// cache, so this changes within minutes, and with it whatever touches more than the caches that a core has for itself.
fn waits() -> String {
    let times: Vec<String> =
        [2, 4, 6, 8].map(|megabytes| format!("{megabytes} MB {:.0} ns", wait(megabytes))).into();
    format!("memory    {}", times.join(", "))
}

/// Nanoseconds from one 64-byte line to the next in an order that cannot be foreseen, each naming its successor.
fn wait(megabytes: u32) -> f64 {
    const WORDS: usize = 16;
    let count = megabytes << 14;
    let mut order: Vec<u32> = (0..count).collect();
    let mut state = 1_u32;
    for last in (1..order.len()).rev() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        order.swap(last, ((u64::from(state) * last as u64) >> 32) as usize);
    }
    let mut memory = vec![0_u32; count as usize * WORDS];
    for (from, to) in order.iter().zip(order.iter().cycle().skip(1)) {
        memory[*from as usize * WORDS] = *to;
    }
    let mut at = 0;
    let mut round = || {
        let start = processor();
        (0..count).for_each(|_| at = memory[at as usize * WORDS]);
        black_box(at);
        (processor() - start) * 1e9 / f64::from(count)
    };
    (0..5).map(|_| round()).fold(f64::MAX, f64::min)
}

/// What it costs that a worker has met no line of its kind before.
fn first_round(name: &str, ruleset: &Arc<Ruleset>, lines: &[&[u8]]) {
    let mut rounds = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        let mut analyzer =
            Analyzer::new(Arc::clone(ruleset), Settings { with_plain: false, ..Settings::default() });
        let mut preparer = analyzer.preparer();
        for times in &mut rounds {
            let start = processor();
            analyze(&mut analyzer, &mut preparer, lines);
            times.push(processor() - start);
        }
    }
    rounds.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    println!(
        "cases     {name:<9} {:>10.1} ms for the first round of {} lines, {:.1} ms for the second",
        rounds[0][RUNS / 2] * 1e3,
        lines.len(),
        rounds[1][RUNS / 2] * 1e3
    );
}

/// Lines spread evenly over the ten minutes that the logs cover, as the collectors make them events: those of one file
/// share its name and their agent.
struct Events(Event);

impl Events {
    fn new() -> Self {
        Self(Event::local("/var/log/auth.log", "", Timestamp::EPOCH))
    }

    fn event(&self, n: usize, line: &[u8], all: usize) -> Event {
        let passed = SPAN * n as i64 / all as i64;
        Event {
            queue: self.0.queue,
            location: Arc::clone(&self.0.location),
            agent: Arc::clone(&self.0.agent),
            text: line.to_vec(),
            received: Timestamp::from_secs(END - SPAN + passed),
        }
    }
}

fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = processor();
            run();
            processor() - start
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn rate(lines: &[&[u8]], seconds: f64) -> f64 {
    lines.len() as f64 / seconds
}

/// The ruleset as a process has it that loads it first of all; then it is loaded again for the time that this takes.
fn load(name: &str, sources: &Sources) -> Arc<Ruleset> {
    let before = resident();
    let start = processor();
    let ruleset = sources.load();
    let mut times = vec![processor() - start];
    let grown = resident().saturating_sub(before);
    times.extend((1..RUNS).map(|_| {
        let start = processor();
        drop(sources.load());
        processor() - start
    }));
    times.sort_by(f64::total_cmp);
    println!(
        "load   {name:<9} {:>7.1} ms of processor time, {} rules, {} decoders, RSS +{} MiB",
        times[RUNS / 2] * 1e3,
        ruleset.counts().rules,
        ruleset.decoders().len(),
        grown >> 20
    );
    ruleset
}
