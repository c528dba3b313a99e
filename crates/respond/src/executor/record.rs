//! What the journal is told: steps gather within a round, later ones on a row are taken in by earlier ones, and all become
//! durable together. Invariant: a step stays pending until the journal has it.

use std::time::Duration;

use tld_model::Outcome;

use super::{After, Executor};
use crate::journal::Step;

impl Executor {
    /// Makes the pending steps durable. If that fails they stay pending and are tried again, at most once a second.
    pub(super) fn commit(&mut self) -> bool {
        let boot = self.clock.boot();
        if self.steps.is_empty() {
            return true;
        }
        if self.unwritable.as_ref().is_some_and(|(_, again)| boot < *again) {
            return false;
        }
        match self.journal.write(&self.steps, self.now()) {
            Ok(()) => {
                if self.unwritable.take().is_some() {
                    self.say(&format!(
                        "the journal is written again, {} steps were made up for",
                        self.steps.len()
                    ));
                }
                self.steps.clear();
                self.dirty.clear();
                self.unwritten.clear();
                true
            }
            Err(error) => {
                let why = error.in_full();
                if self.unwritable.is_none() {
                    self.say(&format!(
                        "ALARM: the journal cannot be written: {why}; blocks that the kernel ends by itself are applied \
                         without it, every other response is refused until it can"
                    ));
                }
                self.unwritable = Some((why, boot + WRITE_AGAIN));
                false
            }
        }
    }

    /// A step on a row that waits to be written takes the later one in.
    pub(super) fn pending(&mut self, id: i64) -> Option<&mut Step> {
        let at = *self.dirty.get(&id)?;
        self.steps.get_mut(at)
    }

    pub(super) fn push(&mut self, id: i64, step: Step) {
        self.dirty.insert(id, self.steps.len());
        self.steps.push(step);
    }

    /// Writes where an effect stands.
    pub(super) fn note(&mut self, id: i64) {
        let Some(effect) = self.effects.get(&id) else { return };
        let (state, key, until, prior) =
            (effect.state, effect.full_key(), effect.until, effect.prior.as_deref().map(str::to_owned));
        let (length, attempts, failed) = (effect.length, effect.attempts, effect.failed);
        let told = match self.pending(id) {
            Some(Step::Insert(entry)) => {
                (entry.state, entry.key, entry.until, entry.prior) = (state, key, until, prior);
                (entry.length, entry.attempts, entry.failed) = (length, attempts, failed);
                return;
            }
            Some(Step::Advance { outcome, .. }) => outcome.take(),
            _ => None,
        };
        let step = Step::Advance { id, state, key, until, length, attempts, failed, prior, outcome: told };
        match self.pending(id) {
            Some(pending @ Step::Advance { .. }) => *pending = step,
            _ => self.push(id, step),
        }
    }

    /// Reports an outcome once it is durable.
    pub(super) fn tell(&mut self, id: i64, outcome: Outcome) {
        self.keep_untold(&outcome);
        let told = Box::new(outcome.clone());
        match self.pending(id) {
            Some(Step::Insert(entry)) => entry.outcome = Some(*told),
            Some(Step::Advance { outcome, .. }) => *outcome = Some(told),
            Some(Step::Report { outcome, .. }) => *outcome = told,
            _ => self.push(id, Step::Report { id, outcome: told }),
        }
        self.after.push(After::Tell(Box::new(outcome)));
    }
}

const WRITE_AGAIN: Duration = Duration::from_secs(1);
