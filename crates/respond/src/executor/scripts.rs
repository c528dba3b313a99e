//! Effects that operators' files bring about: slots, keys, answers, results.

use tld_model::{Evidence, OutcomeKind, Stage};

use super::slots::{Room, Slots};
use super::{Aborted, After, Executor, Input, Parked, State};
use crate::actions::Failure;
use crate::dialect::Dialect;
use crate::executable::Denied;
use crate::journal::Until;
use crate::script::{self, Answer, End, Job, Report, Verb};
use crate::{CrashPoint, Limits};

impl Executor {
    /// Gives free slots to waiting files. Undos have slots of their own: files that hang on `add` cannot delay them.
    pub(super) fn pump(&mut self) {
        self.pump_locals();
        let now = self.clock.boot();
        while let Some(id) = self.adds.next(now) {
            let Some(effect) = self.effects.get_mut(&id) else {
                self.adds.free(id);
                continue;
            };
            effect.state = State::Applying;
            self.note(id);
            self.after.push(After::Start(id, Verb::Add));
        }
        while let Some(id) = self.undos.next(now) {
            if self.effects.contains_key(&id) {
                self.after.push(After::Start(id, Verb::Delete));
            } else {
                self.undos.free(id);
            }
        }
    }

    /// Starts a file in a thread of its own.
    pub(super) fn start(&mut self, id: i64, verb: Verb) {
        if self.is_local(id) {
            return self.start_local(id, verb);
        }
        if verb == Verb::Add {
            self.crash(CrashPoint::BeforeApply);
        } else {
            self.crash(CrashPoint::WhileReverting);
        }
        let Some(effect) = self.effects.get(&id) else {
            return self.free(id, verb);
        };
        let job = self.journal.order(id).map_err(|error| error.to_string()).and_then(|order| {
            let fit = crate::executable::fit(&self.settings.home, &effect.program);
            let fit = fit.map_err(Denied::text)?;
            let job = Job {
                home: self.settings.home.clone(),
                program: effect.program.to_string(),
                verb,
                dialect: Dialect::of(&order, &effect.program),
                stateful: effect.head().timeout > 0,
                key_line: self.settings.limits.key_line,
                total: self.settings.limits.total,
                stdin_grace: self.settings.limits.stdin_grace,
                limits: self.settings.limits.of_script(),
                groups: self.settings.groups.clone(),
                bounds: self.settings.limits.of_group(),
            };
            Ok((job, fit))
        });
        let slots = if verb == Verb::Add { &self.adds } else { &self.undos };
        let process = slots.process(id);
        let inbox = self.inbox.clone();
        let spawned = job.and_then(|(job, fit)| {
            let work = move || {
                let report = job.run(fit, &process, |line, left| {
                    let (reply, answer) = std::sync::mpsc::channel();
                    inbox.send(Input::Keys { effect: id, line, prior: None, reply }).ok()?;
                    answer.recv_timeout(left).ok()
                });
                let _ = inbox.send(Input::Finished { effect: id, verb, report });
            };
            std::thread::Builder::new().name("script".into()).spawn(work).map_err(|error| error.to_string())
        });
        if let Err(why) = spawned {
            let report = Report::of(End::NotStarted(why));
            match verb {
                Verb::Add => self.add_finished(id, &report),
                Verb::Delete => self.delete_finished(id, &report),
            }
        }
    }

    fn free(&mut self, id: i64, verb: Verb) {
        match verb {
            _ if self.is_local(id) => self.running_locals = self.running_locals.saturating_sub(1),
            Verb::Add => self.adds.free(id),
            Verb::Delete => self.undos.free(id),
        }
    }

