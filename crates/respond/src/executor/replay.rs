//! After a start: what the journal says may be in place is looked at and made right, before the first new order.

use std::time::Duration;

use tld_model::{Evidence, Order, OutcomeKind};

use super::{Effect, Executor, Head};
use crate::actions::{Local, Ours};
use crate::journal::{Entry, JournalError, Kind, State, Until};
use crate::script::Verb;

impl Executor {
    /// Replays the journal.
    pub(crate) fn replay(&mut self) -> Result<(), JournalError> {
        self.recogniser.warm(&self.settings.home);
        let mut anew = Vec::new();
        let mut reapply = Vec::new();
        let mut overdue = Vec::new();
        for entry in self.journal.live()? {
            match entry {
                Ok(entry) => match (entry.state, entry.kind) {
                    (State::Accepted, _) => anew.push((entry.order, Some(entry.id))),
                    (_, Kind::Action) => self.replay_action(entry, &mut reapply, &mut overdue),
                    (_, Kind::Script) => self.replay_script(&entry, &mut overdue),
                },
                Err(error) => (self.settings.log)(&format!("ALARM: {error}; this effect is left as it is")),
            }
        }
        self.finish_step();
        self.reassert(reapply);
        self.revert(&overdue);
        self.take_in(anew);
        self.pump();
        self.finish_step();
        Ok(())
    }

    fn replay_action(&mut self, entry: Entry, reapply: &mut Vec<(i64, Order)>, overdue: &mut Vec<i64>) {
        let base = entry.program.rsplit('/').next().unwrap_or(&entry.program);
        let alert = crate::script::alert(&entry.order.alert);
        let found = crate::actions::of_name(base);
        if let (Some(Ours::Local(action)), None) = (found, &self.settings.dry_run) {
            return self.replay_local(&entry, action, overdue);
        }
        let action = match found {
            Some(Ours::Firewall(action)) if self.kernel.is_some() => {
                action.subject(&alert).ok().map(|subject| (action, subject))
            }
            _ => None,
        };
        if self.settings.dry_run.is_some() || action.is_none() {
            let order = &entry.order.id;
            (self.settings.log)(&format!(
                "ALARM: order {order}: {} cannot be looked after in this mode",
                entry.program
            ));
            return;
        }
        let (until, late) = self.rebase(&entry);
        let (id, state) = (entry.id, entry.state);
        let mut effect = restored(&entry, until);
        effect.action = action;
        self.keep(effect);
        if state == State::Reverting || late {
            if let Some(effect) = self.effects.get_mut(&id) {
                effect.state = State::Reverting;
            }
            overdue.push(id);
        } else {
            if state == State::Active
                && let Some(until) = until
            {
                self.scheduler.plan(id, until.boot);
            }
            reapply.push((id, entry.order));
        }
        self.note(id);
    }

    /// Puts back what is missing with its remaining time; what is there with the right end is not touched.
    fn reassert(&mut self, live: Vec<(i64, Order)>) {
        let mut begun = Vec::new();
        let mut missing = Vec::new();
        for (id, order) in live {
            if self.is(id, State::Applying) {
                begun.push((id, order));
            } else {
                missing.push(id);
            }
        }
        self.apply(begun, Vec::new());
        if !missing.is_empty() && !self.paused {
            self.compare("the journal was replayed");
        }
    }

    /// An action of ours can be asked and repeated: what is wanted is done again if it is not there.
    fn replay_local(&mut self, entry: &Entry, action: &'static dyn Local, overdue: &mut Vec<i64>) {
        let Ok(subject) = action.subject(&self.call(&entry.order, &entry.program)) else {
            let id = &entry.order.id;
            return self.say(&format!("ALARM: order {id}: the subject of {} is unknown now", entry.program));
        };
        let (until, late) = self.rebase(entry);
        let (id, state) = (entry.id, entry.state);
        let mut effect = restored(entry, until);
        effect.local = Some((action, subject));
        if !action.lasts() {
            self.keep(effect);
            let detail = "cut by a crash; not repeated, since it may have been done".into();
            return self.close(id, OutcomeKind::Interrupted, detail, Evidence::default());
        }
        let again = state == State::Applying && !late;
        if late || state == State::Reverting {
            effect.state = State::Reverting;
            overdue.push(id);
        } else if again {
            effect.quiet = effect.told;
            self.waiting_locals.push_back((id, Verb::Add));
        } else if let Some(until) = until {
            self.scheduler.plan(id, until.boot);
        }
        self.keep(effect);
        self.note(id);
    }

    fn replay_script(&mut self, entry: &Entry, overdue: &mut Vec<i64>) {
        let same_boot = entry.boot_id.as_deref() == Some(self.settings.boot_id.as_str());
        let (until, late) = self.rebase(entry);
        let (id, state) = (entry.id, entry.state);
        let mut effect = restored(entry, until);
        if state == State::Applying && effect.head.timeout == 0 {
            effect.key = None;
            self.keep(effect);
            let detail = "cut by a crash; not repeated, since nothing tells how far it came".into();
            return self.close(id, OutcomeKind::Interrupted, detail, Evidence::default());
        }
        if until.is_none() {
            // It had not told its keys yet: its end counts from the order.
            let length = effect.head.timeout;
            let passed = self.now().since(entry.order.created).as_secs();
            effect.length = length;
            effect.until = self.until(length.saturating_sub(passed).max(1));
        }
        // A file cannot be asked what it did. Where that is unknown, undo, then do again what is still wanted.
        let known = state == State::Active && same_boot;
        effect.again = !known && !late && state != State::Reverting;
        let again = effect.again;
        effect.state = if known && !late { State::Active } else { State::Reverting };
        let due = effect.until;
        self.keep(effect);
        self.note(id);
        match (known && !late, due) {
            (true, Some(until)) => self.scheduler.plan(id, until.boot),
            _ => overdue.push(id),
        }
        if again {
            (self.settings.log)(&format!("order {}: state unknown, undone and done again", entry.order.id));
        }
    }

    /// The end on the present boot's clock, and whether it has passed.
    fn rebase(&self, entry: &Entry) -> (Option<Until>, bool) {
        let Some(until) = entry.until else { return (None, false) };
        let boot = self.clock.boot();
        if entry.boot_id.as_deref() == Some(self.settings.boot_id.as_str()) {
            return (Some(until), until.boot <= boot);
        }
        // A wall clock that was set back over the reboot must not prolong a block beyond its whole length.
        let left = until.wall.since(self.now()).min(Duration::from_secs(entry.length.max(1)));
        (Some(Until { boot: boot + left, wall: self.now().plus(left) }), left.is_zero())
    }
}

fn restored(entry: &Entry, until: Option<Until>) -> Effect {
    Effect {
        id: entry.id,
        head: Head::from(&entry.order),
        program: entry.program.clone(),
        action: None,
        local: None,
        prior: entry.prior.clone(),
        quiet: false,
        key: entry.key.clone(),
        state: entry.state,
        until,
        length: entry.length,
        attempts: entry.attempts,
        failed: entry.failed,
        aborted: None,
        lifted: false,
        again: false,
        told: entry.outcome.is_some(),
    }
}
