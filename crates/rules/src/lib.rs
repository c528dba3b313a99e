//! From a log line to a verdict: pre-decoding, decoders, rules, correlation, alert.

pub mod decoder;
mod fields;
pub mod predecode;

pub use fields::{Category, Decoded, StaticField, Value};