    /// A file told its keys: it goes on, gives way to an active effect, or waits for one that is on its way.
    pub(super) fn keys_told(
        &mut self,
        id: i64,
        line: &[u8],
        prior: Option<String>,
        reply: std::sync::mpsc::Sender<Answer>,
    ) {
        let Some(effect) = self.effects.get_mut(&id) else { return };
        // What was found first is what a revert restores.
        effect.prior = effect.prior.take().or(prior.map(String::into_boxed_str));
        let Some(effect) = self.effects.get(&id) else { return };
        let (key, keys) = script::entry_key(&effect.program, line);
        let addresses = keys.iter().filter_map(|key| key.parse().ok());
        if let Some(objection) = addresses.filter_map(|address| self.guard.objection(address)).next() {
            if let Some(effect) = self.effects.get_mut(&id) {
                effect.aborted = Some(Box::new(Aborted::Refused(objection)));
            }
            self.after.push(After::Answer(reply, Answer::Abort));
            return;
        }
        if effect.head().timeout == 0 && effect.local.is_none() {
            self.after.push(After::Answer(reply, Answer::Continue));
            return;
        }
        self.claim(id, key, reply);
    }

    fn claim(&mut self, id: i64, key: String, reply: std::sync::mpsc::Sender<Answer>) {
        let Some(effect) = self.effects.get(&id) else { return };
        match self.keys.get(&key).copied() {
            Some(holder) if holder != id && self.is(holder, State::Active) => {
                let asked = self.until(effect.head().timeout);
                self.move_end(holder, asked);
                let end = self.effects.get(&holder).and_then(|effect| effect.until);
                if let Some(effect) = self.effects.get_mut(&id) {
                    effect.aborted = Some(Box::new(Aborted::Active(end)));
                }
                self.after.push(After::Answer(reply, Answer::Abort));
            }
            Some(holder) if holder != id => {
                // Whether it must act depends on how the other one ends.
                self.parked.entry(key).or_default().push_back(Parked { effect: id, reply });
            }
            known => {
                let (length, until) = match known {
                    // Added again after a crash: the end it had stays.
                    Some(_) => (effect.length, effect.until),
                    None => {
                        let length = self.length(effect.head(), || key.clone());
                        (length, self.until(length))
                    }
                };
                if let Some(effect) = self.effects.get_mut(&id) {
                    effect.key = Some(key.clone().into_boxed_str());
                    effect.length = length;
                    effect.until = until;
                }
                self.keys.insert(key, id);
                self.note(id);
                self.after.push(After::Answer(reply, Answer::Continue));
            }
        }
    }

    /// A key came free or became active: those who wait for it are asked again, in order.
    fn unpark(&mut self, key: &str) {
        for parked in self.parked.remove(key).into_iter().flatten() {
            self.claim(parked.effect, key.to_owned(), parked.reply);
        }
    }

    /// An `add` run ended.
    pub(super) fn add_finished(&mut self, id: i64, report: &Report) {
        self.free(id, Verb::Add);
        self.crash(CrashPoint::AfterApplyBeforeCommit);
        for waiting in self.parked.values_mut() {
            waiting.retain(|parked| parked.effect != id);
        }
        self.parked.retain(|_, waiting| !waiting.is_empty());
        let now = self.now();
        let Some(effect) = self.effects.get_mut(&id) else { return };
        let key = effect.key.clone();
        let evidence = evidence(report);
        if let Some(held) = &report.held {
            (self.settings.log)(&format!("order {}: {}: {held}", effect.head().order, effect.program));
        }
        if let Some(aborted) = effect.aborted.take() {
            // The contract keeps no entry for a response without timeout and lets it go on.
            let endless = effect.head().timeout == 0;
            let (answer, last) = if endless { ("continue", "Ended") } else { ("abort", "Aborted") };
            self.log_local(id, "add", Some(answer), last);
            let Some(effect) = self.effects.get_mut(&id) else { return };
            let (kind, detail) = match *aborted {
                Aborted::Active(until) => {
                    effect.until = until;
                    (OutcomeKind::AlreadyActive, "already active, the later end holds".to_owned())
                }
                Aborted::Refused(objection) => (OutcomeKind::Refused, objection),
            };
            return self.close(id, kind, detail, evidence);
        }
        effect.head_mut().timings.mark(Stage::Applied, now);
        let (repair, told) = (effect.quiet, effect.told);
        match (report.succeeded(), &key) {
            (true, Some(_)) => {
                self.log_local(id, "add", Some("continue"), "Ended");
                self.say_repaired(id);
                self.script_active(id, evidence);
            }
            (true, None) => {
                self.log_local(id, "add", None, "Ended");
                let held = report.held.as_ref().map(|held| format!(", {held}")).unwrap_or_default();
                self.close(id, OutcomeKind::Applied, format!("ran, nothing to undo{held}"), evidence);
            }
            (false, Some(_)) if repair && told => self.not_repaired(id, &report.describe()),
            (false, _) => self.script_failed(id, report, evidence),
        }
        if let Some(key) = key {
            self.unpark(&key);
        }
        self.pump();
    }

