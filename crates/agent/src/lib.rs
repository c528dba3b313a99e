//! The endpoint: it collects, sends to a manager, and carries out what the manager orders. [`service`] is all of it,
//! [`responder`] only the last part, beside whatever else brings requests.
//!
//! Invariant: nothing here judges whether an attack took place; requests are checked, ordered and carried out.

pub mod enrol;
mod identity;
mod key;
pub mod multicall;
pub mod responder;
pub mod service;
pub mod spool;
mod uplink;
