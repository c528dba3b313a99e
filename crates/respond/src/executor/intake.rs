//! Orders come in: known ones are answered from the journal, the others are resolved, guarded and sorted into what
//! the kernel does and what a file does.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use serde_json::Value;
use tld_model::{Evidence, Order, OrderId, OutcomeKind, Stage, Target};

use super::{After, BATCH, Effect, Executor, Head, effect};
use crate::CrashPoint;
use crate::actions::{Action, Ours, Subject};
use crate::executable::{Denied, Found};
use crate::journal::{Entry, Kind, State, Step};
use crate::kernel::Unable;
use crate::log::Lines;
use crate::script::{self, Verb};

/// Orders of one round that the kernel must carry out.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// New effects.
    pub(super) fresh: Vec<(i64, Order)>,
    /// Orders whose key is active, with the effect that holds it.
    pub(super) extended: Vec<(i64, i64, Order)>,
    /// Orders whose key became taken within this round.
    later: Vec<(Order, Option<i64>)>,
    /// Orders of this round that are settled or begun.
    seen: HashSet<OrderId>,
    /// What stands behind the names that orders of this round gave: one look serves them all.
    files: HashMap<String, (String, Result<Found, Denied>)>,
}

impl Executor {
    /// Takes orders in; an order with a row (found at start) keeps it.
    pub(super) fn take_in(&mut self, mut orders: Vec<(Order, Option<i64>)>) {
        while !orders.is_empty() {
            let mut batch = Batch::default();
            let rest = orders.split_off(orders.len().min(BATCH));
            self.journal.begin_reading();
            for (order, row) in orders {
                self.admit(order, row, &mut batch);
            }
            self.journal.end_reading();
            self.pump();
            if self.commit() {
                self.crash(CrashPoint::BeforeApply);
            } else {
                self.give_up(&mut batch);
            }
            self.finish_step();
            self.apply(std::mem::take(&mut batch.fresh), std::mem::take(&mut batch.extended));
            orders = std::mem::take(&mut batch.later);
            orders.extend(rest);
        }
    }

    fn admit(&mut self, mut order: Order, row: Option<i64>, batch: &mut Batch) {
        if row.is_none() {
            self.acknowledge(&order);
            if self.answer_known(&order, batch) {
                return;
            }
            order.timings.mark(Stage::Received, self.now());
            if let Some((kind, detail)) = self.too_late(&order) {
                let program = order.executable.clone();
                return self.decline(&order, row, &program, kind, detail);
            }
        }
        if self.paused {
            let program = order.executable.clone();
            let detail = "responses are paused (go on with: threatlockdown responses resume)".into();
            return self.decline(&order, row, &program, OutcomeKind::Refused, detail);
        }
        let (program, found) = self.file(&order.executable, batch);
        if let Err(Denied::Missing(text)) = &found {
            let detail = text.clone();
            return self.decline(&order, row, &program, OutcomeKind::NotFound, detail);
        }
        if order.options.dry_run {
            let detail = format!("`{program}` would run for {}, {} s", order.target, order.timeout_secs);
            return self.decline(&order, row, &program, OutcomeKind::DryRun, detail);
        }
        if self.effects.len() >= self.settings.limits.live {
            let detail = format!("{} effects are live already", self.effects.len());
            return self.decline(&order, row, &program, OutcomeKind::Failed, detail);
        }
        match found {
            Ok(Found::Ours(Ours::Firewall(action))) => self.admit_action(order, row, &program, action, batch),
            Ok(Found::Ours(Ours::Local(action))) => self.admit_local(&order, row, &program, action),
            Ok(Found::Operators) => self.admit_script(&order, row, &program),
            Err(denied) => {
                let (kind, detail) = match denied {
                    Denied::Missing(text) => (OutcomeKind::NotFound, text),
                    Denied::Unsafe(text) => (OutcomeKind::Refused, text),
                    Denied::Unsupported(text) => (OutcomeKind::Unsupported, text),
                };
                (self.settings.log)(&format!("order {}: {detail}", order.id));
                self.decline(&order, row, &program, kind, detail);
            }
        }
    }

