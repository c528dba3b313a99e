//! Outcomes that the manager has not confirmed.
//! Invariant: each is told again on every connection, and from time to time, until it is confirmed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tld_model::{OrderId, Outcome, OutcomeKind};
use tld_wire::control::FromAgent as Message;
use tld_wire::extension::FromAgent;

/// More than a responder has orders; what is beyond stays in the journal, and a restart tells it.
const MOST: usize = 300_000;
/// Told in one go; the rest follows with the next round.
const ROUND: usize = 2000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(Mutex<BTreeMap<(OrderId, &'static str), Outcome>>);

impl Outcomes {
    /// Keeps an outcome and answers its message.
    pub(crate) fn add(&self, outcome: Outcome) -> Vec<u8> {
        let message = message(&outcome);
        let mut pending = self.lock();
        if pending.len() < MOST {
            pending.insert((outcome.order.clone(), outcome.kind.name()), outcome);
        }
        message
    }

    /// The manager has stored it.
    pub(crate) fn confirmed(&self, order: &OrderId, kind: OutcomeKind) {
        self.lock().remove(&(order.clone(), kind.name()));
    }

    /// The messages for what is not confirmed.
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        self.lock().values().take(ROUND).map(message).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(OrderId, &'static str), Outcome>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message that an order lies in the journal.
pub(crate) fn received(order: OrderId) -> Vec<u8> {
    Message::Extension(FromAgent::Received { order }).to_bytes()
}

fn message(outcome: &Outcome) -> Vec<u8> {
    Message::Extension(FromAgent::Outcome(Box::new(outcome.clone()))).to_bytes()
}
