//! What operators ask for. Invariant: a wish that concerns a million effects is carried out in pieces, between orders.

use tld_model::{OrderId, Target};
use tld_sys::nft::Spot;

use super::{Effect, Executor, Head};
use crate::control::{Reply, Status};
use crate::journal::State;
use crate::{ActiveEffect, RevertSelector};

impl Executor {
    /// Which orders are concerned; their number alone where they are too many for one message.
    pub(super) fn taken(&self, ids: &[i64]) -> Reply {
        if ids.len() > MOST_NAMED {
            return Reply::Many(ids.len());
        }
        let named = ids.iter().filter_map(|id| match &self.effects.get(id)?.head {
            Some(head) => Some(head.order.clone()),
            None => self.journal.order(*id).ok().map(|order| order.id),
        });
        Reply::Taken(named.collect())
    }

    /// Moves ends out by an operator's hand.
    pub(super) fn extend_by_hand(&mut self, selector: &RevertSelector, secs: u64) -> Vec<i64> {
        let mut chosen = self.chosen(selector);
        chosen.retain(|id| self.is(*id, State::Active));
        let asked = self.until(secs);
        for id in &chosen {
            self.move_end(*id, asked);
        }
        self.commit();
        for (id, result) in self.enforce(&chosen, false) {
            if let Err(why) = result {
                self.say(&format!("ALARM: the new end of effect {id} is not in the firewall: {why}"));
            }
        }
        chosen
    }

    pub(super) fn pause(&mut self, paused: bool) -> Reply {
        match crate::control::mark_paused(&self.settings.home, paused) {
            Ok(()) => {
                self.paused = paused;
                let word = if paused { "paused" } else { "resumed" };
                self.say(&format!("responses are {word} by an operator"));
                if !paused {
                    self.look_due = None;
                    if self.kernel.is_some() {
                        self.begin_round("responses were resumed".into(), true);
                    }
                }
                Reply::Taken(Vec::new())
            }
            Err(error) => Reply::Refused(format!("the pause cannot be recorded: {error}")),
        }
    }

    /// Marks effects as lifted; they are undone as if they were due.
    pub(super) fn select(&mut self, selector: &RevertSelector) -> Vec<i64> {
        let chosen = self.chosen(selector);
        let now = self.boot();
        for id in &chosen {
            if let Some(effect) = self.effects.get_mut(id) {
                effect.lifted = true;
                self.scheduler.plan(*id, now);
            }
        }
        chosen
    }

    pub(super) fn status(&self) -> Status {
        let desired = self.effects.values().filter(|effect| effect.state == State::Active).count();
        let stuck =
            self.effects.values().filter(|effect| effect.state == State::Reverting && effect.attempts > 0);
        let running = self.adds.busy() + self.undos.busy() + self.running_locals;
        let waiting = self.adds.waiting() + self.undos.waiting() + self.waiting_locals.len();
        Status {
            desired,
            enforced: desired.saturating_sub(self.reconciler.missing()),
            healed: self.reconciler.healed,
            failed: self.reconciler.heal_failed + self.failed_reverts,
            stuck: stuck.count(),
            waiting: waiting + running,
            paused: self.paused,
            journal: self.unwritable.as_ref().map(|(why, _)| why.clone()),
            firewall: self.settings.unable.as_ref().map(ToString::to_string),
        }
    }

    /// The effect of an order, while it is not closed.
    pub(super) fn open(&self, order: &OrderId) -> Option<i64> {
        let journaled = self.journal.id_of(order).unwrap_or_default();
        let id = journaled.or_else(|| self.unwritten.get(order).copied())?;
        self.effects.contains_key(&id).then_some(id)
    }

    fn chosen(&self, selector: &RevertSelector) -> Vec<i64> {
        match selector {
            RevertSelector::Order(order) => self.open(order).into_iter().collect(),
            RevertSelector::Address(address) => {
                let address = address.to_canonical();
                let all = Spot { address, port: None }..=Spot { address, port: Some(u16::MAX) };
                let blocks = self.spots.range(all).flat_map(|(_, holders)| holders.ids().iter().copied());
                let about = |effect: &Effect| {
                    effect.subject().map_or_else(
                        || effect.head().target == Target::Address(address),
                        |subject| subject.address() == Some(address),
                    )
                };
                let others = self.others.iter().copied();
                let others = others.filter(|id| self.effects.get(id).is_some_and(|effect| about(effect)));
                blocks.chain(others).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
            }
            RevertSelector::Target(target) => {
                let about = |effect: &Effect| {
                    let local = effect.local.as_deref().map(|(_, subject)| subject.to_string());
                    local.as_ref() == Some(target) || effect.head().target.to_string() == *target
                };
                let others = self.others.iter().copied();
                others.filter(|id| self.effects.get(id).is_some_and(|effect| about(effect))).collect()
            }
            RevertSelector::All => self.effects.keys().copied().collect(),
        }
    }

    pub(super) fn active(&self) -> Vec<ActiveEffect> {
        let _reading = self.journal.reading();
        let mut active: Vec<_> = self
            .effects
            .values()
            .filter(|effect| matches!(effect.state, State::Active | State::Reverting))
            .map(|effect| {
                let stored = || self.journal.order(effect.id).ok().map(|order| Head::from(&order));
                let head = effect.head.as_deref().cloned().or_else(stored);
                (effect, head.unwrap_or_else(|| effect.head().clone()))
            })
            .map(|(effect, head)| ActiveEffect {
                order: head.order,
                response: head.response,
                program: effect.program.to_string(),
                key: effect.full_key().unwrap_or_default(),
                target: head.target,
                state: effect.state,
                until: effect.until.map(|until| until.wall),
            })
            .collect();
        active.sort_by(|one, other| one.order.cmp(&other.order));
        active
    }
}

/// Orders that are named in one reply.
const MOST_NAMED: usize = 1_000;
