//! After a start: what the journal says may be in place is looked at and made right, before the first new order.

use std::time::Duration;

use tld_model::{Evidence, Order, OrderId, OrderOptions, OutcomeKind, RawJson, Target, Timestamp, Timings};

use tld_sys::nft::Spot;

use super::{Effect, Executor, Head};
use crate::actions::{Action, Local, Ours, Subject};
use crate::journal::{Entry, JournalError, Kind, State, Until};
use crate::script::Verb;

impl Executor {
    /// Replays the journal.
    ///
    /// A `damage` that was found when it was opened, or is found now, leaves nothing to replay, and neither does a journal
    /// that lost all it knew: what the firewall holds is taken over instead. Of one whose last changes are gone with their
    /// file, what the firewall holds beyond it is.
    pub(crate) fn replay(&mut self, damage: Option<&str>) -> Result<(), JournalError> {
        self.recogniser.warm(&self.settings.home);
        let afresh = damage.is_some() || self.journal.is_blank();
        if afresh {
            self.adopt(damage)?;
        }
        let mut found = Found::default();
        let mut last = Some(0);
        while let Some(after) = last {
            last = match self.journal.live(after, PAGE) {
                Ok(entries) => self.replay_page(entries, &mut found),
                Err(error) if error.is_damage() => {
                    let damage = self.journal.start_afresh(&error)?;
                    self.forget();
                    found = Found::default();
                    self.adopt(Some(&damage))?;
                    None
                }
                Err(error) => return Err(error),
            };
            self.finish_step();
        }
        if self.journal.is_cut() && !afresh {
            let gone = "the journal lost its log with what was written last; responses of files or accounts that are in \
                        no list must be undone by hand";
            self.adopt(Some(gone))?;
        }
        self.apply(found.begun, Vec::new());
        if found.active > 0 && !self.paused {
            self.survey("the journal was replayed");
        }
        self.revert(&found.overdue);
        self.take_in(found.anew);
        self.pump();
        self.finish_step();
        Ok(())
    }

    /// Takes a page of rows up; the number of its last row if there may be more.
    fn replay_page(&mut self, entries: Vec<Result<Entry, JournalError>>, found: &mut Found) -> Option<i64> {
        let mut last = (entries.len() == PAGE).then_some(0);
        for entry in entries {
            match entry {
                Ok(entry) => {
                    last = last.map(|_| entry.id);
                    match (entry.state, entry.kind) {
                        (State::Accepted, _) => {
                            let order = self.whole(&entry).map(|order| (order, Some(entry.id)));
                            found.anew.extend(order);
                        }
                        (_, Kind::Action) => self.replay_action(&entry, found),
                        (_, Kind::Script) => self.replay_script(&entry, &mut found.overdue),
                    }
                }
                Err(error) => {
                    if let JournalError::Unreadable { id, .. } = &error {
                        last = last.map(|_| *id);
                    }
                    self.say(&format!("ALARM: {}; this effect is left as it is", error.in_full()));
                }
            }
        }
        last
    }

    /// The order of a row with its alert.
    fn whole(&self, entry: &Entry) -> Option<Order> {
        let order = self.journal.order(entry.id);
        order.map_err(|error| self.say(&format!("ALARM: {}; it is left as it is", error.in_full()))).ok()
    }

    fn whole_call(&self, entry: &Entry) -> Option<crate::actions::Call> {
        Some(self.call(&self.whole(entry)?, &entry.program))
    }

    /// Whom a row of the firewall is about, by its key; rows of the first builds may need their alert for it.
    fn subject(&self, entry: &Entry, action: &dyn Action) -> Option<Subject> {
        let base = entry.program.rsplit('/').next().unwrap_or_default();
        let shown = entry.key.as_deref().and_then(|key| key.strip_prefix(base)?.strip_prefix('-'));
        let from_alert = || action.subject(&crate::script::alert(&self.whole(entry)?.alert)).ok();
        shown.and_then(Subject::from_shown).or_else(from_alert)
    }

