//! Identifiers as types, so that an agent's number never lands where a rule's is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct ParseId {
    text: String,
    wanted: &'static str,
}

/// An agent's number; printed with at least three digits (`000` is the manager itself).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AgentId(pub u32);

impl AgentId {
    /// The manager itself, and every event that no agent sent.
    pub const MANAGER: Self = Self(0);
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

impl FromStr for AgentId {
    type Err = ParseId;

    /// One to eight decimal digits (wire contract, limits table).
    fn from_str(text: &str) -> Result<Self, ParseId> {
        parse_digits(text, 8).map(Self).ok_or_else(|| ParseId { text: text.into(), wanted: "an agent id" })
    }
}

/// A rule's number, at most six digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleId(pub u32);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for RuleId {
    type Err = ParseId;

    fn from_str(text: &str) -> Result<Self, ParseId> {
        parse_digits(text, 6).map(Self).ok_or_else(|| ParseId { text: text.into(), wanted: "a rule id" })
    }
}

/// One order's name, unique over hosts and restarts. The journal, the ledger and outcomes use it as key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub String);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parse_digits(text: &str, most: usize) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ids_print_with_three_digits_and_grow() {
        assert_eq!(AgentId(7).to_string(), "007");
        assert_eq!(AgentId(1024).to_string(), "1024");
    }

    #[test]
    fn only_bare_digits_are_ids() {
        assert_eq!("5710".parse::<RuleId>(), Ok(RuleId(5710)));
        for bad in ["", "+1", " 1", "1234567", "12a"] {
            assert!(bad.parse::<RuleId>().is_err(), "{bad}");
        }
    }
}
