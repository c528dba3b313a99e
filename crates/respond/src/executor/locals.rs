//! Effects of our own actions outside the firewall: each runs in a thread of its own like a file, because files and
//! tools may be slow, and answers through the same inputs. What it found before it changed anything is durable before
//! it may go on.
//! Invariant: only this thread decides that something is put back, so that no undo is overtaken by a repair.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, channel};
use std::time::Duration;

use tld_model::{Order, OutcomeKind};
use tld_sys::watch::Watcher;

use super::intake::Exchanged;
use super::{Executor, Input, State, check_keys_line};
use crate::CrashPoint;
use crate::actions::{Call, Failure, Local, Subject};
use crate::journal::Kind;
use crate::log::escape;
use crate::script::{self, Answer, End, Report, Verb};

/// One run of an action.
struct Job {
    action: &'static dyn Local,
    call: Call,
    subject: Subject,
    program: String,
    verb: Verb,
    prior: Option<String>,
}

impl Job {
    /// `ask` makes the found state durable and tells whether to go on; none when nobody answers.
    fn run(&self, ask: impl FnOnce(Vec<u8>, &str) -> Option<Answer>) -> Result<String, Failure> {
        if self.verb == Verb::Delete {
            return match &self.prior {
                Some(prior) => self.action.revert(&self.call, &self.subject, prior),
                None => Ok("it had not begun".into()),
            };
        }
        if !self.action.lasts() {
            return self.action.apply(&self.call, &self.subject, "");
        }
        let prior = match &self.prior {
            Some(prior) => prior.clone(),
            None => self.action.prior(&self.call, &self.subject)?,
        };
        let keys = check_keys_line(&self.program, &self.subject.to_string());
        match ask(keys.into_bytes(), &prior) {
            Some(Answer::Continue) => self.action.apply(&self.call, &self.subject, &prior),
            Some(Answer::Abort) => Ok("not needed".into()),
            None => Err(Failure::Failed("the responder did not answer".into())),
        }
    }
}

impl Executor {
    pub(super) fn admit_local(
        &mut self,
        order: &Order,
        row: Option<i64>,
        program: &str,
        action: &'static dyn Local,
    ) {
        let subject = match action.subject(&self.call(order, program)) {
            Ok(subject) => subject,
            Err(text) => {
                self.log_exchange(order, program, "add", &[], &text);
                return self.decline(order, row, program, OutcomeKind::Failed, text);
            }
        };
        if let Some(objection) = subject.address().and_then(|address| self.guard.objection(address)) {
            self.log_line(program, &format!("Refused: {objection}"));
            return self.decline(order, row, program, OutcomeKind::Refused, objection);
        }
        if let Some(reason) = self.settings.dry_run.clone() {
            let detail = format!("would act on {subject} for {} s; {reason}", order.timeout_secs);
            self.log_line(program, &format!("Dry run: {detail}"));
            return self.decline(order, row, program, OutcomeKind::DryRun, detail);
        }
        if self.waiting_locals.len() >= self.settings.limits.queue {
            let detail = format!("{} actions wait already", self.waiting_locals.len());
            return self.decline(order, row, program, OutcomeKind::Failed, detail);
        }
        let mut effect = self.effect(order, row, program);
        effect.length = order.timeout_secs;
        if effect.head().target == tld_model::Target::None {
            effect.head_mut().target = subject.target();
        }
        effect.local = Some(Box::new((action, subject)));
        self.waiting_locals.push_back((effect.id, Verb::Add));
        self.enter(order, row, effect, Kind::Action);
    }

    pub(super) fn call(&self, order: &Order, program: &str) -> Call {
        Call {
            home: self.settings.home.clone(),
            places: self.settings.places.clone().reaching(self.guard.reach()),
            name: program.rsplit('/').next().unwrap_or(program).into(),
            alert: script::alert(&order.alert),
            extra_args: order.extra_args.clone(),
            created: order.created,
        }
    }

