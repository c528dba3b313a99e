//! What agents and managers say to each other: sealed messages, framing, counters, enrolment, control messages,
//! events, shared files. Pure: sockets, clocks and randomness belong to the callers.
//! Invariant: whatever the bytes are, parsing ends with a value or an error, within the limits named here.

pub mod ar;
pub mod control;
pub mod counter;
pub mod enrol;
pub mod event;
pub mod extension;
pub mod frame;
pub mod inflate;
pub mod key;
pub mod merged;
pub mod name;
pub mod seal;
pub mod session;
pub mod version;
