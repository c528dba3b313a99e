//! What each step of analysis costs: a line of output is the time for 2,000 lines of a log, with the lines per second beside it.
//! Wall time, so a busy machine counts; `engine` measures the whole by processor time.
//! `cargo bench -p tld-rules --bench stages [-- NAME]`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench starts programs and prints"
)]

#[path = "../common/mod.rs"]
mod common;
mod data;

use std::hint::black_box;
use std::sync::Arc;

use data::{Set, sets};
use divan::Bencher;
use divan::counter::ItemsCount;
use tld_model::Event;
use tld_rules::predecode::{HostNames, predecode};
use tld_rules::{Analyzer, Preparer, Settings};

fn main() {
    if sets().is_empty() {
        println!("skipped: no shared data (TLD_SHARED), or no python3");
        return;
    }
    divan::main();
}

fn names() -> Vec<&'static str> {
    sets().iter().map(|set| set.name.as_str()).collect()
}

fn set(name: &str) -> &'static Set {
    sets().iter().find(|set| set.name == name).unwrap()
}

fn analyzer(set: &Set) -> Analyzer {
    Analyzer::new(Arc::clone(&set.ruleset), Settings { with_plain: false, ..Settings::default() })
}

/// A preparer whose caches know the log.
fn preparer(set: &'static Set) -> Preparer {
    let mut preparer = analyzer(set).preparer();
    set.events.iter().for_each(|event| drop(black_box(preparer.prepare(event))));
    preparer
}

/// Making the event of each line: the floor under everything.
#[divan::bench(args = names())]
fn a_reading(bencher: Bencher<'_, '_>, name: &str) {
    let events = &set(name).events;
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        for event in events {
            black_box(Event::local("/var/log/auth.log", event.text.as_slice(), event.received));
        }
    });
}

/// Splitting the header.
#[divan::bench(args = names())]
fn b_predecode(bencher: Bencher<'_, '_>, name: &str) {
    let events = &set(name).events;
    let hosts = HostNames { full: "localhost".into(), short: "localhost".into() };
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        for event in events {
            black_box(predecode(event, &hosts));
        }
    });
}

/// Header, decoders, and every condition that needs no memory; the part that threads share.
#[divan::bench(args = names())]
fn c_prepare(bencher: Bencher<'_, '_>, name: &str) {
    let set = set(name);
    let mut preparer = preparer(set);
    bencher.counter(ItemsCount::new(set.events.len())).bench_local(|| {
        for event in &set.events {
            black_box(preparer.prepare(event));
        }
    });
}

/// Comparing with earlier events: the part that keeps the order.
#[divan::bench(args = names())]
fn d_judge(bencher: Bencher<'_, '_>, name: &str) {
    let set = set(name);
    let mut preparer = preparer(set);
    bencher
        .counter(ItemsCount::new(set.events.len()))
        .with_inputs(|| {
            let prepared: Vec<_> = set.events.iter().map(|event| preparer.prepare(event)).collect();
            (analyzer(set), prepared)
        })
        .bench_local_values(|(mut analyzer, prepared)| {
            let mut prepared = prepared;
            for prepared in &mut prepared {
                analyzer.judge(black_box(prepared));
            }
            (analyzer, prepared)
        });
}

/// Rendering the alerts; threads share this too.
#[divan::bench(args = names())]
fn e_finish(bencher: Bencher<'_, '_>, name: &str) {
    let set = set(name);
    let (mut preparer, mut finisher) = (preparer(set), analyzer(set).preparer());
    bencher
        .counter(ItemsCount::new(set.events.len()))
        .with_inputs(|| {
            let mut analyzer = analyzer(set);
            let mut prepared: Vec<_> = set.events.iter().map(|event| preparer.prepare(event)).collect();
            prepared.iter_mut().for_each(|prepared| analyzer.judge(prepared));
            prepared
        })
        .bench_local_values(|judged| {
            for mut judged in judged {
                finisher.finish(&mut judged);
                black_box(judged);
            }
        });
}

/// All of it.
#[divan::bench(args = names())]
fn f_whole(bencher: Bencher<'_, '_>, name: &str) {
    let set = set(name);
    bencher
        .counter(ItemsCount::new(set.events.len()))
        .with_inputs(|| {
            let mut analyzer = analyzer(set);
            set.events.iter().for_each(|event| drop(black_box(analyzer.analyze(event))));
            analyzer
        })
        .bench_local_values(|mut analyzer| {
            for event in &set.events {
                black_box(analyzer.analyze(event));
            }
            analyzer
        });
}
