//! Effects that this program brings about itself: applied and reverted in batches, each read back before it is told.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tld_model::{Evidence, Order, OutcomeKind, Stage};
use tld_sys::nft::Spot;

use super::intake::{Exchanged, exchange, text_length};
use super::{After, Executor, Head, State};
use crate::CrashPoint;
use crate::actions::{Action, Proof, Subject, Wanted};
use crate::escalation::Offender;
use crate::journal::Step;
use crate::log::Lines;

/// The spots of several effects of one action, each once.
struct Group {
    action: &'static dyn Action,
    spots: Vec<Spot>,
    place: HashMap<Spot, usize>,
    /// Places of the spots of each effect.
    effects: Vec<(i64, Vec<usize>)>,
}

impl Group {
    fn new(action: &'static dyn Action) -> Self {
        Self { action, spots: Vec::new(), place: HashMap::new(), effects: Vec::new() }
    }

    fn add(&mut self, id: i64, subject: &Subject) {
        let places = subject.spots().map(|spot| {
            *self.place.entry(spot).or_insert_with(|| {
                self.spots.push(spot);
                self.spots.len() - 1
            })
        });
        let places = places.collect();
        self.effects.push((id, places));
    }

    /// Joins the answers for the spots of each effect; one refusal refuses it.
    fn tell(&self, proofs: &[Result<Proof, String>], results: &mut HashMap<i64, Result<Proof, String>>) {
        let silent = || Err("the kernel did not answer".to_owned());
        for (id, places) in &self.effects {
            let mut each = places.iter().map(|at| proofs.get(*at).cloned().unwrap_or_else(silent));
            let first = each.next().unwrap_or_else(silent);
            let joined = each.fold(first, |joined, proof| Ok(format!("{}; {}", joined?, proof?)));
            results.insert(*id, joined);
        }
    }
}

impl Executor {
    /// Carries a round out in the kernel and reports it.
    pub(super) fn apply(&mut self, fresh: Vec<(i64, Order)>, extended: Vec<(i64, i64, Order)>) {
        if fresh.is_empty() && extended.is_empty() {
            return;
        }
        let ids: Vec<i64> =
            fresh.iter().map(|(id, _)| *id).chain(extended.iter().map(|(_, holder, _)| *holder)).collect();
        let results = self.enforce(&ids, false);
        let applied = self.now();
        self.crash(CrashPoint::AfterApplyBeforeCommit);
        let cut = self.cut(&fresh, &extended, &results);
        for (id, order) in fresh {
            if let Some(effect) = self.effects.get_mut(&id) {
                effect.head_mut().timings.mark(Stage::Applied, applied);
            }
            match results.get(&id) {
                Some(Ok(proof)) => self.applied(id, order, proof.clone(), cut.get(&id)),
                Some(Err(why)) => self.not_applied(id, &order, why.clone()),
                None => self.not_applied(id, &order, "it ended before it began".into()),
            }
        }
        for (id, holder, order) in extended {
            let result = results.get(&holder).cloned();
            self.already_active(id, holder, &order, result);
        }
        self.finish_step();
        self.crash(CrashPoint::WhileActive);
    }

    /// Makes the kernel hold these effects for their remaining time. What cannot be done at once stays wanted.
    /// `absent` says that they were looked for and not found.
    pub(crate) fn enforce(&mut self, ids: &[i64], absent: bool) -> HashMap<i64, Result<Proof, String>> {
        let mut groups: Vec<Group> = Vec::new();
        for id in ids {
            let Some((action, subject)) = self.effects.get(id).and_then(|effect| effect.action.as_ref())
            else {
                continue;
            };
            let at = groups.iter().position(|group| group.action.names() == action.names());
            let at = at.unwrap_or_else(|| {
                groups.push(Group::new(*action));
                groups.len() - 1
            });
            groups[at].add(*id, subject);
        }
        let mut results = HashMap::with_capacity(ids.len());
        for group in groups {
            // One change per spot: many orders of one burst name the same address.
            let wanted = |spot: &Spot| {
                let begun = || self.holders(*spot).iter().all(|id| self.is(*id, State::Applying));
                Wanted { spot: *spot, lease: self.lease(*spot), fresh: absent || begun() }
            };
            let wanted: Vec<_> = group.spots.iter().map(wanted).collect();
            let Some(kernel) = self.kernel.as_mut() else { break };
            group.tell(&group.action.apply(kernel.as_mut(), &wanted), &mut results);
        }
        results
    }

