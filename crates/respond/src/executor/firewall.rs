//! Effects that this program brings about itself: applied and reverted in batches, each read back before it is told.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tld_model::{Evidence, Order, OutcomeKind, Stage};

use super::intake::Exchanged;
use super::{Executor, State};
use crate::CrashPoint;
use crate::actions::{Action, Proof, Subject, Wanted};
use crate::escalation::Offender;
use crate::journal::Step;

/// What is wanted of one action, by effect.
type Group = (&'static dyn Action, Vec<(i64, Wanted)>);

impl Executor {
    /// Carries a round out in the kernel and reports it.
    pub(super) fn apply(&mut self, fresh: Vec<(i64, Order)>, extended: Vec<(i64, i64, Order)>) {
        if fresh.is_empty() && extended.is_empty() {
            return;
        }
        let ids: Vec<i64> =
            fresh.iter().map(|(id, _)| *id).chain(extended.iter().map(|(_, holder, _)| *holder)).collect();
        let results = self.enforce(&ids);
        let applied = self.now();
        self.crash(CrashPoint::AfterApplyBeforeCommit);
        let cut = self.cut(&fresh, &extended, &results);
        for (id, order) in fresh {
            if let Some(effect) = self.effects.get_mut(&id) {
                effect.head.timings.mark(Stage::Applied, applied);
            }
            match results.get(&id) {
                Some(Ok(proof)) => self.applied(id, &order, proof.clone(), cut.get(&id)),
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
    pub(crate) fn enforce(&mut self, ids: &[i64]) -> HashMap<i64, Result<Proof, String>> {
        let mut results = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        for id in ids {
            let Some((action, subject)) = self.effects.get(id).and_then(|effect| effect.action.clone())
            else {
                continue;
            };
            let lease = self.lease(&subject);
            let wanted = Wanted { subject, lease };
            match groups.iter_mut().find(|(known, _)| known.names() == action.names()) {
                Some((_, group)) => group.push((*id, wanted)),
                None => groups.push((action, vec![(*id, wanted)])),
            }
        }
        let Some(kernel) = self.kernel.as_mut() else { return results };
        for (action, group) in groups {
            // One change per subject: many orders of one burst name the same address.
            let mut unique: Vec<Wanted> = Vec::new();
            let mut place: HashMap<Subject, usize> = HashMap::new();
            for (_, wanted) in &group {
                place.entry(wanted.subject.clone()).or_insert_with(|| {
                    unique.push(wanted.clone());
                    unique.len() - 1
                });
            }
            let proofs = action.apply(kernel.as_mut(), &unique);
            for (id, wanted) in group {
                let proof = place.get(&wanted.subject).and_then(|at| proofs.get(*at)).cloned();
                results.insert(id, proof.unwrap_or_else(|| Err("the kernel did not answer".into())));
            }
        }
        results
    }

    /// The longest remaining time of all effects on a subject; `None` = without end.
    pub(super) fn lease(&self, subject: &Subject) -> Option<Duration> {
        let now = self.clock.boot();
        let mut longest = Duration::from_millis(1);
        for id in self.subjects.get(subject).into_iter().flatten() {
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

    fn applied(&mut self, id: i64, order: &Order, proof: Proof, cut: Option<&String>) {
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
        self.note(id);
        self.tell(id, outcome);
        self.log_subject(id, order, "continue", "Ended");
    }

    fn not_applied(&mut self, id: i64, order: &Order, why: String) {
        let Some(effect) = self.effects.get(&id) else { return };
        let program = effect.program.clone();
        if let Some((action, subject)) = effect.action.clone()
            && self.subjects.get(&subject).is_some_and(|holders| holders.len() == 1)
            && let Some(kernel) = self.kernel.as_mut()
        {
            // Nothing half done may outlive the failure; what was not there is no harm.
            let _ = action.revert(kernel.as_mut(), &[subject]);
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

    fn log_subject(&mut self, id: i64, order: &Order, answer: &'static str, last: &str) {
        let Some(effect) = self.effects.get(&id) else { return };
        let Some(subject) = effect.subject() else { return };
        let (program, key) = (effect.program.clone(), subject.to_string());
        self.log_exchange(
            order,
            &program,
            "add",
            &[Exchanged::CheckKeys(&key), Exchanged::Answer(answer)],
            last,
        );
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

    /// Takes effects out of the kernel, but for subjects that another effect still holds.
    fn withdraw(&mut self, ids: &[i64]) -> HashMap<i64, Result<Proof, String>> {
        let mut results = HashMap::new();
        let mut removals: Vec<(i64, &'static dyn Action, Subject)> = Vec::new();
        for &id in ids {
            let Some((action, subject)) = self.effects.get(&id).and_then(|effect| effect.action.clone())
            else {
                continue;
            };
            let others = self.subjects.get(&subject).into_iter().flatten();
            let mut live =
                others.filter(|other| self.is(**other, State::Active) || self.is(**other, State::Applying));
            if live.next().is_some() {
                results.insert(id, Ok(format!("{subject} stays blocked by another response")));
            } else {
                removals.push((id, action, subject));
            }
        }
        let Some(kernel) = self.kernel.as_mut() else { return results };
        for action in crate::actions::REGISTRY {
            let of_action = removals.iter().filter(|(_, other, _)| other.names() == action.names());
            let (ids, subjects): (Vec<i64>, Vec<Subject>) =
                of_action.map(|(id, _, subject)| (*id, subject.clone())).unzip();
            if !ids.is_empty() {
                results.extend(ids.into_iter().zip(action.revert(kernel.as_mut(), &subjects)));
            }
        }
        results
    }

    fn reverted(&mut self, id: i64, proof: Proof) {
        self.count_block(id);
        if let (Ok(order), Some(effect)) = (self.journal.order(id), self.effects.get(&id)) {
            let program = effect.program.clone();
            self.log_exchange(&order, &program, "delete", &[], "Ended");
        }
        let detail =
            if self.effects.get(&id).is_some_and(|effect| effect.lifted) { "lifted" } else { "ended" };
        let evidence = Evidence { read_back: Some(proof), ..Evidence::default() };
        self.close(id, OutcomeKind::Reverted, detail.into(), evidence);
    }

    /// A block that ran to its end counts for escalation; one that was lifted by hand was perhaps a mistake.
    pub(super) fn count_block(&mut self, id: i64) {
        let now = self.now();
        let Some(effect) = self.effects.get(&id) else { return };
        let escalates = !self.settings.repeated_offenders.is_empty() || !effect.head.steps.is_empty();
        if effect.lifted || effect.failed || effect.length == 0 || !escalates {
            return;
        }
        if let Some(key) = effect.key.clone() {
            let former = self.journal.offender(&key).unwrap_or(None);
            let offender = Offender::after(former, now, effect.length);
            self.steps.push(Step::Offend { key, offender });
        }
    }

    /// Alarms, reports the first failure, and plans the next try: an undo is never given up.
    pub(super) fn revert_failed(&mut self, id: i64, why: String, evidence: Evidence) {
        let Some(effect) = self.effects.get_mut(&id) else { return };
        effect.attempts = effect.attempts.saturating_add(1);
        let (attempts, program, order) = (effect.attempts, effect.program.clone(), effect.head.order.clone());
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
    /// Each subject that an action must hold, with one effect on it and its lease.
    pub(crate) fn desired(&self, action: &dyn Action) -> Vec<(Subject, i64, Option<Duration>)> {
        let by_action = |id: &i64| {
            let effect = self.effects.get(id).filter(|effect| effect.state == State::Active);
            effect
                .and_then(|effect| effect.action.as_ref())
                .is_some_and(|(other, _)| other.names() == action.names())
        };
        let holder = |ids: &std::collections::BTreeSet<i64>| ids.iter().copied().find(by_action);
        let held = self.subjects.iter().filter_map(|(subject, ids)| Some((subject, holder(ids)?)));
        held.map(|(subject, id)| (subject.clone(), id, self.lease(subject))).collect()
    }

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
