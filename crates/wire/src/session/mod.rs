//! Connections as state machines. They take opened payloads and the time, and say what is to be done; sockets, keys,
//! counters and files are their owners'.
//! Invariant: nothing of our extension is said or believed before both sides have declared it.

pub mod agent;
pub mod manager;

#[cfg(test)]
mod tests;
