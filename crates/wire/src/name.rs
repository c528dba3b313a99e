//! Which texts may be an agent's name, id, group or registered address.
//! Invariant: a text that passes here holds no quote, blank, slash or line end, so it can stand in any line or path.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Longest group name in bytes.
pub const GROUP_LIMIT: usize = 255;
/// Most groups of one agent.
pub const GROUPS_LIMIT: usize = 128;

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// 2 to 128 characters of `[A-Za-z0-9._-]`, not led by a dot. Keys obey the same rule.
pub fn is_agent_name(text: &str) -> bool {
    (2..=128).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_name_byte)
}

/// One to eight decimal digits.
pub fn is_agent_id(text: &str) -> bool {
    (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// At most 255 characters of `[A-Za-z0-9_.-]`, and no directory of its own kind (`.`, `..`).
pub fn is_group_name(text: &str) -> bool {
    (1..=GROUP_LIMIT).contains(&text.len()) && text.bytes().all(is_name_byte) && !matches!(text, "." | "..")
}

/// Makes a host name fit to be an agent's name by dropping what does not belong there; `None` if too little is left.
pub fn agent_name_of_host(host: &str) -> Option<String> {
    let kept: String = host.chars().filter(|c| c.is_ascii() && is_name_byte(*c as u8)).take(128).collect();
    let name = kept.trim_start_matches('.');
    is_agent_name(name).then(|| name.to_owned())
}

/// The text is neither an address, nor a network, nor `any`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address, a network or `any`")]
pub struct ParseIp(String);

/// The address an agent is registered with: from where its messages may come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegisteredIp {
    // As written: it is part of what peers compare and of what rules see.
    text: Box<str>,
    net: Option<(IpAddr, u8)>,
}

impl RegisteredIp {
    /// From everywhere.
    pub fn any() -> Self {
        Self { text: "any".into(), net: None }
    }

    /// Exactly this address; IPv4 in IPv6 clothing is IPv4.
    pub fn host(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { text: address.to_string().into(), net: Some((address, bits(address))) }
    }

    /// As registered.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the registration is `any`.
    pub fn is_any(&self) -> bool {
        self.net.is_none()
    }

    /// Whether messages of this agent are told apart by their source address alone, without `!id!`: only for a
    /// single IPv4 address that was written without a prefix.
    pub fn names_one_ipv4(&self) -> bool {
        matches!(self.net, Some((IpAddr::V4(_), 32))) && !self.text.contains('/')
    }

    /// The address, if the registration is one address.
    pub fn single(&self) -> Option<IpAddr> {
        self.net.and_then(|(address, prefix)| (prefix == bits(address)).then_some(address))
    }

    /// Whether a peer at `address` may speak for this agent.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.net, address.to_canonical()) {
            (None, _) => true,
            (Some((IpAddr::V4(net), prefix)), IpAddr::V4(peer)) => {
                let shift = 32 - u32::from(prefix);
                u32::from(net).checked_shr(shift) == u32::from(peer).checked_shr(shift)
            }
            (Some((IpAddr::V6(net), prefix)), IpAddr::V6(peer)) => {
                let shift = 128 - u32::from(prefix);
                u128::from(net).checked_shr(shift) == u128::from(peer).checked_shr(shift)
            }
            _ => false,
        }
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for RegisteredIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RegisteredIp {
    type Err = ParseIp;

    fn from_str(text: &str) -> Result<Self, ParseIp> {
        if text == "any" {
            return Ok(Self::any());
        }
        let bad = || ParseIp(text.chars().take(64).collect());
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let address: IpAddr = address.parse().ok().ok_or_else(bad)?;
        let prefix = match prefix {
            None => bits(address),
            Some(digits) if (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= bits(address)).ok_or_else(bad)?
            }
            Some(_) => return Err(bad()),
        };
        // A scope (`fe80::1%eth0`) never parses, so the text is at most 43 characters.
        Ok(Self { text: text.into(), net: Some((address, prefix)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_character_rule() {
        let long = "a".repeat(128);
        let longer = "a".repeat(129);
        for good in ["ab", "web-01", "Db.Server_02", "-x", "a.", &long] {
            assert!(is_agent_name(good), "{good}");
        }
        for bad in ["", "a", ".ab", "a b", "a/b", "a'b", "ä2", "a\n", &longer] {
            assert!(!is_agent_name(bad), "{bad}");
        }
    }

    #[test]
    fn groups_are_never_a_way_out_of_their_directory() {
        for (name, fit) in
            [("default", true), ("a.b", true), (".", false), ("..", false), ("../x", false), ("", false)]
        {
            assert_eq!(is_group_name(name), fit, "{name}");
        }
        assert!(!is_group_name(&"g".repeat(256)));
    }

    #[test]
    fn host_names_lose_what_may_not_stand_in_a_name() {
        assert_eq!(agent_name_of_host("wéb 01.example"), Some("wb01.example".into()));
        assert_eq!(agent_name_of_host("..a"), None);
    }

    #[test]
    fn registered_addresses_contain_their_peers() {
        for (registered, peer, inside) in [
            ("any", "203.0.113.7", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.7.0.0/16", "10.7.255.1", true),
            ("10.7.0.0/16", "10.8.0.1", false),
            ("0.0.0.0/0", "10.8.0.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("10.1.2.3", "::ffff:10.1.2.3", true),
        ] {
            let ip: RegisteredIp = registered.parse().unwrap();
            assert_eq!(ip.contains(peer.parse().unwrap()), inside, "{registered} {peer}");
            assert_eq!(ip.to_string(), registered);
        }
    }

    #[test]
    fn only_a_bare_ipv4_address_goes_without_the_id() {
        for (text, bare) in [
            ("10.1.2.3", true),
            ("10.1.2.3/32", false),
            ("10.0.0.0/8", false),
            ("::1", false),
            ("any", false),
        ] {
            assert_eq!(text.parse::<RegisteredIp>().unwrap().names_one_ipv4(), bare, "{text}");
        }
    }

    #[test]
    fn rubbish_is_no_address() {
        for bad in
            ["", "ANY", "999.1.1.1", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "a b", "1.2.3"]
        {
            assert!(bad.parse::<RegisteredIp>().is_err(), "{bad}");
        }
    }
}