    /// The longest remaining time of all effects on a spot; `None` = without end.
    pub(crate) fn lease(&self, spot: Spot) -> Option<Duration> {
        let now = self.clock.boot();
        let mut longest = Duration::from_millis(1);
        for id in self.holders(spot) {
            let Some(effect) = self.effects.get(id) else { continue };
            if !matches!(effect.state, State::Applying | State::Active) {
                continue;
            }
            longest = longest.max(effect.until?.boot.saturating_sub(now));
        }
        Some(longest)
    }

    /// Ends live connections of those whose order asks for it, after new packets are dropped: in one look at each of
    /// the kernel's lists. The text tells what came of it.
    fn cut(
        &self,
        fresh: &[(i64, Order)],
        extended: &[(i64, i64, Order)],
        results: &HashMap<i64, Result<Proof, String>>,
    ) -> HashMap<i64, String> {
        let new = fresh.iter().map(|(id, order)| (*id, *id, order));
        let all = new.chain(extended.iter().map(|(id, holder, order)| (*id, *holder, order)));
        let asked = all.filter(|(_, holder, order)| {
            order.options.cut_connections && matches!(results.get(holder), Some(Ok(_)))
        });
        let (ids, addresses): (Vec<i64>, Vec<IpAddr>) = asked
            .filter_map(|(id, holder, _)| Some((id, self.effects.get(&holder)?.subject()?.address()?)))
            .unzip();
        if ids.is_empty() {
            return HashMap::new();
        }
        // The same address may be asked for twice; its count then stands at one place.
        let sockets = tld_sys::connections::cut_sockets(&addresses);
        let flows = tld_sys::connections::cut_flows(&addresses);
        let told = |what: &str, counts: &std::io::Result<Vec<usize>>, at: usize| match counts {
            Ok(counts) => format!("{} {what} ended", counts.get(at).copied().unwrap_or(0)),
            Err(error) => format!("{what} could not be ended: {error}"),
        };
        let texts = (0..ids.len())
            .map(|at| format!("; {}, {}", told("live sockets", &sockets, at), told("flows", &flows, at)));
        ids.iter().copied().zip(texts).collect()
    }

    fn applied(&mut self, id: i64, order: Order, proof: Proof, cut: Option<&String>) {
        let Some(effect) = self.effects.get_mut(&id) else { return };
        effect.state = State::Active;
        if let Some(until) = effect.until {
            self.scheduler.plan(id, until.boot);
        }
        let Some(effect) = self.effects.get(&id) else { return };
        let mut detail = match effect.length {
            0 => "blocked without end".to_owned(),
            secs => format!("blocked for {secs} s"),
        };
        if let Some(cut) = cut {
            detail.push_str(cut);
        }
        let mut proof = proof;
        if let Some((why, _)) = self.unwritable.as_ref().filter(|_| effect.unjournaled) {
            let note = format!("applied, not journaled ({why}): ");
            detail.insert_str(0, &note);
            proof.insert_str(0, &note);
        }
        let evidence = Evidence { read_back: Some(proof), ..Evidence::default() };
        let outcome = self.outcome(effect, OutcomeKind::Applied, detail, evidence);
        let journaled = !effect.unjournaled;
        self.note(id);
        self.tell(id, outcome);
        self.log_begun(id, order);
        if journaled {
            self.settled.push(id);
        }
    }

