//! The collector on real files, commands and a real journal.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a failure here is a failed test"
)]

mod common;
mod files;
mod journal;
mod storm;
