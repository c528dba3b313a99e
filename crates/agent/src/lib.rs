//! The endpoint: the responder as a service of its own, beside whatever else brings it requests.
//!
//! Invariant: nothing here judges whether an attack took place; requests are checked, ordered and carried out.

pub mod multicall;
pub mod responder;
