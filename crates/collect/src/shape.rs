//! `out_format`: what a message is made into before it is sent.
//!
//! Invariant: variables are filled in once; what a log line puts in is text and never read for variables again.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tld_model::{Timestamp, Zone};
use tld_sys::host;

use crate::glob::strftime;

/// The time as syslog writes it.
const STAMP: &str = "%b %e %H:%M:%S";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Log,
    Location,
    Time(String),
    JsonLog,
    Base64Log,
}

/// One pattern.
#[derive(Debug)]
pub(crate) struct Shape {
    pieces: Vec<Piece>,
    zone: Zone,
}

impl Shape {
    /// The pattern for the output that we have, of all that a block has. One that names the output goes before one for all.
    pub(crate) fn of(patterns: &[(Option<String>, String)]) -> Option<Self> {
        let named = patterns.iter().find(|(target, _)| target.as_deref() == Some(super::OUTPUT));
        let pattern = named.or_else(|| patterns.iter().find(|(target, _)| target.is_none()))?;
        Some(Self { pieces: pieces(&pattern.1), zone: Zone::system() })
    }

    /// What is sent for `log`, which was read at `location`.
    pub(crate) fn make(&self, location: &[u8], log: &[u8], now: Timestamp) -> Vec<u8> {
        let mut out = Vec::with_capacity(log.len() + 64);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Log => out.extend_from_slice(log),
                Piece::Location => out.extend_from_slice(location),
                Piece::Time(pattern) => {
                    out.extend_from_slice(strftime(pattern, &self.zone.local(now)).as_bytes());
                }
                Piece::JsonLog => {
                    let quoted = serde_json::to_string(&String::from_utf8_lossy(log)).unwrap_or_default();
                    let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                    out.extend_from_slice(inside.unwrap_or_default().as_bytes());
                }
                Piece::Base64Log => out.extend_from_slice(STANDARD.encode(log).as_bytes()),
            }
        }
        out
    }
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some((before, variable, behind)) = next_variable(rest) {
        if !before.is_empty() {
            pieces.push(Piece::Text(before.into()));
        }
        pieces.extend(piece(variable));
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    pieces
}

/// Text before the next `$(…)`, its inside, and text behind it.
fn next_variable(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("$(")?;
    let (inside, behind) = rest.split_once(')')?;
    Some((before, inside, behind))
}

/// None for what is not known, which becomes empty.
fn piece(variable: &str) -> Option<Piece> {
    let (name, argument) = variable.split_once(' ').unwrap_or((variable, ""));
    Some(match name {
        "log" | "output" => Piece::Log,
        "location" | "command" => Piece::Location,
        "timestamp" if argument.trim().is_empty() => Piece::Time(STAMP.to_owned()),
        "timestamp" => Piece::Time(argument.to_owned()),
        "hostname" => Piece::Text(host::name().into_bytes()),
        "host_ip" => Piece::Text(address().map_or_else(String::new, |ip| ip.to_string()).into_bytes()),
        "json_escaped_log" => Piece::JsonLog,
        "base64_log" => Piece::Base64Log,
        _ => return None,
    })
}

/// The first of our addresses that others may know us by, IPv4 before IPv6.
fn address() -> Option<IpAddr> {
    let mut own: Vec<IpAddr> = host::own_addresses().into_iter().filter(|ip| !ip.is_loopback()).collect();
    own.sort_by_key(IpAddr::is_ipv6);
    own.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn made(pattern: &str, log: &[u8]) -> String {
        let shape = Shape { pieces: pieces(pattern), zone: Zone::utc() };
        String::from_utf8_lossy(&shape.make(b"/var/log/a", log, NOON)).into_owned()
    }

    #[test]
    fn variables_are_filled_in_and_unknown_ones_are_empty() {
        assert_eq!(made("[$(location)] $(log) $(nothing)!", b"hello"), "[/var/log/a] hello !");
        assert_eq!(made("$(command): $(output)", b"x"), "/var/log/a: x");
        assert_eq!(made("$(timestamp)|$(timestamp %Y-%m-%d %H)", b""), "Nov 14 22:13:20|2023-11-14 22");
        assert_eq!(made("{\"log\":\"$(json_escaped_log)\"}", b"a \"b\"\\"), r#"{"log":"a \"b\"\\"}"#);
        assert_eq!(made("$(base64_log)", b"hello"), "aGVsbG8=");
        assert_eq!(made("$(hostname)", b""), host::name());
    }

    #[test]
    fn text_of_a_log_is_not_a_pattern() {
        assert_eq!(made("<$(log)>", b"$(hostname)"), "<$(hostname)>");
        assert_eq!(made("cost: $5 $(log", b"x"), "cost: $5 $(log");
    }

    #[test]
    fn a_json_log_keeps_the_quotes_at_its_ends() {
        assert_eq!(made("$(json_escaped_log)", br#""a""#), r#"\"a\""#);
    }

    #[test]
    fn a_pattern_for_our_output_goes_before_one_for_all() {
        let pattern = |target: Option<&str>, text: &str| (target.map(str::to_owned), text.to_owned());
        let patterns = [pattern(None, "all"), pattern(Some("other"), "no"), pattern(Some("agent"), "own")];
        assert_eq!(Shape::of(&patterns).unwrap().pieces, [Piece::Text(b"own".to_vec())]);
        assert_eq!(Shape::of(&patterns[..2]).unwrap().pieces, [Piece::Text(b"all".to_vec())]);
        assert!(Shape::of(&patterns[1..2]).is_none());
    }
}
