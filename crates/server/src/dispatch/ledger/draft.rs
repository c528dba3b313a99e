//! An order before it has an endpoint: what all orders that answer one alert with one response have in common.
//! Invariant: the id of the order for an agent follows from draft and agent, so that making it twice makes it once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tld_model::{AgentId, ExecMessage, Order, OrderId, Timestamp};
use tld_model::{Origin, Parameters};

use crate::registry::Agent;

/// How long a response without an end is worth sending to an agent that was away.
const STATELESS: Duration = Duration::from_secs(600);

/// Whom a draft is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// One endpoint; `000` is the manager's own responder.
    One(u32),
    /// Every agent that is connected within the response's life.
    All {
        /// In one of these groups, unless there are none.
        groups: Vec<String>,
        /// With all of these labels.
        labels: Vec<(String, String)>,
    },
}

impl Audience {
    /// Whether that agent is meant.
    pub fn includes(&self, agent: &Agent) -> bool {
        match self {
            Self::One(id) => agent.id.0 == *id,
            Self::All { groups, labels } if groups.is_empty() && labels.is_empty() => true,
            Self::All { groups, labels } => {
                let known = agent.activity();
                let in_group = groups.is_empty() || known.groups.iter().any(|group| groups.contains(group));
                in_group && labels.iter().all(|label| known.labels.contains(label))
            }
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Draft {
    /// The order; its id is the one for an audience of one.
    pub order: Order,
    /// Whom it is for.
    pub audience: Audience,
    /// Who gives it, as the contract's message says.
    pub origin: Origin,
    /// The text as another tool wrote it, for peers that are to get those very bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verbatim: Option<String>,
}

impl Draft {
    /// The last moment at which it may be applied: the end of its effect, or where there is none ten minutes.
    pub fn deadline(&self) -> Timestamp {
        self.order.created.plus(self.life())
    }

    /// How long it is worth sending.
    pub fn life(&self) -> Duration {
        match self.order.timeout_secs {
            0 => STATELESS,
            seconds => Duration::from_secs(seconds),
        }
    }

    /// The id of the order for that endpoint.
    pub fn id_for(&self, agent: AgentId) -> OrderId {
        match self.audience {
            Audience::One(_) => self.order.id.clone(),
            Audience::All { .. } => OrderId(format!("{}-{agent}", self.order.id)),
        }
    }

    /// The contract's message.
    pub fn message(&self) -> ExecMessage {
        ExecMessage {
            version: 1,
            origin: self.origin.clone(),
            command: self.order.response.clone(),
            parameters: Parameters {
                extra_args: self.order.extra_args.clone(),
                alert: self.order.alert.clone(),
                program: None,
            },
        }
    }
}
