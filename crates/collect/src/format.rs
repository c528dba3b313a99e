//! From lines to messages: one reader per `log_format` behind [`Format`]. Nothing here reads a file or a clock.
//! Invariant: a line is either passed on, dropped by the format's own rule, or still [pending](Format::pending).

mod joined;
mod json;
mod records;

use std::time::Duration;

use thiserror::Error;

pub(crate) use joined::{Audit, Count, Delimited, MatchAt, Newlines};
pub(crate) use json::Json;
pub(crate) use records::{Djb, Mysql, SnortFull, Stamped};

/// Longest message that a format collects from several lines.
pub(crate) const MAX_MESSAGE: usize = crate::lines::MAX_LINE;

/// Turns lines into messages.
pub(crate) trait Format: Send {
    /// Takes one line; pushes the messages that it completes.
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>);

    /// Whether lines are held back for a message that is not complete.
    fn pending(&self) -> bool {
        false
    }

    /// Completes what is held back.
    fn flush(&mut self, _out: &mut Vec<Vec<u8>>) {}

    /// Silence after which the caller flushes.
    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// Each line is one message.
#[derive(Debug)]
pub(crate) struct Plain;

impl Format for Plain {
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>) {
        out.push(line.to_vec());
    }
}

/// Why a `log_format` has no reader.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum FormatError {
    /// Known to the contract, not read by this build.
    #[error("log format `{0}` is not supported on this system")]
    Unsupported(String),
    /// A number that is missing or out of range.
    #[error("log format `{0}` needs a number of lines between 1 and 1000")]
    LineCount(String),
    /// `djb-multilog` derives the program's name from the path.
    #[error("log format `djb-multilog` needs a path that ends in `<name>/current`, not `{0}`")]
    DjbPath(String),
    /// `multi-line-regex` without its expression.
    #[error("log format `multi-line-regex` needs `multiline_regex`")]
    NoExpression,
}

/// Appends up to the message limit; what does not fit is cut, as in the contract.
fn append(message: &mut Vec<u8>, bytes: &[u8]) {
    let room = MAX_MESSAGE.saturating_sub(message.len());
    message.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
}

/// The position of `needle`.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

#[cfg(test)]
mod tests;
