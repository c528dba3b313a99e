//! `-U rule:level:decoder`: does a line become what it should? (analysis-output 6.3)

use std::process::ExitCode;
use std::str::FromStr;

use tld_rules::Verdict;

/// Rule, level and decoder as texts; empty where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expectation([String; 3]);

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<String> = text.split(':').map(str::to_owned).collect();
        let Ok(parts) = parts.try_into() else {
            return Err("three parts with `:` between them are needed".to_owned());
        };
        Ok(Self(parts))
    }
}

impl Expectation {
    fn of(verdict: &Verdict<'_>) -> Self {
        let rule = verdict.rule.as_ref();
        let part = |text: Option<String>| text.unwrap_or_default();
        Self([
            part(rule.map(|rule| rule.id.to_string())),
            part(rule.map(|rule| rule.level.to_string())),
            part(verdict.decoder().map(str::to_owned)),
        ])
    }
}

/// The comparison so far; without an expectation there is nothing to fail.
#[derive(Debug)]
pub(super) struct Status<'e> {
    wanted: Option<&'e Expectation>,
    fits: bool,
}

impl<'e> Status<'e> {
    pub(super) fn new(wanted: Option<&'e Expectation>) -> Self {
        Self { wanted, fits: false }
    }

    /// Compares; what is to be said about it.
    pub(super) fn compare(&mut self, verdict: &Verdict<'_>) -> Option<String> {
        let wanted = self.wanted?;
        let result = Expectation::of(verdict);
        self.fits = result == *wanted;
        Some(if self.fits {
            "Unit test OK".to_owned()
        } else {
            format!("Unit test FAIL. Expected {} , Result {}", listed(&wanted.0), listed(&result.0))
        })
    }

    /// The number of empty parts when the last result was the expected one, else 1.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.wanted {
            None => 0,
            Some(wanted) if self.fits => wanted.0.iter().map(|part| u8::from(part.is_empty())).sum(),
            Some(_) => 1,
        })
    }
}

fn listed(parts: &[String; 3]) -> String {
    let [rule, level, decoder] = parts;
    format!("['{rule}', '{level}', '{}']", super::printable(decoder))
}
