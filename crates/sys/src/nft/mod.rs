//! Blocking addresses in the kernel through nf_tables, without the `nft` program.
//!
//! All we make is one table `inet <name>` with six sets (`blocked4`, `blocked6` for addresses; `nets4`, `nets6` for
//! networks; `ports4`, `ports6` for one TCP or UDP port of this host or behind it as seen by an address) and one chain
//! that drops what comes from them. Elements can carry a lease, after which the
//! kernel forgets them by itself: a block ends on time even if nothing of ours lives.
//!
//! Invariant: every change is one transaction on our table; it happens whole or not at all, and no other table is
//! ever named.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod message;
#[cfg(target_os = "linux")]
mod monitor;
#[cfg(not(target_os = "linux"))]
mod unsupported;

#[cfg(target_os = "linux")]
pub use linux::Firewall;
#[cfg(target_os = "linux")]
pub use monitor::Monitor;
#[cfg(not(target_os = "linux"))]
pub use unsupported::{Firewall, Monitor};

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Why the firewall did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// There is no nf_tables here to talk to.
    #[error("this system has no nf_tables")]
    Missing,
    /// The firewall needs root or `CAP_NET_ADMIN`.
    #[error("not permitted to change the firewall (CAP_NET_ADMIN is needed)")]
    Permission,
    /// The conversation with the kernel failed; whether the change happened is unknown.
    #[error("the conversation with the kernel's firewall failed")]
    Io(#[from] io::Error),
    /// The kernel refused; nothing of the transaction happened.
    #[error("the kernel refused to {what}: {}", io::Error::from_raw_os_error(*errno))]
    Refused {
        /// The kernel's error number.
        errno: i32,
        /// The step of the transaction it is about.
        what: String,
    },
}

impl NftError {
    /// Whether something the request needs does not exist: usually our table was removed, so ensure and repeat.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        // ENOENT has this number on every system we know.
        matches!(self, Self::Refused { errno: 2, .. })
    }
}

/// What the kernel knows about a blocked address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// What is left of its lease; `None` if it stays until removed.
    pub remaining: Option<Duration>,
}

/// What an address is kept from: everything, or one port. The port is the one that the sender names, before any
/// translation of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// The sender.
    pub address: IpAddr,
    /// The TCP and UDP port it may not reach; `None` for all, and for every other protocol too.
    pub port: Option<u16>,
}

impl Spot {
    /// With an IPv4-mapped address as the IPv4 address that it is.
    #[must_use]
    pub const fn canonical(self) -> Self {
        Self { address: self.address.to_canonical(), port: self.port }
    }
}

impl From<IpAddr> for Spot {
    fn from(address: IpAddr) -> Self {
        Self { address, port: None }
    }
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// A network: an address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net {
    address: IpAddr,
    prefix: u8,
}

impl Net {
    /// The network of `address` with `prefix` leading bits; the others are cleared. `None` if the prefix is
    /// longer than the address, or 0: nobody means to block everybody.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(a) if (1..=32).contains(&prefix) => {
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & (u32::MAX << (32 - prefix))))
            }
            IpAddr::V6(a) if (1..=128).contains(&prefix) => {
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & (u128::MAX << (128 - prefix))))
            }
            _ => return None,
        };
        Some(Self { address, prefix })
    }

    /// Its lowest address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.address
    }

    /// The number of leading bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The address behind its highest one, if there is one.
    #[must_use]
    pub fn after_last(self) -> Option<IpAddr> {
        match self.address {
            IpAddr::V4(a) => {
                let size = 1_u32.checked_shl(u32::from(32 - self.prefix))?;
                a.to_bits().checked_add(size).map(|bits| Ipv4Addr::from_bits(bits).into())
            }
            IpAddr::V6(a) => {
                let size = 1_u128.checked_shl(u32::from(128 - self.prefix))?;
                a.to_bits().checked_add(size).map(|bits| Ipv6Addr::from_bits(bits).into())
            }
        }
    }
}

/// Something another process did to a table of the `inet` family.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// This table was deleted, with all in it.
    TableGone(String),
    /// A set was deleted.
    SetGone {
        /// Its table.
        table: String,
        /// Its name.
        set: String,
    },
    /// An address, or the first one of a network, was deleted from a set. Expiry is not announced.
    ElementGone {
        /// Its table.
        table: String,
        /// Its set.
        set: String,
        /// The address, with its port if the set has ports.
        spot: Spot,
    },
    /// A chain or a rule was deleted from this table: what is in the sets may no longer be dropped.
    RulesGone(String),
    /// The transaction that the events before this one belong to is complete.
    Committed {
        /// Who did it, where the kernel tells.
        pid: Option<u32>,
        /// The name of that process or thread.
        process: Option<String>,
    },
    /// Notifications were lost: look at the whole table.
    Overrun,
    /// Something else changed.
    Other,
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests;
