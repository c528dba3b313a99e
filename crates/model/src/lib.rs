//! The words every room uses. No behaviour beyond construction, display and the contract's JSON shapes:
//! whatever decides, waits or touches the system lives in another room.

mod alert;
mod event;
mod id;
mod json;
mod message;
mod order;
mod outcome;
pub mod time;

pub use alert::{Alert, AlertRule, Frame, RuleTexts};
pub use event::{Agent, Event, QUEUE_LOCAL, QUEUE_SYSLOG, QUEUE_WINDOWS};
pub use id::{AgentId, OrderId, ParseId, RuleId};
pub use json::read_shallow;
pub use message::{ExecMessage, Origin, Parameters, RawJson};
pub use order::{Contract, Order, OrderOptions, Target};
pub use outcome::{Evidence, Outcome, OutcomeKind, Stage, Timings};
pub use time::{LocalTime, Timestamp, Zone};
