//! Lifting effects when no responder runs: the journal is opened under its lock, replayed as at any start, and what
//! was asked for is undone.

use std::sync::mpsc::channel;
use std::time::Duration;

use tld_model::{Outcome, OutcomeKind};

use crate::{Responder, RevertSelector, Setup, StartError};

/// The revert did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The responder's parts are not to be had; while the service runs it must be asked instead.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Undoes what `selector` names and returns the outcomes. Waits at most the scripts' total time.
///
/// # Errors
/// When the journal or the firewall cannot be opened.
pub fn revert_offline(setup: Setup, selector: RevertSelector) -> Result<Vec<Outcome>, OfflineError> {
    let patience = setup.limits.total + Duration::from_secs(5);
    let (sender, outcomes) = channel();
    let responder = Responder::start(setup, sender)?;
    let wanted = responder.active().into_iter().filter(|effect| match &selector {
        RevertSelector::Order(order) => effect.order == *order,
        RevertSelector::Address(address) => {
            effect.target == tld_model::Target::Address(*address)
                || effect.key.ends_with(&format!("-{address}"))
        }
        RevertSelector::Target(target) => {
            effect.target.to_string() == *target || effect.key.ends_with(&format!("-{target}"))
        }
        RevertSelector::All => true,
    });
    let mut open: Vec<_> = wanted.map(|effect| effect.order).collect();
    responder.revert(selector);
    let mut told = Vec::new();
    while !open.is_empty() {
        let Ok(outcome) = outcomes.recv_timeout(patience) else { break };
        if matches!(outcome.kind, OutcomeKind::Reverted | OutcomeKind::RevertFailed) {
            open.retain(|order| *order != outcome.order);
            told.push(outcome);
        }
    }
    responder.stop();
    Ok(told)
}
