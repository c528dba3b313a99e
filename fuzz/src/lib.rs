//! What each fuzz target does with its bytes. libFuzzer (`libfuzzer/`, a workspace of its own) and the replay in
//! `tests/` call the same functions, so that the gate runs on the stable compiler what a long search runs elsewhere.
//!
//! Invariant: a target is a function of its bytes alone; it panics when a promise of the rooms is broken, and only then.

mod events;
pub mod mutate;
mod patterns;
mod texts;
mod wire;

pub use events::{event, json, lists, ruleset};
pub use patterns::{address, osmatch, osregex, pcre2};
pub use texts::{config, logtime, message, options, xml};
pub use wire::{bundle, control, enrol, frames, sealed, syslog};

/// Longest input worth trying: about four times the longest line that a host sends in practice.
pub const MAX_INPUT: usize = 16 << 10;

/// A target by name.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also the name of its folder in `seeds/` and of its binary in `libfuzzer/`.
    pub name: &'static str,
    /// Its body.
    pub run: fn(&[u8]),
    /// Mutated inputs in the gate: about two seconds' worth in a development build.
    pub inputs: u32,
    /// Words that mean something to the reader, for the generator.
    pub words: &'static [&'static str],
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "address", run: address, inputs: 40_000, words: patterns::ADDRESS_WORDS },
    Target { name: "config", run: config, inputs: 2_000, words: texts::CONFIG_WORDS },
    Target { name: "event", run: event, inputs: 3_000, words: events::LOG_WORDS },
    Target { name: "json", run: json, inputs: 3_000, words: events::JSON_WORDS },
    Target { name: "lists", run: lists, inputs: 2_000, words: events::LIST_WORDS },
    Target { name: "logtime", run: logtime, inputs: 40_000, words: texts::TIME_WORDS },
    Target { name: "message", run: message, inputs: 20_000, words: events::JSON_WORDS },
    Target { name: "options", run: options, inputs: 4_000, words: texts::OPTION_WORDS },
    Target { name: "osmatch", run: osmatch, inputs: 20_000, words: patterns::OS_WORDS },
    Target { name: "osregex", run: osregex, inputs: 10_000, words: patterns::OS_WORDS },
    Target { name: "pcre2", run: pcre2, inputs: 1_500, words: patterns::PCRE_WORDS },
    Target { name: "ruleset", run: ruleset, inputs: 1_500, words: events::RULESET_WORDS },
    Target { name: "xml", run: xml, inputs: 20_000, words: texts::XML_WORDS },
    Target { name: "bundle", run: bundle, inputs: 20_000, words: wire::WORDS },
    Target { name: "control", run: control, inputs: 20_000, words: wire::WORDS },
    Target { name: "enrol", run: enrol, inputs: 20_000, words: wire::WORDS },
    Target { name: "frames", run: frames, inputs: 20_000, words: wire::WORDS },
    Target { name: "sealed", run: sealed, inputs: 5_000, words: wire::WORDS },
    Target { name: "syslog", run: syslog, inputs: 20_000, words: wire::WORDS },
];
