//! Addresses and networks as rules, allow lists and never-block lists write them.
//!
//! Invariant: an address is canonical before it is compared: `::ffff:a.b.c.d` is the IPv4 address
//! it carries, so that no spelling of an address slips past an entry.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::text;

/// Why a text is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither an IPv4 nor an IPv6 address stands before the prefix.
    #[error("`{0}` is not an address")]
    Address(String),
    /// The part behind the slash is no prefix length of the family.
    #[error("`{0}` has no valid prefix length")]
    Prefix(String),
    /// The dotted mask has a one behind a zero.
    #[error("`{0}` has a mask that is not a run of ones")]
    Mask(String),
    /// A leading `!`.
    #[error("`{0}` is negated, which is not supported here")]
    Negated(String),
}

/// A set of addresses that share a prefix, or all addresses of both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shape {
    Any,
    V4 { network: u32, prefix: u8 },
    V6 { network: u128, prefix: u8 },
}

impl Network {
    /// Every address of both families.
    pub const ANY: Self = Self { shape: Shape::Any };

    /// The network that holds only `address`.
    pub fn host(address: IpAddr) -> Self {
        let shape = match canonical(address) {
            IpAddr::V4(address) => Shape::V4 { network: address.to_bits(), prefix: 32 },
            IpAddr::V6(address) => Shape::V6 { network: address.to_bits(), prefix: 128 },
        };
        Self { shape }
    }

    /// Reads an element of a rule, where the contract accepts a leading `!` and ignores it.
    pub fn parse_rule(element: &str) -> Result<Self, AddressError> {
        element.strip_prefix('!').unwrap_or(element).parse()
    }

    /// Whether `address`, made canonical, lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.shape, canonical(address)) {
            (Shape::Any, _) => true,
            (Shape::V4 { network, prefix }, IpAddr::V4(address)) => {
                address.to_bits() & mask_v4(prefix) == network
            }
            (Shape::V6 { network, prefix }, IpAddr::V6(address)) => {
                address.to_bits() & mask_v6(prefix) == network
            }
            _ => false,
        }
    }

    /// Whether this is `any`.
    pub fn is_any(&self) -> bool {
        self.shape == Shape::Any
    }

    /// The base address and prefix length; `None` for `any`.
    pub fn parts(&self) -> Option<(IpAddr, u8)> {
        match self.shape {
            Shape::Any => None,
            Shape::V4 { network, prefix } => Some((Ipv4Addr::from_bits(network).into(), prefix)),
            Shape::V6 { network, prefix } => Some((Ipv6Addr::from_bits(network).into(), prefix)),
        }
    }
}

impl FromStr for Network {
    type Err = AddressError;

    fn from_str(element: &str) -> Result<Self, AddressError> {
        if element.starts_with('!') {
            return Err(AddressError::Negated(element.into()));
        }
        if element == "any" {
            return Ok(Self::ANY);
        }
        let (host, suffix) = match element.split_once('/') {
            Some((host, suffix)) => (host, Some(suffix)),
            None => (element, None),
        };
        let address = IpAddr::from_str(host).ok();
        let Some(address) = address else { return Err(AddressError::Address(element.into())) };
        let Some(suffix) = suffix else { return Ok(Self::host(address)) };
        match address {
            IpAddr::V4(address) => {
                let prefix = prefix_v4(element, suffix)?;
                Ok(Self { shape: Shape::V4 { network: address.to_bits() & mask_v4(prefix), prefix } })
            }
            IpAddr::V6(address) => network_v6(element, address, suffix),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            None => formatter.write_str("any"),
            Some((address, 32)) if address.is_ipv4() => address.fmt(formatter),
            Some((address, 128)) => address.fmt(formatter),
            Some((address, prefix)) => write!(formatter, "{address}/{prefix}"),
        }
    }
}

/// An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) as the IPv4 address it is.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Reads a whole text as an address and makes it canonical; host names and zones are refused.
pub fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    // The longest spelling of an address has 45 bytes.
    let short = bytes.len() <= 45;
    let address = std::str::from_utf8(bytes).ok().filter(|_| short)?;
    IpAddr::from_str(address).ok().map(canonical)
}

/// The entries of `srcip` or `dstip` in a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpList(pub Vec<Network>);

impl IpList {
    /// Whether an entry contains `address`.
    pub fn any(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether an entry contains the address in an event field; a field that is none is in no entry.
    pub fn any_text(&self, field: &[u8]) -> bool {
        parse_address(text(field)).is_some_and(|address| self.any(address))
    }
}

fn prefix_v4(element: &str, suffix: &str) -> Result<u8, AddressError> {
    if !suffix.contains('.') {
        return prefix(suffix, 32).ok_or_else(|| AddressError::Prefix(element.into()));
    }
    let mask = Ipv4Addr::from_str(suffix).ok();
    let Some(mask) = mask else { return Err(AddressError::Prefix(element.into())) };
    let ones = u8::try_from(mask.to_bits().leading_ones()).unwrap_or(32);
    if mask_v4(ones) == mask.to_bits() { Ok(ones) } else { Err(AddressError::Mask(element.into())) }
}

/// A mapped prefix of 96 bits or more is an IPv4 network; a shorter one spans far more than the
/// mapped range, and stays what it says, an IPv6 network that no canonical IPv4 address is in.
fn network_v6(element: &str, address: Ipv6Addr, suffix: &str) -> Result<Network, AddressError> {
    if let Some(mapped) = address.to_ipv4_mapped()
        && suffix.contains('.')
    {
        let prefix = prefix_v4(element, suffix)?;
        return Ok(Network { shape: Shape::V4 { network: mapped.to_bits() & mask_v4(prefix), prefix } });
    }
    let prefix = prefix(suffix, 128).ok_or_else(|| AddressError::Prefix(element.into()))?;
    let shape = match address.to_ipv4_mapped() {
        Some(mapped) if prefix >= 96 => {
            Shape::V4 { network: mapped.to_bits() & mask_v4(prefix - 96), prefix: prefix - 96 }
        }
        _ => Shape::V6 { network: address.to_bits() & mask_v6(prefix), prefix },
    };
    Ok(Network { shape })
}

/// A decimal number up to `most`; signs and blanks are no digits.
fn prefix(suffix: &str, most: u8) -> Option<u8> {
    let digits = !suffix.is_empty() && suffix.len() <= 3 && suffix.bytes().all(|byte| byte.is_ascii_digit());
    suffix.parse().ok().filter(|&prefix: &u8| digits && prefix <= most)
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}
