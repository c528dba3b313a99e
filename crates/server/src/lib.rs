//! The manager. Its pipeline takes events, asks the rules and the policy, sends orders and writes outputs. Standalone is the
//! same pipeline with the endpoint in the same house.
//!
//! Start-up, in order: the home's tree ([`home`]), configuration and ruleset (with every error shown at once), state of earlier
//! runs, outputs, then the pipeline. Nothing is started when anything of the first three fails.

pub mod channel;
pub mod dispatch;
pub mod enrol;
mod framed;
pub mod home;
pub mod intake;
pub mod lanes;
pub mod load;
mod local;
pub mod log;
pub mod logtest;
pub mod logtime;
pub mod manager;
pub mod output;
pub mod pipeline;
pub mod presence;
pub mod reach;
pub mod registry;
mod retarget;
pub mod sequencer;
pub mod shipped;
pub mod standalone;
pub mod statistics;
pub mod tls;
