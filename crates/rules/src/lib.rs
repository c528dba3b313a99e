//! From a log line to a verdict: pre-decoding, decoders, rules, correlation, alert.

mod ahead;
mod alert;
mod analyzer;
pub mod decoder;
mod engine;
mod fields;
mod hash;
mod lexicon;
mod list;
mod literals;
pub mod predecode;
mod rule;
mod ruleset;
mod special;
mod texts;

pub use alert::{FormError, PlainForm};
pub use analyzer::{Analyzer, Effect, Mode, OwnRule, Prepared, Preparer, Settings, Trace, Verdict, Winner};
pub use engine::{Engine, Failure, RuleStep, Searched, Suppressed};
pub use fields::{Category, Decoded, StaticField, Value};
pub use rule::RuleInfo;
pub use ruleset::{Counts, Differences, Loaded, Options, Ruleset};
pub use texts::Texts;