    fn say_repaired(&mut self, id: i64) {
        if !self.reconciler.repaired(id) {
            return;
        }
        self.reconciler.over(id);
        self.reconciler.healed += 1;
        let Some(effect) = self.effects.get(&id) else { return };
        let subject = effect.subject().map(ToString::to_string).unwrap_or_default();
        let (program, subject) = (&effect.program, crate::log::escape(&subject));
        self.say(&format!(
            "the effect of {program} on {subject} was removed by somebody else and was put back; to lift it: \
             threatlockdown responses revert {subject}"
        ));
    }

    /// What could not be put back stays wanted and is tried again at the next look.
    fn not_repaired(&mut self, id: i64, why: &str) {
        self.reconciler.repaired(id);
        self.reconciler.failed(id);
        let now = self.clock.boot();
        if let Some(program) = self.effects.get(&id).map(|effect| std::sync::Arc::clone(&effect.program))
            && self.reconciler.may_tell(&format!("{program} {why}"), now)
        {
            let why = crate::log::escape(why);
            self.say(&format!(
                "ALARM: the effect of {program} was removed by somebody else and cannot be put back: {why}"
            ));
        }
        self.script_active(id, Evidence::default());
    }

    fn script_active(&mut self, id: i64, evidence: Evidence) {
        let Some(effect) = self.effects.get_mut(&id) else { return };
        effect.state = State::Active;
        effect.quiet = false;
        let (lifted, until, known) = (effect.lifted, effect.until, effect.told);
        let end = until.map(|Until { boot, .. }| boot);
        if let Some(due) = if lifted { Some(self.clock.boot()) } else { end } {
            self.scheduler.plan(id, due);
        }
        self.note(id);
        let Some(effect) = self.effects.get_mut(&id) else { return };
        if !known {
            effect.told = true;
            let detail = match effect.length {
                0 => "active without end".to_owned(),
                secs => format!("active for {secs} s"),
            };
            if let Some(effect) = self.effects.get(&id) {
                let outcome = self.outcome(effect, OutcomeKind::Applied, detail, evidence);
                self.tell(id, outcome);
            }
        }
    }

    /// A file that failed after it was told to continue may have done half: its `delete` runs once.
    fn script_failed(&mut self, id: i64, report: &Report, evidence: Evidence) {
        let Some(effect) = self.effects.get_mut(&id) else { return };
        let detail = report.describe();
        let kind = match report.end {
            End::TimedOut(_) => OutcomeKind::TimedOut,
            End::Ours(Err(Failure::Unsupported(_))) => OutcomeKind::Unsupported,
            End::Ours(Err(Failure::Refused(_))) => OutcomeKind::Refused,
            _ => OutcomeKind::Failed,
        };
        let program = effect.program.clone();
        (self.settings.log)(&format!("order {}: {program}: {detail}", effect.head().order));
        let cleanup = effect.key.is_some();
        if cleanup {
            effect.failed = true;
            effect.state = State::Reverting;
        }
        if self.is_local(id) {
            self.log_local(id, "add", cleanup.then_some("continue"), &format!("Failed: {detail}"));
        } else {
            self.log_line(&program, &detail);
        }
        if cleanup {
            self.note(id);
            self.queue_revert(id);
            if let Some(effect) = self.effects.get(&id) {
                let outcome = self.outcome(effect, kind, detail, evidence);
                self.tell(id, outcome);
            }
        } else {
            self.close(id, kind, detail, evidence);
        }
    }