    fn not_applied(&mut self, id: i64, order: &Order, why: String) {
        let Some(effect) = self.effects.get(&id) else { return };
        let program = effect.program.clone();
        if let Some((action, subject)) = effect.action.clone()
            && let spots = subject.spots().filter(|spot| self.holders(*spot).len() == 1).collect::<Vec<_>>()
            && let Some(kernel) = self.kernel.as_mut()
        {
            // Nothing half done may outlive the failure; what was not there is no harm.
            let _ = action.revert(kernel.as_mut(), &spots);
        }
        (self.settings.log)(&format!("order {}: {program} failed: {why}", order.id));
        self.log_exchange(order, &program, "add", &[], &crate::log::escape(&format!("Failed: {why}")));
        self.close(id, OutcomeKind::Failed, why, Evidence::default());
    }

    fn already_active(&mut self, id: i64, holder: i64, order: &Order, result: Option<Result<Proof, String>>) {
        let until = self.effects.get(&holder).and_then(|effect| effect.until);
        let subject = self.effects.get(&holder).and_then(|effect| effect.subject().cloned());
        let Some(effect) = self.effects.get_mut(&id) else { return };
        effect.until = until;
        let program = effect.program.clone();
        let (kind, detail, proof) = match result {
            Some(Ok(proof)) => {
                (OutcomeKind::AlreadyActive, "already blocked, the later end holds".into(), Some(proof))
            }
            Some(Err(why)) => (OutcomeKind::Failed, why, None),
            None => (OutcomeKind::Failed, "the block ended meanwhile".into(), None),
        };
        if let Some(subject) = subject {
            let key = subject.to_string();
            // The contract keeps no entry for a response without timeout and lets it go on.
            let (answer, last) =
                if order.timeout_secs == 0 { ("continue", "Ended") } else { ("abort", "Aborted") };
            let exchanged = [Exchanged::CheckKeys(&key), Exchanged::Answer(answer)];
            self.log_exchange(order, &program, "add", &exchanged, last);
        }
        self.close(id, kind, detail, Evidence { read_back: proof, ..Evidence::default() });
    }

    /// The lines of a block that stands. Two copies of the alert are put into words by the log's thread: in a burst that
    /// is a good part of all work.
    fn log_begun(&mut self, id: i64, order: Order) {
        let Some(effect) = self.effects.get(&id) else { return };
        let Some(subject) = effect.subject() else { return };
        let (program, key) = (effect.program.clone(), subject.to_string());
        let (zone, at) = (self.settings.zone.clone(), self.now());
        let length = text_length(&order, 2);
        let render = move || {
            let exchanged = [Exchanged::CheckKeys(&key), Exchanged::Answer("continue")];
            exchange(Lines::new(&program, &zone, at), &order, &program, "add", &exchanged, "Ended")
        };
        self.after.push(After::LogLater(length, Box::new(render)));
    }

    /// Begins the undo of everything in `ids` that is due or was lifted.
    pub(super) fn revert(&mut self, ids: &[i64]) {
        let mut ours = Vec::new();
        for &id in ids {
            let Some(effect) = self.effects.get_mut(&id) else { continue };
            match (effect.state, effect.action.is_some()) {
                (State::Active | State::Reverting, true) => {
                    effect.state = State::Reverting;
                    self.note(id);
                    ours.push(id);
                }
                _ => self.revert_script(id),
            }
        }
        if ours.is_empty() {
            return;
        }
        self.finish_step();
        self.crash(CrashPoint::WhileReverting);
        let results = self.withdraw(&ours);
        self.crash(CrashPoint::AfterRevert);
        for id in ours {
            match results.get(&id) {
                Some(Ok(proof)) => self.reverted(id, proof.clone()),
                Some(Err(why)) => self.revert_failed(id, why.clone(), Evidence::default()),
                None => self.revert_failed(id, "the firewall is out of reach".into(), Evidence::default()),
            }
        }
        self.finish_step();
    }

