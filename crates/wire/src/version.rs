//! Versions as peers write them: `v4.14.7`.
//! Invariant: comparing is numeric, never by text.

use std::fmt;
use std::str::FromStr;

/// A release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number; 0 when it was not given.
    pub patch: u16,
}

impl Version {
    /// The release whose contract this product keeps, and which it names to peers.
    pub const CONTRACT: Self = Self::new(4, 14, 7);

    /// From its numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version")]
pub struct ParseVersion(String);

impl FromStr for Version {
    type Err = ParseVersion;

    /// `v4.14.7`, also after `Wazuh `, without the `v`, without the third number, or with a suffix (`-rc1`).
    fn from_str(text: &str) -> Result<Self, ParseVersion> {
        let bad = || ParseVersion(text.chars().take(40).collect());
        let bare = text.trim_ascii();
        let bare = bare.rsplit_once(' ').map_or(bare, |(_, last)| last);
        let bare = bare.strip_prefix(['v', 'V']).unwrap_or(bare);
        let numbers = bare.split(['-', '+', '~']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        });
        let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next()) else { return Err(bad()) };
        let patch = match parts.next() {
            None => 0,
            Some(patch) => patch.ok_or_else(bad)?,
        };
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self { major, minor, patch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert!(parse("v4.14.7") > parse("v4.9.10"));
        assert!(parse("v4.2.5") > parse("v4.2.4"));
        assert_eq!(parse("Wazuh v4.14.7"), Version::CONTRACT);
        assert_eq!(parse("4.14.7-rc1"), Version::CONTRACT);
        assert_eq!(parse("v3.13"), Version::new(3, 13, 0));
        assert_eq!(Version::CONTRACT.to_string(), "v4.14.7");
    }

    #[test]
    fn other_text_is_no_version() {
        for bad in ["", "v", "v4", "v4.", "v4.x.1", "4.14.7.1", "v4.99999.0", "-1.2.3", "v4.+1.0"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