    /// A file's effect is due, lifted, or its undo is to be tried again.
    pub(super) fn revert_script(&mut self, id: i64) {
        let Some(effect) = self.effects.get_mut(&id) else { return };
        match effect.state {
            State::Accepted if effect.lifted => {
                self.adds.forget(|waiting| waiting == id);
                self.waiting_locals.retain(|(waiting, _)| *waiting != id);
                self.close(
                    id,
                    OutcomeKind::Cancelled,
                    "withdrawn before it began".into(),
                    Evidence::default(),
                );
            }
            State::Active => {
                effect.state = State::Reverting;
                self.note(id);
                self.queue_revert(id);
            }
            // Its undo is under way, and what was to be done again behind it is not wanted any more.
            State::Reverting if effect.again && effect.lifted => effect.again = false,
            State::Reverting => self.queue_revert(id),
            // Still on its way: it is undone as soon as it is in place.
            _ => {}
        }
    }

    fn queue_revert(&mut self, id: i64) {
        if self.is_local(id) {
            if !self.waiting_locals.contains(&(id, Verb::Delete)) {
                self.waiting_locals.push_back((id, Verb::Delete));
            }
        } else if let Some(effect) = self.effects.get(&id) {
            self.undos.wait(&effect.program, id);
        }
    }

    /// A `delete` run ended.
    pub(super) fn delete_finished(&mut self, id: i64, report: &Report) {
        self.free(id, Verb::Delete);
        self.crash(CrashPoint::AfterRevert);
        let Some(effect) = self.effects.get_mut(&id) else { return };
        let key = effect.key.clone();
        if !report.succeeded() {
            let (program, detail) = (effect.program.clone(), report.describe());
            if effect.local.is_some() {
                self.log_local(id, "delete", None, &format!("Failed: {detail}"));
            } else {
                self.log_line(&program, &detail);
            }
        }
        let Some(effect) = self.effects.get_mut(&id) else { return };
        if effect.again {
            effect.again = false;
            effect.state = State::Accepted;
            self.adds.wait(&effect.program, id);
            self.note(id);
        } else if effect.failed {
            self.shut(id);
        } else if report.succeeded() {
            self.log_local(id, "delete", None, "Ended");
            self.count_block(id);
            let detail =
                if self.effects.get(&id).is_some_and(|effect| effect.lifted) { "lifted" } else { "ended" };
            self.close(id, OutcomeKind::Reverted, detail.into(), evidence(report));
        } else {
            self.revert_failed(id, report.describe(), evidence(report));
        }
        if let Some(key) = key {
            self.unpark(&key);
        }
        self.pump();
    }
}

fn evidence(report: &Report) -> Evidence {
    let stderr = (!report.stderr.is_empty()).then(|| report.stderr.clone());
    let read_back = if let End::Ours(Ok(proof)) = &report.end { Some(proof.clone()) } else { None };
    Evidence { read_back, exit_status: report.status(), stderr }
}

/// Room for files that add and for those that undo.
pub(super) fn room(limits: &Limits) -> (Slots, Slots) {
    let of = |slots, parked, memory| Slots::new(Room { slots, parked, memory });
    let few = limits.slow / 4;
    let memory = limits.slow_memory;
    (of(limits.concurrent, limits.slow, memory), of(limits.concurrent_reverts, few, memory / 4))
}
