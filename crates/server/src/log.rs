//! The service's own log, shared with the endpoint's responder.

pub use tld_respond::ossec_log::{Level, Log};
