//! Heals what others removed from the firewall: a flush, a reload, a hand. Woken by the kernel's notifications where
//! there are any, else by a slow poll that also finds wrong leases.
//! Invariant: elements that keep being removed are put back ever more slowly, and said aloud.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::actions::{self, Subject};
use crate::executor::Executor;
use crate::kernel::Seen;
use crate::log::escape;

/// What the reconciler remembers.
#[derive(Debug, Default)]
pub(crate) struct Reconciler {
    last: Option<Duration>,
    pending: bool,
    heals: HashMap<Subject, VecDeque<Duration>>,
    unreachable: bool,
    alarmed: Option<Duration>,
    culprit: Option<String>,
    /// Elements put back since the start.
    pub(crate) healed: u64,
}

impl Reconciler {
    pub(crate) const fn is_pending(&self) -> bool {
        self.pending
    }

    /// Remembers who changed the firewall.
    pub(crate) fn culprit(&mut self, by: Option<String>) {
        self.culprit = by.or(self.culprit.take());
    }

    /// Whether an element may be put back now, which is then counted.
    pub(crate) fn may_heal(&mut self, subject: &Subject, now: Duration) -> bool {
        let times = self.heals.entry(subject.clone()).or_default();
        while times.front().is_some_and(|at| now.saturating_sub(*at) > MINUTE) {
            times.pop_front();
        }
        if times.len() >= MOST_HEALS {
            return false;
        }
        times.push_back(now);
        true
    }
}

impl Executor {
    /// Compares when somebody changed the firewall, and now and then anyway.
    pub(crate) fn reconcile(&mut self, changed: bool) {
        let now = self.boot();
        let slow = self.kernel_mut().map_or(Duration::MAX, |kernel| kernel.poll());
        let state = self.reconciler();
        state.pending |= changed;
        let since = state.last.map_or(Duration::MAX, |last| now.saturating_sub(last));
        if state.last.is_none() {
            state.last = Some(now);
        } else if (state.pending && since >= SETTLE) || since >= slow {
            let who = self
                .reconciler()
                .culprit
                .take()
                .map_or_else(|| "somebody else".into(), |by| format!("`{}`", escape(&by)));
            self.compare(&format!("{who} changed the firewall"));
        }
    }

    /// Lists once and restores what is missing or has a wrong end, in one batch.
    pub(crate) fn compare(&mut self, reason: &str) {
        let now = self.boot();
        let state = self.reconciler();
        state.last = Some(now);
        state.pending = false;
        let mut heal = Vec::new();
        let mut held_back = Vec::new();
        for (subject, id, seen, lease) in self.looked_at() {
            // An element that ends within the second was perhaps ended by the kernel itself.
            let wrong = match (seen, lease) {
                (Seen::Absent, Some(left)) => left >= Duration::from_secs(1),
                (Seen::Present(None), None) => false,
                (Seen::Present(Some(seen)), Some(left)) => seen.abs_diff(left) > TOLERANCE,
                _ => true,
            };
            if !wrong {
                continue;
            }
            if self.reconciler().may_heal(&subject, now) {
                heal.push((id, subject));
            } else {
                held_back.push(subject);
            }
        }
        self.restore(&heal, reason);
        let state = self.reconciler();
        state.heals.retain(|_, times| times.back().is_some_and(|at| now.saturating_sub(*at) <= MINUTE));
        let quiet = state.alarmed.is_none_or(|at| now.saturating_sub(at) >= MINUTE);
        if let Some(first) = held_back.first()
            && quiet
        {
            state.alarmed = Some(now);
            let count = held_back.len();
            self.say(&format!(
                "ALARM: {first} ({count} in all) was removed from the firewall more than {MOST_HEALS} times a minute \
                 because {reason}; put back at a slower pace"
            ));
        }
    }

    /// Each subject that must be held, with its effect, what is there and the wanted lease.
    fn looked_at(&mut self) -> Vec<(Subject, i64, Seen, Option<Duration>)> {
        let mut found = Vec::new();
        for action in actions::REGISTRY {
            let desired = self.desired(*action);
            let subjects: Vec<Subject> = desired.iter().map(|(subject, ..)| subject.clone()).collect();
            let Some(kernel) = self.kernel_mut() else { return found };
            let leased = kernel.keeps_leases();
            match action.verify(kernel, &subjects) {
                Ok(seen) => {
                    self.reconciler().unreachable = false;
                    let both = desired.into_iter().zip(seen);
                    found.extend(
                        both.map(|((subject, id, lease), seen)| {
                            (subject, id, seen, lease.filter(|_| leased))
                        }),
                    );
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.reconciler().unreachable, true) {
                        self.say(&format!("ALARM: the firewall cannot be read: {}", escape(&error)));
                    }
                }
            }
        }
        found
    }

    fn restore(&mut self, heal: &[(i64, Subject)], reason: &str) {
        if heal.is_empty() {
            return;
        }
        let ids: Vec<i64> = heal.iter().map(|(id, _)| *id).collect();
        let results = self.enforce(&ids);
        let mut done = 0_u64;
        for (id, subject) in heal {
            match results.get(id) {
                Some(Ok(_)) => done += 1,
                Some(Err(why)) => {
                    self.say(&format!("ALARM: {subject} cannot be blocked again: {}", escape(why)));
                }
                None => {}
            }
        }
        self.reconciler().healed += done;
        let shown: Vec<String> = heal.iter().take(5).map(|(_, subject)| subject.to_string()).collect();
        self.say(&format!(
            "{done} of {} blocks put back ({}{}) because {reason}; to lift one: threatlockdown responses revert ADDRESS",
            heal.len(),
            shown.join(", "),
            if heal.len() > shown.len() { ", …" } else { "" }
        ));
    }
}

/// Time that a burst of notifications gets to settle.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);
const TOLERANCE: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
const MOST_HEALS: usize = 5;
