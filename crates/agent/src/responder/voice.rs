//! What the service says in `logs/ossec.log`, under the name that the contract gives the execution daemon.
//! Invariant: what a peer sent stands in one line, with control characters made visible.

use tld_model::{Outcome, OutcomeKind};
use tld_respond::ossec_log::{Level, Log};

/// The log with its verbosity. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    log: Log,
    debug: u8,
}

impl Voice {
    pub(crate) fn new(log: Log, debug: u8) -> Self {
        Self { log, debug }
    }

    pub(crate) fn say(&self, level: Level, text: &str) {
        if level != Level::Debug || self.debug > 0 {
            self.log.line(level, text);
        }
    }

    /// What only the second level of verbosity shows.
    pub(crate) fn detail(&self, text: impl FnOnce() -> String) {
        if self.debug > 1 {
            self.log.line(Level::Debug, &text());
        }
    }

    pub(crate) fn debug(&self, text: impl FnOnce() -> String) {
        if self.debug > 0 {
            self.log.line(Level::Debug, &text());
        }
    }

    pub(crate) fn info(&self, text: &str) {
        self.say(Level::Info, text);
    }

    pub(crate) fn warning(&self, text: &str) {
        self.say(Level::Warning, text);
    }

    pub(crate) fn error(&self, text: &str) {
        self.say(Level::Error, text);
    }

    /// What became of a request.
    pub(crate) fn outcome(&self, outcome: &Outcome) {
        let level = match outcome.kind {
            OutcomeKind::RevertFailed | OutcomeKind::Failed => Level::Error,
            OutcomeKind::TimedOut
            | OutcomeKind::NotFound
            | OutcomeKind::Refused
            | OutcomeKind::Unsupported => Level::Warning,
            _ => Level::Info,
        };
        let proof = outcome.evidence.read_back.as_deref().unwrap_or(&outcome.detail);
        let (kind, response, target) = (outcome.kind, &outcome.response, &outcome.target);
        self.say(level, &format!("{kind} {response} on {target} (order {}): {proof}", outcome.order));
        let program = &outcome.program;
        match kind {
            OutcomeKind::Applied if outcome.until.is_some() => {
                self.debug(|| {
                    format!("Adding command '{program}' to the timeout list ({response} on {target})")
                });
            }
            OutcomeKind::Applied => {
                self.debug(|| {
                    format!("command '{program}' was not added to the timeout list: nothing to undo")
                });
            }
            OutcomeKind::AlreadyActive => self.debug(|| {
                format!("command `{response}` on {target} was received before; its time was updated")
            }),
            OutcomeKind::Reverted => {
                self.debug(|| format!("executed `{response}` on {target} with `delete` after a timeout"));
            }
            _ => {}
        }
    }
}
