//! The manager's side of one agent's connection.
//! Invariant: a connection is bound to its agent by a control message only, so an event never opens a way back.

use tld_model::{ExecMessage, OrderId, Outcome};

use crate::control::{FromAgent, FromManager, KeepAlive, QueryId};
use crate::extension::{self, Hello, Ticket};
use crate::version::Version;

/// What is to be done about a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Seal and send this payload.
    Send(Vec<u8>),
    /// From now on this connection is the agent's.
    Bind,
    /// The agent is there, but has not told its state.
    Pending,
    /// The agent was refused for its version.
    Refused,
    /// The agent is active; compare its sums with its group's.
    Active(Box<KeepAlive>),
    /// The agent has left.
    Left,
    /// An event of the agent.
    Event(Vec<u8>),
    /// An answer to a query.
    Answer(QueryId, Vec<u8>),
    /// An order lies in the agent's journal.
    Received(OrderId),
    /// An outcome; to be confirmed with [`Session::confirm`] once it is stored.
    Outcome(Box<Outcome>),
    /// The message is not understood; to be logged.
    Ignored(Vec<u8>),
}

/// A connection, or for UDP the agent itself.
#[derive(Debug, Clone)]
pub struct Session {
    manager: Version,
    allow_higher_versions: bool,
    bound: bool,
    version: Option<Version>,
    extension: Option<u32>,
}

impl Session {
    /// A fresh one, of a manager with those settings.
    pub const fn new(manager: Version, allow_higher_versions: bool) -> Self {
        Self { manager, allow_higher_versions, bound: false, version: None, extension: None }
    }

    /// The agent's version, once it was told.
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// Whether the agent confirms orders.
    pub const fn confirms(&self) -> bool {
        self.extension.is_some()
    }

    /// Takes an opened payload.
    pub fn on_payload(&mut self, payload: &[u8]) -> Vec<Step> {
        let Some(message) = FromAgent::parse(payload) else { return vec![Step::Event(payload.to_vec())] };
        let mut steps = Vec::new();
        let is_known = !matches!(message, FromAgent::Unknown(_));
        if is_known && !self.bound {
            self.bound = true;
            steps.push(Step::Bind);
        }
        match message {
            FromAgent::Startup(startup) => {
                let answer = startup.answer(self.manager, self.allow_higher_versions);
                let accepted = answer == FromManager::Ack;
                self.version = startup.version();
                self.extension =
                    startup.hello().filter(|_| accepted).and_then(|hello| hello.agreed(Hello::default()));
                steps.push(Step::Send(answer.to_bytes()));
                if let Some(protocol) = self.extension {
                    let hello = extension::FromManager::Hello(Hello { protocol });
                    steps.push(Step::Send(FromManager::Extension(hello).to_bytes()));
                }
                steps.push(if accepted { Step::Pending } else { Step::Refused });
            }
            FromAgent::KeepAlive(alive) => {
                let told = alive.product.as_deref().and_then(|product| product.parse().ok());
                self.version = told.or(self.version);
                steps.push(Step::Send(FromManager::Ack.to_bytes()));
                steps.push(Step::Active(Box::new(alive)));
            }
            FromAgent::Shutdown => steps.push(Step::Left),
            FromAgent::Answer { id, text } => steps.push(Step::Answer(id, text)),
            FromAgent::QueryReceived(_) => {}
            FromAgent::Extension(message) if self.extension.is_some() => steps.push(match message {
                extension::FromAgent::Received { order } => Step::Received(order),
                extension::FromAgent::Outcome(outcome) => Step::Outcome(outcome),
            }),
            FromAgent::Extension(_) => steps.push(Step::Ignored(payload.to_vec())),
            FromAgent::Unknown(text) => steps.push(Step::Ignored(text)),
        }
        steps
    }

    /// The payload that carries an order as JSON; the ticket goes along only to agents that can read it. For agents
    /// before 4.2.5 see [`Form`](crate::ar::Form).
    ///
    /// # Errors
    /// When the message does not encode.
    pub fn order(&self, message: &ExecMessage, ticket: &Ticket) -> Result<Vec<u8>, serde_json::Error> {
        let json = match self.extension {
            Some(_) => extension::with_ticket(message, ticket)?,
            None => message.to_line()?,
        };
        Ok(FromManager::Execd(json.into_bytes()).to_bytes())
    }

    /// The payload that confirms a stored outcome; `None` for agents that do not report any.
    pub fn confirm(&self, outcome: &Outcome) -> Option<Vec<u8>> {
        self.extension?;
        let confirmed =
            extension::FromManager::Confirmed { order: outcome.order.clone(), kind: outcome.kind };
        Some(FromManager::Extension(confirmed).to_bytes())
    }
}