    /// The file that an order means, and what it is.
    fn file(&mut self, executable: &str, batch: &mut Batch) -> (String, Result<Found, Denied>) {
        if let Some(known) = batch.files.get(executable) {
            return known.clone();
        }
        let home = self.settings.home.clone();
        let seen = match tld_config::executable::resolve(&home.join(BIN), executable) {
            Ok(path) => {
                let name = path.file_name().and_then(|name| name.to_str());
                let program = name.map_or_else(|| executable.to_owned(), |name| format!("{BIN}/{name}"));
                let found = self.recogniser.decide(&home, &program);
                (program, found)
            }
            Err(error) => (executable.to_owned(), Err(Denied::Missing(error.to_string()))),
        };
        batch.files.insert(executable.to_owned(), seen.clone());
        seen
    }

    /// An order that was seen before gets the answer it got before, and nothing is done.
    fn answer_known(&mut self, order: &Order, batch: &mut Batch) -> bool {
        if !batch.seen.insert(order.id.clone()) {
            return true;
        }
        match self.journal.of_order(&order.id) {
            Ok(Some(entry)) => {
                if let Some(outcome) = entry.outcome {
                    self.after.push(After::Tell(Box::new(outcome)));
                }
                true
            }
            // What was begun while the journal could not be written is not done twice.
            Ok(None) => self.unwritten.contains_key(&order.id),
            Err(error) => {
                (self.settings.log)(&format!("cannot look up order {}: {error}", order.id));
                self.unwritten.contains_key(&order.id)
            }
        }
    }

    fn admit_action(
        &mut self,
        order: Order,
        row: Option<i64>,
        program: &str,
        action: &'static dyn Action,
        batch: &mut Batch,
    ) {
        let alert = script::alert(&order.alert);
        let subject = match action.subject(&alert) {
            Ok(subject) => subject,
            Err(literal) => {
                self.log_exchange(&order, program, "add", &[], literal);
                let detail = no_address(&alert);
                return self.decline(&order, row, program, OutcomeKind::Refused, detail);
            }
        };
        if let Some(objection) = subject.address().and_then(|address| self.guard.objection(address)) {
            self.log_line(program, &format!("Refused: {objection}"));
            return self.decline(&order, row, program, OutcomeKind::Refused, objection);
        }
        let subject = match limited(subject, &order.options.ports) {
            Ok(subject) => subject,
            Err(detail) => return self.decline(&order, row, program, OutcomeKind::Refused, detail),
        };
        if let Some(reason) = self.settings.dry_run.clone() {
            let detail = format!("would block {subject} for {} s; {reason}", order.timeout_secs);
            self.log_line(program, &format!("Dry run: {detail}"));
            return self.decline(&order, row, program, OutcomeKind::DryRun, detail);
        }
        if let Some(unable) = self.settings.unable.clone() {
            let kind = match unable {
                Unable::NotPermitted(_) => OutcomeKind::DryRun,
                Unable::Missing(_) => OutcomeKind::Unsupported,
            };
            let detail = format!("cannot block {subject}: {unable}");
            self.log_line(program, &format!("Failed: {detail}"));
            return self.decline(&order, row, program, kind, detail);
        }
        match self.holder(program, &subject) {
            Some(holder) if self.is(holder, State::Active) => self.extend(order, row, program, holder, batch),
            Some(holder) if self.is(holder, State::Applying) => {
                batch.seen.remove(&order.id);
                batch.later.push((order, row));
            }
            holder => {
                if let Some(holder) = holder {
                    let detail = format!("still in place; order {} goes on from here", order.id);
                    self.close(holder, OutcomeKind::RevertFailed, detail, Evidence::default());
                }
                self.begin(order, row, program, (action, subject), batch);
            }
        }
    }