    pub(super) fn is_local(&self, id: i64) -> bool {
        self.effects.get(&id).is_some_and(|effect| effect.local.is_some())
    }

    /// Gives free slots to waiting actions.
    pub(super) fn pump_locals(&mut self) {
        while self.running_locals < SLOTS {
            let Some((id, verb)) = self.waiting_locals.pop_front() else { break };
            let Some(effect) = self.effects.get_mut(&id) else { continue };
            if verb == Verb::Add {
                effect.state = State::Applying;
                self.note(id);
            }
            self.running_locals += 1;
            self.after.push(super::After::Start(id, verb));
        }
    }

    pub(super) fn start_local(&mut self, id: i64, verb: Verb) {
        self.crash(if verb == Verb::Add { CrashPoint::BeforeApply } else { CrashPoint::WhileReverting });
        let order = self.journal.order(id).map_err(|error| error.to_string());
        let Some(effect) = self.effects.get(&id) else {
            self.running_locals = self.running_locals.saturating_sub(1);
            return;
        };
        let Some((action, subject)) = effect.local.as_deref().cloned() else { return };
        let job = order.map(|order| Job {
            action,
            call: self.call(&order, &effect.program),
            subject,
            program: effect.program.to_string(),
            verb,
            prior: effect.prior.as_deref().map(str::to_owned),
        });
        let inbox = self.inbox.clone();
        let patience = self.settings.limits.total;
        let spawned = job.and_then(|job| {
            let work = move || {
                let ended = job.run(|line, prior| {
                    let (reply, answer) = channel();
                    let prior = Some(prior.to_owned());
                    inbox.send(Input::Keys { effect: id, line, prior, reply }).ok()?;
                    answer.recv_timeout(patience).ok()
                });
                let report = Report::of(End::Ours(ended));
                let _ = inbox.send(Input::Finished { effect: id, verb, report });
            };
            std::thread::Builder::new().name("action".into()).spawn(work).map_err(|error| error.to_string())
        });
        if let Err(why) = spawned {
            let report = Report::of(End::Ours(Err(Failure::Failed(why))));
            match verb {
                Verb::Add => self.add_finished(id, &report),
                Verb::Delete => self.delete_finished(id, &report),
            }
        }
    }

