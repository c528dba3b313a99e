//! The seam between the agents' channel and the dispatch of orders: what dispatch asks of the channel ([`Reach`]), and what
//! the channel tells dispatch ([`Attendant`]). Neither knows the other's insides, so each is tested with a plain stand-in.
//! Invariant: no call waits for the network, a disk or an agent.

use std::sync::Arc;

use tld_model::{AgentId, ExecMessage, OrderId, Outcome, Timings};
use tld_wire::extension::Ticket;

use crate::registry::Agent;

/// How a message to an agent was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// The agent confirms orders and reports outcomes itself.
    Confirming,
    /// A peer of the plain contract: its outcome is read from the lines of `active-responses.log` that it forwards.
    Plain,
}

/// A message was not queued for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    /// There is no live connection; the order waits for the next one.
    #[error("the agent is not connected")]
    Away,
    /// Its queue is full: it reads nothing, or more slowly than it is sent to.
    #[error("the agent's queue is full")]
    Full,
    /// Agents of that version cannot carry out this order (wire 4: before 4.2.5 a fixed list of names).
    #[error("an agent of this version knows no such response")]
    TooOld,
    /// The message does not encode.
    #[error("the order cannot be encoded")]
    Encode,
}

/// The way to agents, as dispatch sees it.
pub trait Reach: Send + Sync {
    /// Seals an order for the agent's live connection and queues it there.
    ///
    /// # Errors
    /// When it was not queued; it may be given again, since its id makes that harmless.
    fn order(&self, agent: AgentId, message: &ExecMessage, ticket: &Ticket) -> Result<Queued, ReachError>;

    /// Seals a payload of the contract as it is (`#!-execd …`, `#!-force_reconnect`) and queues it: what other tools of this
    /// host send to an agent (wire 5.1).
    ///
    /// # Errors
    /// When it was not queued.
    fn relay(&self, agent: AgentId, payload: &[u8]) -> Result<Queued, ReachError>;

    /// Tells the agent that an outcome of it is stored.
    ///
    /// # Errors
    /// When it was not queued; the agent will report the outcome again.
    fn confirm(&self, agent: AgentId, outcome: &Outcome) -> Result<(), ReachError>;

    /// Withdraws an order: not applied yet, it never will be; in force, it is undone. Only agents that confirm understand it.
    ///
    /// # Errors
    /// When it was not queued.
    fn cancel(&self, agent: AgentId, order: &OrderId) -> Result<(), ReachError>;
}

/// Who is told what agents do; called on the channel's threads.
pub trait Attendant: Send + Sync {
    /// An agent has told its state on a fresh connection (its first keep-alive after the start-up handshake): orders that
    /// wait for it can go.
    fn ready(&self, agent: &Arc<Agent>, confirms: bool);

    /// Its connection is gone.
    fn gone(&self, agent: AgentId);

    /// The order lies in the agent's journal.
    fn received(&self, agent: AgentId, order: &OrderId);

    /// An agent reports what became of an order. The implementation stores it and then calls [`Reach::confirm`].
    fn outcome(&self, agent: AgentId, outcome: Outcome);

    /// When an order left towards the agent, for the latency figures.
    fn sent(&self, _agent: AgentId, _order: &OrderId, _timings: Timings) {}
}
