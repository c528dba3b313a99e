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

/// A mapped address with 96 bits or more is an IPv4 network. With fewer it is refused: it might mean
/// the IPv4 prefix or a great part of IPv6, and a list that protects must not guess.
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
        Some(_) => return Err(AddressError::Prefix(element.into())),
        None => Shape::V6 { network: address.to_bits() & mask_v6(prefix), prefix },
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(element: &str) -> Network {
        element.parse().expect("a legal network")
    }

    fn contains(element: &str, address: &str) -> bool {
        network(element).contains(address.parse().expect("a legal address"))
    }

    #[test]
    fn a_network_holds_the_addresses_of_its_prefix() {
        for (element, address, held) in [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.70", false),
            ("10.20.0.0/16", "10.20.255.1", true),
            ("10.20.0.0/16", "10.21.0.0", false),
            ("10.20.30.40/255.255.0.0", "10.20.1.1", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "203.0.113.9", false),
            ("any", "203.0.113.9", true),
            ("any", "2001:db8::1", true),
        ] {
            assert_eq!(contains(element, address), held, "{element} and {address}");
        }
    }

    #[test]
    fn ipv6_entries_are_real_networks_and_no_texts() {
        assert!(contains("2001:db8::/32", "2001:db8:1::9"));
        assert!(!contains("2001:db8::/32", "2001:db9::9"));
        assert!(!contains("::1", "2001:db8::1"));
        assert!(contains("2001:DB8:0:0::1/128", "2001:db8::1"));
    }

    #[test]
    fn families_never_match_each_other() {
        assert!(!contains("10.0.0.0/8", "::10.0.0.1"));
        assert!(!contains("2001:db8::/32", "32.1.13.184"));
    }

    #[test]
    fn mapped_addresses_are_the_ipv4_addresses_they_carry() {
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("::ffff:10.1.2.3", "10.1.2.3"));
        assert!(contains("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert_eq!(network("::ffff:192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(parse_address(b"::FFFF:192.0.2.1"), Some(Ipv4Addr::new(192, 0, 2, 1).into()));
        assert_eq!(parse_address(b"::ffff:c000:201"), Some(Ipv4Addr::new(192, 0, 2, 1).into()));
    }

    #[test]
    fn an_exclamation_mark_is_ignored_in_rules_and_refused_elsewhere() {
        assert_eq!(Network::parse_rule("!10.0.0.0/8"), Ok(network("10.0.0.0/8")));
        assert_eq!("!10.0.0.0/8".parse::<Network>(), Err(AddressError::Negated("!10.0.0.0/8".into())));
        assert!(Network::parse_rule("!!10.0.0.0/8").is_err());
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for element in [
            "",
            "host",
            "10.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0/255.0.255.0",
            "2001:db8::/129",
            "2001:db8::/255.0.0.0",
            "fe80::1%eth0",
            "::ffff:10.0.0.0/8",
            " 10.0.0.1",
            "ANY/8",
            "-",
            "10.0.0.1-10.0.0.9",
        ] {
            assert!(element.parse::<Network>().is_err(), "{element}");
        }
    }

    #[test]
    fn an_address_is_the_whole_text_and_nothing_else() {
        for bytes in [
            &b""[..],
            b"-",
            b"1.2.3.4 ",
            b"1.2.3.4/32",
            b"1.2.3.4:80",
            b"[::1]",
            b"::1%lo",
            b"a.example",
            b"\xff",
        ] {
            assert_eq!(parse_address(bytes), None);
        }
        assert!(parse_address(b"0000:0000:0000:0000:0000:ffff:255.255.255.255").is_some());
    }

    #[test]
    fn a_list_holds_what_any_entry_holds() {
        let list = IpList(vec![network("10.0.0.0/8"), network("2001:db8::/32")]);
        assert!(list.any_text(b"10.9.8.7") && list.any_text(b"2001:db8::5"));
        assert!(!list.any_text(b"192.0.2.1") && !list.any_text(b"no address"));
    }

    proptest! {
        #[test]
        fn a_network_reads_its_own_words_again(address: IpAddr, prefix in 0_u8..=128) {
            let prefix = match canonical(address) {
                IpAddr::V4(_) if address.is_ipv6() => 96 + prefix % 33,
                IpAddr::V4(_) => prefix % 33,
                IpAddr::V6(_) => prefix,
            };
            let first = network(&format!("{address}/{prefix}"));
            prop_assert_eq!(network(&first.to_string()), first);
            prop_assert!(first.contains(address));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String, bytes: Vec<u8>) {
            let _ = (text.parse::<Network>(), Network::parse_rule(&text), parse_address(&bytes));
        }
    }
}