    fn begin(
        &mut self,
        order: Order,
        row: Option<i64>,
        program: &str,
        action: (&'static dyn Action, Subject),
        batch: &mut Batch,
    ) {
        let mut effect = self.effect(&order, row, program);
        effect.length = self.length(effect.head(), || effect::key(&effect.program, &action.1));
        effect.until = self.until(effect.length);
        effect.state = State::Applying;
        if effect.head().target == Target::None {
            effect.head_mut().target = action.1.target();
        }
        effect.action = Some(action);
        let id = effect.id;
        self.enter(&order, row, effect, Kind::Action);
        batch.fresh.push((id, order));
    }

    /// The effect of the same file on the same subject.
    fn holder(&self, program: &str, subject: &Subject) -> Option<i64> {
        let holders = self.holders(subject.spots().next()?).iter().copied();
        holders.into_iter().find(|id| {
            let effect = self.effects.get(id);
            effect.is_some_and(|effect| &*effect.program == program && effect.subject() == Some(subject))
        })
    }

    /// The same key is active: its end moves out, never in.
    fn extend(&mut self, order: Order, row: Option<i64>, program: &str, holder: i64, batch: &mut Batch) {
        let asked = self.until(order.timeout_secs);
        self.move_end(holder, asked);
        let effect = self.effect(&order, row, program);
        let id = effect.id;
        self.enter(&order, row, effect, Kind::Action);
        batch.extended.push((id, holder, order));
    }

    /// Moves the end of an active effect to the later of its own and `asked` (`None` = never).
    pub(super) fn move_end(&mut self, holder: i64, asked: Option<crate::journal::Until>) {
        let boot = self.clock.boot();
        let Some(effect) = self.effects.get_mut(&holder) else { return };
        match (effect.until, asked) {
            (Some(present), Some(asked)) if asked.boot <= present.boot => return,
            (None, _) => return,
            (Some(_), asked) => effect.until = asked,
        }
        effect.length =
            effect.until.map_or(0, |until| until.boot.saturating_sub(boot).as_secs().max(effect.length));
        match effect.until {
            Some(until) => self.scheduler.plan(holder, until.boot),
            None => self.scheduler.cancel(holder),
        }
        self.note(holder);
    }

    fn admit_script(&mut self, order: &Order, row: Option<i64>, program: &str) {
        let base = program.rsplit('/').next().unwrap_or(program);
        let stem = base.rsplit_once('.').map_or(base, |(stem, _extension)| stem);
        if let Target::Address(address) = order.target
            && BLOCKERS.contains(&stem)
            && let Some(objection) = self.guard.objection(address)
        {
            self.log_line(program, &format!("Refused: {objection}"));
            return self.decline(order, row, program, OutcomeKind::Refused, objection);
        }
        if self.adds.waiting() >= self.settings.limits.queue {
            let detail = format!("{} files wait to be run already", self.adds.waiting());
            return self.decline(order, row, program, OutcomeKind::Failed, detail);
        }
        let mut effect = self.effect(order, row, program);
        effect.length = order.timeout_secs;
        self.adds.wait(&effect.program, effect.id);
        self.enter(order, row, effect, Kind::Script);
    }

    pub(super) fn effect(&mut self, order: &Order, row: Option<i64>, program: &str) -> Effect {
        let id = row.unwrap_or_else(|| self.journal.fresh_id());
        Effect::new(id, Some(Head::from(order)), self.intern(program))
    }

    pub(super) fn enter(&mut self, order: &Order, row: Option<i64>, effect: Effect, kind: Kind) {
        if row.is_none() {
            let mut order = order.clone();
            let alert = std::mem::replace(&mut order.alert, serde_json::value::RawValue::NULL.to_owned());
            // A restart then need not read the alert to know whom this is about.
            order.target.clone_from(&effect.head().target);
            let entry = Box::new(Entry {
                id: effect.id,
                order,
                alert: Some(alert),
                program: effect.program.to_string(),
                kind,
                state: effect.state,
                key: effect.full_key(),
                boot_id: None,
                until: effect.until,
                length: effect.length,
                attempts: 0,
                failed: false,
                prior: None,
                outcome: None,
                told: false,
                changed: self.now(),
            });
            self.push(effect.id, Step::Insert(entry));
            self.keep(effect);
        } else {
            let id = effect.id;
            self.keep(effect);
            self.note(id);
        }
    }

    /// An order that ends here, with its outcome.
    pub(super) fn decline(
        &mut self,
        order: &Order,
        row: Option<i64>,
        program: &str,
        kind: OutcomeKind,
        detail: String,
    ) {
        let effect = self.effect(order, row, program);
        let id = effect.id;
        self.enter(order, row, effect, Kind::Script);
        self.close(id, kind, detail, Evidence::default());
    }

    /// The journal refused the intents of this round: none of them is begun, but for blocks that the kernel itself
    /// will end. A full disk must not be a way to stay unblocked; what is blocked now is journaled when there is room.
    fn give_up(&mut self, batch: &mut Batch) {
        let leases = self.kernel.as_ref().is_some_and(|kernel| kernel.keeps_leases());
        let room = self.steps.len() < MOST_PENDING;
        let mut refused = HashSet::new();
        for step in &mut self.steps {
            let Step::Insert(entry) = step else { continue };
            match self.effects.get_mut(&entry.id) {
                Some(effect) if effect.unjournaled => {}
                Some(effect) if leases && room && effect.action.is_some() && effect.until.is_some() => {
                    effect.unjournaled = true;
                    self.unwritten.insert(entry.order.id.clone(), entry.id);
                    // Thousands of alerts must not wait in memory; only log lines of the undo lack it.
                    entry.alert = None;
                }
                // An order that only moved the end of a block goes on with it.
                Some(_) if batch.extended.iter().any(|(id, ..)| *id == entry.id) => {}
                _ => drop(refused.insert(entry.id)),
            }
        }
        self.after.retain(|after| !matches!(after, After::Start(id, Verb::Add) if refused.contains(id)));
        self.steps.retain(|step| !refused.contains(&step_row(step)));
        self.dirty.clear();
        for (at, step) in self.steps.iter().enumerate() {
            self.dirty.insert(step_row(step), at);
        }
        self.adds.forget(|id| refused.contains(&id));
        self.waiting_locals.retain(|(id, _)| !refused.contains(id));
        batch.fresh.retain(|(id, _)| !refused.contains(id));
        for id in refused {
            self.not_begun(id);
        }
    }

    fn not_begun(&mut self, id: i64) {
        let Some(effect) = self.effects.get(&id) else { return };
        if effect.action.is_none() && effect.state == State::Applying {
            if effect.local.is_some() {
                self.running_locals = self.running_locals.saturating_sub(1);
            } else {
                self.adds.free(id);
            }
        }
        let why = self.unwritable.as_ref().map_or("", |(why, _)| why.as_str());
        let detail = format!("the journal cannot be written, nothing was done: {why}");
        let outcome = self.outcome(effect, OutcomeKind::Failed, detail, Evidence::default());
        let before = self.steps.len();
        self.shut(id);
        self.steps.truncate(before);
        self.dirty.remove(&id);
        self.after.push(After::Tell(Box::new(outcome)));
    }

    pub(crate) fn is(&self, id: i64, state: State) -> bool {
        self.effects.get(&id).is_some_and(|effect| effect.state == state)
    }

    pub(super) fn log_line(&mut self, program: &str, text: &str) {
        let mut lines = self.lines(program);
        lines.say(text);
        let text = lines.finish();
        self.after.push(After::Log(text));
    }

    /// The lines of one run of a shipped script: start, message, what was exchanged, last word.
    pub(super) fn log_exchange(
        &mut self,
        order: &Order,
        program: &str,
        verb: &str,
        exchanged: &[Exchanged<'_>],
        last: &str,
    ) {
        let text = exchange(self.lines(program), order, program, verb, exchanged, last);
        self.after.push(After::Log(text));
    }
}

/// See [`Executor::log_exchange`].
pub(super) fn exchange(
    mut lines: Lines<'_>,
    order: &Order,
    program: &str,
    verb: &str,
    exchanged: &[Exchanged<'_>],
    last: &str,
) -> String {
    let answers = exchanged.iter().filter(|one| matches!(one, Exchanged::Answer(_))).count();
    lines.reserve(text_length(order, answers + 1));
    lines.say("Starting");
    lines.received(&line(order, program, verb));
    for one in exchanged {
        match one {
            Exchanged::CheckKeys(key) => lines.say(&check_keys_line(program, key)),
            Exchanged::Answer(answer) => lines.received(&line(order, program, answer)),
        }
    }
    lines.say(last);
    lines.finish()
}

/// About how many bytes the lines of an exchange take in which the alert stands so often.
pub(super) fn text_length(order: &Order, alerts: usize) -> usize {
    let arguments: usize = order.extra_args.iter().map(String::len).sum();
    (order.alert.get().len() + arguments + MESSAGE) * alerts + MESSAGE
}

/// A line within a dialogue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Exchanged<'a> {
    CheckKeys(&'a str),
    Answer(&'static str),
}

/// The `check_keys` message of a shipped script.
pub(crate) fn check_keys_line(program: &str, key: &str) -> String {
    keys_line(program, &[key])
}

/// The same with any number of keys.
pub(crate) fn keys_line(program: &str, keys: &[&str]) -> String {
    let base = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program);
    let (base, keys) = (Value::from(base), Value::from(keys));
    format!(
        r#"{{"version":1,"origin":{{"name":{base},"module":"active-response"}},"command":"check_keys","parameters":{{"keys":{keys}}}}}"#
    )
}

/// The subject limited to the ports of the order, if it has any.
fn limited(subject: Subject, ports: &[u16]) -> Result<Subject, String> {
    let ports: BTreeSet<u16> = ports.iter().copied().collect();
    match subject {
        Subject::Address(_) if ports.len() > MOST_PORTS => {
            Err(format!("{} ports in one response, at most {MOST_PORTS}", ports.len()))
        }
        Subject::Address(address) if !ports.is_empty() => {
            Ok(Subject::Ports(address, ports.into_iter().collect()))
        }
        subject => Ok(subject),
    }
}

/// Why an alert gives nothing to block. Host names and words like `UNKNOWN` are logged by services, not by mistake.
fn no_address(alert: &Value) -> String {
    match alert.get("data").and_then(|data| data.get("srcip")).and_then(Value::as_str) {
        Some(text) => {
            let shown = crate::log::escape(text.get(..text.floor_char_boundary(SHOWN)).unwrap_or_default());
            format!("the alert's srcip `{shown}` is no address, and no other of its fields has one")
        }
        None => "the alert names no source address".into(),
    }
}

fn line(order: &Order, program: &str, verb: &str) -> String {
    script::message(order, program, verb).to_line().unwrap_or_default()
}

fn step_row(step: &Step) -> i64 {
    match step {
        Step::Insert(entry) => entry.id,
        Step::Advance { id, .. } | Step::Report { id, .. } => *id,
        Step::Offend { .. } | Step::Untold(_) | Step::Told { .. } => 0,
    }
}

const BIN: &str = "active-response/bin";
const SHOWN: usize = 100;
/// Most bytes of a common line but for its alert.
const MESSAGE: usize = 512;
const MOST_PORTS: usize = 256;
/// Steps that may wait for a journal that cannot be written.
const MOST_PENDING: usize = 200_000;
/// Names that the contract gives to files which block the source address.
pub(crate) const BLOCKERS: &[&str] = &[
    "firewall-drop",
    "default-firewall-drop",
    "block-ip",
    "firewalld-drop",
    "host-deny",
    "route-null",
    "ip-customblock",
    "pf",
    "ipfw",
    "npf",
];