    /// Takes effects out of the kernel, but for spots that another effect still holds.
    fn withdraw(&mut self, ids: &[i64]) -> HashMap<i64, Result<Proof, String>> {
        let mut results = HashMap::with_capacity(ids.len());
        let mut groups: Vec<Group> =
            crate::actions::REGISTRY.iter().map(|action| Group::new(*action)).collect();
        for &id in ids {
            let Some((action, subject)) = self.effects.get(&id).and_then(|effect| effect.action.as_ref())
            else {
                continue;
            };
            if let Some(group) = groups.iter_mut().find(|group| group.action.names() == action.names()) {
                group.add(id, subject);
            }
        }
        for group in groups.into_iter().filter(|group| !group.spots.is_empty()) {
            let live = |id: &i64| self.is(*id, State::Active) || self.is(*id, State::Applying);
            let held = |spot: &Spot| self.holders(*spot).iter().any(live);
            let (kept, free): (Vec<Spot>, Vec<Spot>) = group.spots.iter().copied().partition(held);
            let Some(kernel) = self.kernel.as_mut() else { return results };
            let mut proofs: HashMap<Spot, Result<Proof, String>> = kept
                .into_iter()
                .map(|spot| (spot, Ok(format!("{spot} stays blocked by another response"))))
                .collect();
            let removed = group.action.revert(kernel.as_mut(), &free);
            proofs.extend(free.into_iter().zip(removed));
            let told = group.spots.iter().map(|spot| proofs.remove(spot));
            let told: Vec<_> = told.map(|one| one.unwrap_or_else(|| Err("no answer".into()))).collect();
            group.tell(&told, &mut results);
        }
        results
    }

    fn reverted(&mut self, id: i64, proof: Proof) {
        if let Ok(order) = self.journal.order(id)
            && let Some(effect) = self.effects.get_mut(&id)
        {
            let program = Arc::clone(&effect.program);
            if effect.head.is_none() {
                effect.head = Some(Box::new(Head::from(&order)));
            }
            self.log_exchange(&order, &program, "delete", &[], "Ended");
        }
        self.count_block(id);
        let detail =
            if self.effects.get(&id).is_some_and(|effect| effect.lifted) { "lifted" } else { "ended" };
        let evidence = Evidence { read_back: Some(proof), ..Evidence::default() };
        self.close(id, OutcomeKind::Reverted, detail.into(), evidence);
    }

    /// A block that ran to its end counts for escalation; one that was lifted by hand was perhaps a mistake.
    pub(super) fn count_block(&mut self, id: i64) {
        let now = self.now();
        let Some(effect) = self.effects.get(&id) else { return };
        let escalates = !self.settings.repeated_offenders.is_empty() || !effect.head().steps.is_empty();
        if effect.lifted || effect.failed || effect.length == 0 || !escalates {
            return;
        }
        if let Some(key) = effect.full_key() {
            let former = self.journal.offender(&key).unwrap_or(None);
            let offender = Offender::after(former, now, effect.length);
            self.steps.push(Step::Offend { key, offender });
        }
    }

    /// Alarms, reports the first failure, and plans the next try: an undo is never given up.
    pub(super) fn revert_failed(&mut self, id: i64, why: String, evidence: Evidence) {
        self.wake(id);
        let Some(effect) = self.effects.get_mut(&id) else { return };
        self.failed_reverts += 1;
        effect.attempts = effect.attempts.saturating_add(1);
        let (attempts, program, order) =
            (effect.attempts, effect.program.clone(), effect.head().order.clone());
        (self.settings.log)(&format!(
            "ALARM: order {order}: undo of {program} failed {attempts} time(s), tried again: {why}"
        ));
        self.note(id);
        if attempts == 1
            && let Some(effect) = self.effects.get(&id)
        {
            let outcome = self.outcome(effect, OutcomeKind::RevertFailed, why, evidence);
            self.tell(id, outcome);
        }
        self.plan_retry(id);
    }
}

/// What the reconciler sees of the executor.
impl Executor {
    pub(crate) fn boot(&self) -> Duration {
        self.clock.boot()
    }

    pub(crate) fn reconciler(&mut self) -> &mut crate::reconcile::Reconciler {
        &mut self.reconciler
    }

    pub(crate) fn kernel_mut(&mut self) -> Option<&mut (dyn crate::kernel::Kernel + 'static)> {
        self.kernel.as_deref_mut()
    }

    pub(crate) fn say(&self, text: &str) {
        (self.settings.log)(text);
    }
}