    /// The lines of one run, once it is over.
    pub(super) fn log_local(&mut self, id: i64, verb: &str, answer: Option<&'static str>, last: &str) {
        let Some(effect) = self.effects.get(&id).filter(|effect| !effect.quiet) else { return };
        let (Some((action, subject)), Ok(order)) = (effect.local.as_deref(), self.journal.order(id)) else {
            return;
        };
        let (program, key, lasts) = (effect.program.clone(), subject.to_string(), action.lasts());
        let exchanged: Vec<Exchanged<'_>> = match answer.filter(|_| lasts) {
            Some(answer) => vec![Exchanged::CheckKeys(&key), Exchanged::Answer(answer)],
            None => Vec::new(),
        };
        self.log_exchange(&order, &program, verb, &exchanged, &escape(last));
    }

    /// Looks at all local effects now and then, and at once when something stirred; in a thread, since looking may
    /// take as long as acting.
    pub(super) fn look_at_locals(&mut self) {
        let now = self.clock.boot();
        if self.looking || self.look_due.is_some_and(|due| now < due) || self.settings.dry_run.is_some() {
            return;
        }
        let active = |id: &i64| {
            let effect = self.effects.get(id).filter(|effect| effect.state == State::Active);
            effect.is_some_and(|effect| effect.local.is_some())
        };
        let ids: Vec<i64> = self.others.iter().copied().filter(active).collect();
        // Many effects cost much to look at: then more rarely, so that orders never wait for it.
        let many = EACH * u32::try_from(ids.len()).unwrap_or(u32::MAX);
        self.look_due = Some(now + LOOK.max(many));
        let mut looks = Vec::new();
        for id in ids {
            let Some(effect) = self.effects.get(&id) else { continue };
            let (Some((action, subject)), Ok(order)) =
                (effect.local.as_deref().cloned(), self.journal.order(id))
            else {
                continue;
            };
            let prior = effect.prior.as_deref().unwrap_or_default().to_owned();
            looks.push((id, action, subject, self.call(&order, &effect.program), prior));
        }
        if looks.is_empty() {
            return;
        }
        let inbox = self.inbox.clone();
        let work = move || {
            let look = |(id, action, subject, call, prior): (i64, &dyn Local, Subject, Call, String)| {
                (id, action.verify(&call, &subject, &prior).map_err(|failure| failure.to_string()))
            };
            let _ = inbox.send(Input::Looked(looks.into_iter().map(look).collect()));
        };
        self.looking = std::thread::Builder::new().name("look".into()).spawn(work).is_ok();
    }

    /// Puts back what is gone. An effect that moved on since the look is left alone.
    pub(super) fn looked(&mut self, found: &[(i64, Result<bool, String>)]) {
        self.looking = false;
        let now = self.clock.boot();
        let mut why: HashMap<String, usize> = HashMap::new();
        let mut held_back: HashMap<String, (String, usize)> = HashMap::new();
        for (id, seen) in found {
            let Some(effect) = self.effects.get_mut(id).filter(|effect| effect.state == State::Active) else {
                continue;
            };
            match seen {
                Ok(true) => self.reconciler.over(*id),
                Err(text) => *why.entry(text.clone()).or_default() += 1,
                Ok(false) => {
                    let Some((_, subject)) = effect.local.as_deref().cloned() else { continue };
                    let program = Arc::clone(&effect.program);
                    if !self.reconciler.may_heal(&subject, now) {
                        self.reconciler.held_back(*id);
                        let first = || (subject.to_string(), 0);
                        held_back.entry(program.to_string()).or_insert_with(first).1 += 1;
                        continue;
                    }
                    if let Some(effect) = self.effects.get_mut(id) {
                        effect.quiet = true;
                        effect.state = State::Applying;
                    }
                    self.note(*id);
                    self.reconciler.repair(*id);
                    self.waiting_locals.push_back((*id, Verb::Add));
                }
            }
        }
        for (program, (first, count)) in held_back {
            if self.reconciler.may_tell(&format!("removed {program}"), now) {
                self.say(&format!(
                    "ALARM: the effect of {program} on {first} ({count} in all) is removed again and again, or cannot \
                     be put back; tried at a slower pace"
                ));
            }
        }
        for (text, count) in why {
            if self.reconciler.may_tell(&format!("look {text}"), now) {
                self.say(&format!("ALARM: {count} effects cannot be looked at: {}", escape(&text)));
            }
        }
        self.pump_locals();
        self.finish_step();
    }
}

/// Starts the thread that tells when the list of denied hosts is changed or replaced. Without it the slow look remains.
pub(crate) fn watch(
    file: &Path,
    inbox: SyncSender<Input>,
    ended: Arc<AtomicBool>,
) -> Option<std::thread::JoinHandle<()>> {
    let mut watcher = Watcher::new().ok()?;
    watcher.add_dir(file.parent()?).ok()?;
    let work = move || {
        while !ended.load(Ordering::SeqCst) {
            if !matches!(watcher.wait(&[], Duration::from_millis(500)), Ok((true, _))) {
                continue;
            }
            // Which file of the directory it was hardly matters: a look is cheap.
            let Ok(events) = watcher.read_events() else { return };
            if !events.is_empty() && inbox.send(Input::LocalChanged).is_err() {
                return;
            }
            std::thread::sleep(SETTLE);
        }
    };
    std::thread::Builder::new().name("files-watch".into()).spawn(work).ok()
}

const SLOTS: usize = 32;
/// A busy directory causes no more looks than this.
const SETTLE: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_secs(5);
const EACH: Duration = Duration::from_millis(5);