    fn replay_action(&mut self, entry: &Entry, found: &mut Found) {
        let base = entry.program.rsplit('/').next().unwrap_or(&entry.program);
        let ours = crate::actions::of_name(base);
        if let (Some(Ours::Local(action)), None) = (ours, &self.settings.dry_run) {
            return self.replay_local(entry, action, &mut found.overdue);
        }
        let action = match ours {
            Some(Ours::Firewall(action)) if self.kernel.is_some() => {
                self.subject(entry, action).map(|subject| (action, subject))
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
        let (until, late) = self.rebase(entry);
        let (id, state) = (entry.id, entry.state);
        let mut effect = self.restored(entry, until);
        (effect.action, effect.key) = (action, None);
        if state == State::Reverting || late {
            effect.state = State::Reverting;
            found.overdue.push(id);
        } else if state == State::Active {
            found.active += 1;
            self.reporter.follow(&entry.order.id, entry.order.options.reported);
            effect.head = None;
            if let Some(until) = until {
                self.scheduler.plan(id, until.boot);
            }
        } else {
            found.begun.extend(self.whole(entry).map(|order| (id, order)));
        }
        // A row that says already what is so need not be written again.
        let (same_state, same_end) = (effect.state == state, until == entry.until);
        self.keep(effect);
        if !same_state {
            self.note(id);
        } else if !same_end {
            // Of another boot: by the wall clock it can be read until there is time to write it anew.
            self.stale.push(id);
        }
    }

    /// Takes over what our table holds and no effect does, of a journal that was damaged or knows less than it did: every
    /// such element becomes an effect that is listed, can be lifted, and ends when its lease does.
    fn adopt(&mut self, damage: Option<&str>) -> Result<(), JournalError> {
        if let Some(damage) = damage {
            self.say(&format!("ALARM: {damage}"));
        }
        let Some(kernel) = self.kernel.as_mut() else { return Ok(()) };
        let mut held = match kernel.list() {
            Ok(held) => held,
            Err(error) => {
                self.say(&format!(
                    "ALARM: what the firewall holds cannot be read and is not looked after: {error}"
                ));
                return Ok(());
            }
        };
        held.retain(|(spot, _)| self.holders(*spot).is_empty());
        match damage {
            // Nothing was ever begun.
            None if held.is_empty() => return Ok(()),
            None => self.say("ALARM: the journal is empty, though the firewall holds blocks of ours"),
            Some(_) if held.is_empty() => return Ok(()),
            Some(_) => {}
        }
        let program = format!("active-response/bin/{ADOPTED}");
        let Some(Ours::Firewall(action)) = crate::actions::of_name(ADOPTED) else { return Ok(()) };
        let (now, mut endless, mut taken) = (self.now(), 0_usize, 0_usize);
        for (n, (spot, left)) in held.iter().take(self.settings.limits.live).enumerate() {
            let order = adopted(n, *spot, *left, now);
            let mut effect = self.effect(&order, None, &program);
            effect.length = order.timeout_secs;
            effect.until = left.and_then(|left| self.until(left.as_secs().max(1)));
            effect.state = State::Active;
            effect.told = true;
            let ports = |port| Subject::Ports(spot.address, Box::new([port]));
            effect.action = Some((action, spot.port.map_or(Subject::Address(spot.address), ports)));
            match effect.until {
                Some(until) => self.scheduler.plan(effect.id, until.boot),
                None => endless += 1,
            }
            self.enter(&order, None, effect, Kind::Action);
            taken += 1;
            if self.steps.len() >= PAGE && !self.commit() {
                break;
            }
        }
        self.commit();
        self.say(&format!(
            "ALARM: {taken} of {} blocks found in the firewall were taken over: {endless} of them have no end, the others \
             end with their leases; `threatlockdown responses list` shows them, `revert` lifts them",
            held.len()
        ));
        Ok(())
    }

    /// Forgets what was read from a journal that proved to be damaged further on.
    fn forget(&mut self) {
        self.effects.clear();
        self.others.clear();
        self.keys.clear();
        self.spots.clear();
        self.waiting_locals.clear();
        self.scheduler = crate::scheduler::Scheduler::default();
        self.steps.clear();
        self.dirty.clear();
        self.after.clear();
    }

    /// An action of ours can be asked and repeated: what is wanted is done again if it is not there.
    fn replay_local(&mut self, entry: &Entry, action: &'static dyn Local, overdue: &mut Vec<i64>) {
        let Ok(subject) =
            self.whole_call(entry).map_or_else(|| Err(String::new()), |call| action.subject(&call))
        else {
            let id = &entry.order.id;
            return self.say(&format!("ALARM: order {id}: the subject of {} is unknown now", entry.program));
        };
        let (until, late) = self.rebase(entry);
        let (id, state) = (entry.id, entry.state);
        let mut effect = self.restored(entry, until);
        effect.local = Some(Box::new((action, subject)));
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
        let mut effect = self.restored(entry, until);
        if state == State::Applying && effect.head().timeout == 0 {
            effect.key = None;
            self.keep(effect);
            let detail = "cut by a crash; not repeated, since nothing tells how far it came".into();
            return self.close(id, OutcomeKind::Interrupted, detail, Evidence::default());
        }
        if until.is_none() {
            // It had not told its keys yet: its end counts from the order.
            let length = effect.head().timeout;
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

    fn restored(&mut self, entry: &Entry, until: Option<Until>) -> Effect {
        let head = Some(Head::from(&entry.order));
        let mut effect = Effect::new(entry.id, head, self.intern(&entry.program));
        effect.prior = entry.prior.as_deref().map(Into::into);
        // The key of a block follows from what it blocks.
        effect.key = entry.key.as_deref().map(Into::into);
        (effect.state, effect.until, effect.length) = (entry.state, until, entry.length);
        (effect.attempts, effect.failed) = (entry.attempts, entry.failed);
        effect.told = entry.told;
        effect
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

/// What a start has to do once all rows are read.
#[derive(Debug, Default)]
struct Found {
    /// Accepted, nothing begun.
    anew: Vec<(Order, Option<i64>)>,
    /// Perhaps in the firewall.
    begun: Vec<(i64, Order)>,
    /// How many should be in the firewall.
    active: usize,
    /// To be undone.
    overdue: Vec<i64>,
}

/// The order that a block of unknown origin gets.
fn adopted(n: usize, spot: Spot, left: Option<Duration>, now: Timestamp) -> Order {
    let alert = serde_json::json!({"data": {"srcip": spot.address}}).to_string();
    let alert = serde_json::value::RawValue::from_string(alert);
    Order {
        id: OrderId(format!("adopted-{}-{n}", now.nanos())),
        response: ADOPTED.into(),
        executable: ADOPTED.into(),
        timeout_secs: left.map_or(0, |left| left.as_secs().max(1)),
        extra_args: Vec::new(),
        node: "threatlockdown".into(),
        alert: RawJson::from(alert.unwrap_or_else(|_| serde_json::value::RawValue::NULL.to_owned())),
        alert_id: "0".into(),
        rule: None,
        target: Target::Address(spot.address),
        created: now,
        timings: Timings::default(),
        options: OrderOptions { ports: spot.port.into_iter().collect(), ..OrderOptions::default() },
    }
}

/// Rows that are read at once.
const PAGE: usize = 10_000;
const ADOPTED: &str = "firewall-drop";
