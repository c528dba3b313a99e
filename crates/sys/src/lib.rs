//! The operating system, behind a safe interface.
//!
//! Everything that needs `unsafe`, a raw descriptor or a platform switch stands here, so that the other rooms
//! can forbid all three. No policy: this room does what it is told and reports what the kernel answered.
//!
//! Invariant: no function here waits without a bound chosen by its caller, and none reads without a limit.

pub mod allocations;
#[cfg(unix)]
pub mod child;
pub mod clock;
#[cfg(target_os = "linux")]
pub mod connections;
pub mod durable;
#[cfg(target_os = "linux")]
pub mod group;
#[cfg(unix)]
pub mod host;
pub mod net_namespace;
#[cfg(target_os = "linux")]
mod netlink;
pub mod nft;
#[cfg(unix)]
pub mod part;
#[cfg(target_os = "linux")]
pub mod poller;
pub mod privilege;
pub mod queue;
#[cfg(unix)]
pub mod ready;
#[cfg(target_os = "linux")]
pub mod route;
#[cfg(unix)]
pub mod service_user;
#[cfg(unix)]
pub mod signal;
#[cfg(target_os = "linux")]
pub mod tcp;
#[cfg(unix)]
pub mod terminal;
pub mod unix_socket;
#[cfg(unix)]
pub mod usage;
#[cfg(unix)]
pub mod watch;
