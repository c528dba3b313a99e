//! What became of an order. Exactly one final state per order and target, with evidence.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{OrderId, RuleId, Target, Timestamp};

/// The states of the architecture's "Outcome" contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    /// Done and read back.
    Applied,
    /// The same key is active: its end was moved out, nothing else was done.
    AlreadyActive,
    /// A guard said no; the detail names it.
    Refused,
    /// This endpoint cannot do it at all.
    Unsupported,
    /// No executable of that name.
    NotFound,
    /// Tried and failed; the detail has exit status and stderr.
    Failed,
    /// The script did not end by its deadline and was stopped.
    TimedOut,
    /// The endpoint was away for too long.
    Expired,
    /// A stateless script cut by a crash.
    Interrupted,
    /// Withdrawn before it was applied.
    Cancelled,
    /// Nothing was done, on purpose or for lack of privilege.
    DryRun,
    /// A 4.x agent gave no evidence in time.
    Unconfirmed,
    /// Undone and read back.
    Reverted,
    /// The undo failed; it is retried and alarmed.
    RevertFailed,
}

impl OutcomeKind {
    /// The name used in JSON, tables and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::AlreadyActive => "already-active",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::NotFound => "not-found",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Expired => "expired",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
            Self::DryRun => "dry-run",
            Self::Unconfirmed => "unconfirmed",
            Self::Reverted => "reverted",
            Self::RevertFailed => "revert-failed",
        }
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A stage on the way from the line to the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The line was read.
    Event,
    /// Decoded and judged, alert made.
    Alert,
    /// Order handed to the carrier.
    Dispatched,
    /// Order read by the responder.
    Received,
    /// Effect in place.
    Applied,
    /// Effect read back.
    Verified,
}

/// Wall-clock nanoseconds of each stage; 0 = not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// See [`Stage::Event`].
    pub event: i64,
    /// See [`Stage::Alert`].
    pub alert: i64,
    /// See [`Stage::Dispatched`].
    pub dispatched: i64,
    /// See [`Stage::Received`].
    pub received: i64,
    /// See [`Stage::Applied`].
    pub applied: i64,
    /// See [`Stage::Verified`].
    pub verified: i64,
}

impl Timings {
    /// Notes that a stage was reached.
    pub fn mark(&mut self, stage: Stage, at: Timestamp) {
        let slot = match stage {
            Stage::Event => &mut self.event,
            Stage::Alert => &mut self.alert,
            Stage::Dispatched => &mut self.dispatched,
            Stage::Received => &mut self.received,
            Stage::Applied => &mut self.applied,
            Stage::Verified => &mut self.verified,
        };
        *slot = at.nanos();
    }
}

/// Proof of an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// What was read back and from where (`inet threatlockdown blocked4 has 203.0.113.7, 600 s left`).
    pub read_back: Option<String>,
    /// Exit status of an executed file.
    pub exit_status: Option<i32>,
    /// End of its standard error.
    pub stderr: Option<String>,
}

/// One state of one order, reported by the responder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The order.
    pub order: OrderId,
    /// The state.
    pub kind: OutcomeKind,
    /// Response name.
    pub response: String,
    /// Resolved path relative to the home, or the configured name where nothing was resolved.
    pub program: String,
    /// What it acted on.
    pub target: Target,
    /// The alert that caused it.
    pub alert_id: String,
    /// The rule, if a rule caused it.
    pub rule: Option<RuleId>,
    /// Reason or short account, for people.
    pub detail: String,
    /// Proof.
    pub evidence: Evidence,
    /// When this state was reached.
    pub at: Timestamp,
    /// When the revert is due, for `applied` and `already-active`.
    pub until: Option<Timestamp>,
    /// Stages.
    pub timings: Timings,
}
