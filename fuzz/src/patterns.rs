//! The expression engines and addresses. Invariant checked: answers agree with each other and lie in the subject.

use tld_pattern::{Captures, Expression, GroupPattern, Kind, Network, canonical, parse_address};

pub(crate) const OS_WORDS: &[&str] =
    &["\\w+", "\\d*", "\\S+", "\\.+", "\\p", "\\W", "|", "^", "$", "(", ")", "\\(", "\\)", "\\|", "!", "\\t"];
pub(crate) const PCRE_WORDS: &[&str] = &[
    "(?i)",
    "(?:",
    "(?=",
    "(?!",
    "(?<=",
    "(?<!",
    "(?>",
    "(?<n>",
    "(?P<n>",
    "\\k<n>",
    "\\1",
    "[[:alpha:]]",
    "[^",
    "]",
    "{2,5}",
    "{1000}",
    "*?",
    "++",
    "\\b",
    "\\K",
    "\\Q",
    "\\E",
    "\\x{10ffff}",
    "\\p{L}",
    "\\R",
    "\\h",
    "(?|",
    "(?(1)a|b)",
    "(*UTF)",
    "(?#",
    "\\G",
    "\\A",
    "\\z",
    "(a+)+",
];
pub(crate) const ADDRESS_WORDS: &[&str] =
    &["any", "!", "/0", "/32", "/129", "255.255.255.0", "::ffff:", "%eth0", "0x7f", "010", "|", ","];

/// A pattern, a newline, a subject.
fn dialect(kind: Kind, data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (pattern, subject) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let expression = match Expression::compile(kind, pattern) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(expression.pattern(), pattern);
    let matched = expression.is_match(subject);
    let place = expression.place(subject);
    assert_eq!(matched, place.is_some(), "`is_match` and `place` ask the same");
    assert!(place.is_none_or(|place| place <= subject.len()));
    let mut captures = Captures::new();
    let found = expression.find(subject, &mut captures);
    assert!(found.is_none_or(|place| place <= subject.len()));
    for group in captures.iter() {
        assert!(group.start <= group.end && group.end <= subject.len());
    }
    let needed = expression.required_literals();
    if matched && !needed.is_empty() {
        let folded = subject.to_ascii_lowercase();
        let occurs = |literal: &Vec<u8>| {
            literal.is_empty() || folded.windows(literal.len()).any(|window| window == literal.as_slice())
        };
        assert!(needed.iter().any(occurs), "a match without any of the literals said to be required");
    }
}

/// OSRegex.
pub fn osregex(data: &[u8]) {
    dialect(Kind::OsRegex, data);
}

/// OSMatch.
pub fn osmatch(data: &[u8]) {
    dialect(Kind::OsMatch, data);
}

/// PCRE2.
pub fn pcre2(data: &[u8]) {
    dialect(Kind::Pcre2, data);
}

/// Addresses, networks of rules and group lists, one a line.
pub fn address(data: &[u8]) {
    let mut last = "";
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(address) = parse_address(line) {
            assert_eq!(address, canonical(address), "addresses are canonical");
            assert_eq!(parse_address(address.to_string().as_bytes()), Some(address));
            assert!(Network::host(address).contains(address) && Network::ANY.contains(address));
        }
        let Ok(text) = std::str::from_utf8(line) else { continue };
        if let Ok(network) = Network::parse_rule(text) {
            assert_eq!(network.to_string().parse(), Ok(network), "what is shown can be read");
            if let Some((base, _)) = network.parts() {
                assert!(network.is_any() || network.contains(base) || canonical(base) != base);
            }
        }
        GroupPattern::new(last).matches(text);
        last = text;
    }
}
