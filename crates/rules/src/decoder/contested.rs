//! Whether a captured target could have been another one: a user name that imitates the rest of its own message
//! (`Invalid user x from 203.0.113.9 port 22 from 198.51.100.5 port 40022`) makes an expression stop too early.
//!
//! The expression that set a field is started again at its first capture. If it lets text of any length pass before the
//! target, that text may also have imitated only what follows it, so the part of the expression around the target is looked
//! for once more behind the match; this is all for one that is bound to the beginning and cannot be started elsewhere. Where
//! nothing variable stands before the target, or the expression is bound to the end, nobody could have moved the target.

use std::net::IpAddr;

use tld_pattern::{Captures, Expression, Kind, Needle};

use super::select::{Origin, Origins};
use super::{Decoders, Field, Scratch};
use crate::{Decoded, StaticField};

/// Most restarts per field, so most other values reported.
const RESTARTS: usize = 64;

/// For an event whose decoding is long past.
pub(super) fn contested(decoders: &Decoders, decoded: &Decoded<'_>) -> Vec<(StaticField, Vec<Vec<u8>>)> {
    if super::built_in(decoded.event.queue).is_some() || decoded.decoder.is_none() {
        return Vec::new();
    }
    let mut again = Decoded::new(decoded.event);
    again.log = std::borrow::Cow::Borrowed(&decoded.log);
    again.program_name = decoded.program_name.as_deref().map(std::borrow::Cow::Borrowed);
    let mut scratch = Scratch::new();
    let result = decoders.decode(&mut again, &mut scratch, None);
    let mut all = Vec::new();
    from_origins(decoders, &again, &result.origins, &mut scratch.captures, |field, others| {
        all.push((field, others));
    });
    all
}

/// For an event that was just decoded; tells the fields that have other values.
pub(super) fn from_origins(
    decoders: &Decoders,
    decoded: &Decoded<'_>,
    origins: &Origins,
    captures: &mut Captures,
    mut tell: impl FnMut(StaticField, Vec<Vec<u8>>),
) {
    for (field, origin) in [(StaticField::SrcIp, &origins.srcip), (StaticField::DstUser, &origins.dstuser)] {
        let (Some(origin), Some(value)) = (origin, decoded.field(field)) else { continue };
        let others = others(decoders, &decoded.log, field, value, *origin, captures);
        if !others.is_empty() {
            tell(field, others);
        }
    }
}

#[inline(never)]
fn others(
    decoders: &Decoders,
    log: &[u8],
    field: StaticField,
    value: &[u8],
    origin: Origin,
    captures: &mut Captures,
) -> Vec<Vec<u8>> {
    let Some(regex) = decoders.regex(decoders.entry(origin.decoder).work) else { return Vec::new() };
    // Another address could only stand behind the one that was taken.
    if field == StaticField::SrcIp && !has_address(log.get(origin.end..).unwrap_or_default()) {
        return Vec::new();
    }
    let mut found = behind(&regex.rivals, log, field, value, origin, captures);
    if regex.rivals.may_start_again(field, log, origin) {
        again(&regex.expression, log, field, value, origin, captures, &mut found);
    }
    if found.is_empty() {
        return Vec::new();
    }
    found.sort_unstable();
    let mut values: Vec<Vec<u8>> = Vec::new();
    for (_, other) in found {
        if !values.contains(&other) {
            values.push(other);
        }
    }
    values
}

/// A place in the line and what stands there.
type Found = Vec<(usize, Vec<u8>)>;

/// Starts an expression again at what it captured.
fn again(
    expression: &Expression,
    log: &[u8],
    field: StaticField,
    value: &[u8],
    origin: Origin,
    captures: &mut Captures,
    found: &mut Found,
) {
    let mut capture = |from: usize| {
        let subject = log.get(from..).filter(|subject| !subject.is_empty())?;
        expression.find(subject, captures)?;
        captures.get(origin.group).map(|range| from + range.start..from + range.end)
    };
    let mut last = origin.start..origin.end;
    for _ in 0..RESTARTS {
        // The captured text may itself be what comes before the next target, so the search goes on at its start;
        // a match inside it would be a piece of the same word.
        let next = capture(last.start).filter(|next| next.start >= last.end);
        let Some(next) = next.or_else(|| capture(last.end)) else { break };
        let other = log.get(next.clone()).unwrap_or_default();
        if differs(field, value, other) {
            found.push((next.start, other.to_vec()));
        }
        last = next.start..next.end.max(last.end + 1);
    }
}

/// How to look for other targets of one expression, worked out when it is loaded.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// Some alternative is anchored, so that a restart would ask another question.
    bound: bool,
    /// What stands around the group of a field in an OSRegex, and the group's number there.
    around: Vec<(StaticField, usize, Expression, usize)>,
    /// A literal that must stand before the group of a field.
    leads: Vec<(StaticField, usize, Needle)>,
}

impl Rivals {
    /// Of an expression whose groups go to these fields.
    pub(super) fn new(expression: &Expression, order: &[Field]) -> Self {
        let bound = is_bound(expression);
        let (mut around, mut leads) = (Vec::new(), Vec::new());
        if expression.kind() == Kind::OsRegex {
            for (group, field) in order.iter().enumerate() {
                let Field::Static(field @ (StaticField::SrcIp | StaticField::DstUser)) = field else {
                    continue;
                };
                leads.extend(lead(expression.pattern(), group).map(|lead| (*field, group, lead)));
                // A later address is one by its form; a later name only by the words before it.
                let least = if *field == StaticField::SrcIp { 1 } else { 3 };
                for (pattern, inner) in surroundings(expression.pattern(), group, least) {
                    if let Ok(expression) = Expression::compile(Kind::OsRegex, pattern) {
                        around.push((*field, group, expression, inner));
                    }
                }
            }
        }
        Self { bound, around, leads }
    }

    /// Whether the expression might match again from the captured text on.
    fn may_start_again(&self, field: StaticField, log: &[u8], origin: Origin) -> bool {
        let rest = log.get(origin.start..).unwrap_or_default();
        let mut leads = self.leads.iter().filter(|(of, group, _)| *of == field && *group == origin.group);
        !self.bound && leads.all(|(.., lead)| lead.is_in(rest))
    }
}

/// A literal that an OSRegex requires before a group; none where the group stands in one of several alternatives.
fn lead(pattern: &[u8], group: usize) -> Option<Needle> {
    let (mut at, mut opened) = (0, 0);
    let mut start = None;
    while at < pattern.len() {
        match pattern[at] {
            b'|' => return None,
            b'(' => {
                start = start.or((opened == group).then_some(at));
                opened += 1;
            }
            _ => {}
        }
        at += if pattern[at] == b'\\' { 2 } else { 1 };
    }
    let before = Expression::compile(Kind::OsRegex, &pattern[..start?]).ok()?;
    before.required_literals().pop().map(|literal| Needle::new(&literal))
}

/// Other targets behind the match that are surrounded as the one that was taken.
fn behind(
    rivals: &Rivals,
    log: &[u8],
    field: StaticField,
    value: &[u8],
    origin: Origin,
    captures: &mut Captures,
) -> Found {
    let mut found = Found::new();
    // The last byte of the match, often a blank, may be the first of what stands before the other target.
    let start = origin.after.saturating_sub(1).max(origin.end);
    if field == StaticField::SrcIp && !has_address(log.get(start..).unwrap_or_default()) {
        return found;
    }
    for (_, _, around, group) in
        rivals.around.iter().filter(|(of, group, ..)| *of == field && *group == origin.group)
    {
        let mut from = start;
        for _ in 0..RESTARTS {
            let rest = log.get(from..).unwrap_or_default();
            if rest.is_empty() || around.find(rest, captures).is_none() {
                break;
            }
            let Some(range) = captures.get(*group) else { break };
            let other = rest.get(range.clone()).unwrap_or_default();
            if differs(field, value, other) {
                found.push((from + range.start, other.to_vec()));
            }
            from += range.end.max(range.start + 1);
        }
    }
    found
}

/// For each alternative of an OSRegex that has variable text before the group: what follows the last such text, and the
/// group's number in it. Nothing for a group with fewer than `least` bytes of literal text before it, which mark no place.
fn surroundings(pattern: &[u8], group: usize, least: usize) -> Vec<(&[u8], usize)> {
    let alternatives = pattern.split(|byte| *byte == b'|');
    alternatives.filter_map(|text| surrounding(text, group, least)).collect()
}

fn surrounding(text: &[u8], group: usize, least: usize) -> Option<(&[u8], usize)> {
    // Behind the last variable part, and how many groups were opened up to there.
    let mut start: Option<(usize, usize)> = None;
    let (mut at, mut opened) = (0, 0);
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            (b'\\', Some(b'w' | b'W' | b'd' | b'D' | b's' | b'S' | b'p' | b't' | b'.')) => {
                at += 2;
                if matches!(text.get(at), Some(b'+' | b'*')) {
                    at += 1;
                    let closed = usize::from(text.get(at) == Some(&b')'));
                    at += closed;
                    start = Some((at, opened));
                }
            }
            (b'\\', _) => at += 2,
            (b'(', _) if opened == group => {
                let (start, before) = start?;
                return (start + least <= at).then(|| (&text[start..], group - before));
            }
            (b'(', _) => {
                opened += 1;
                at += 1;
            }
            _ => at += 1,
        }
    }
    None
}

/// Whether a text may hold an address. Of the marks between its numbers enough must follow each other closely: three dots,
/// or two colons at once, or six colons; a time or a hardware address has fewer.
fn has_address(text: &[u8]) -> bool {
    // At most three digits between two dots, four between two colons.
    row(memchr::memchr_iter(b'.', text), 4, 3, false) || row(memchr::memchr_iter(b':', text), 5, 6, true)
}

/// Whether so many places follow each other, none further than `reach` from the one before; two neighbours suffice where
/// `pair` says so.
fn row(places: impl Iterator<Item = usize>, reach: usize, length: usize, pair: bool) -> bool {
    let mut last = None;
    let mut count = 0;
    for place in places {
        match last.map(|last| place - last) {
            Some(1) if pair => return true,
            Some(distance) if distance <= reach => count += 1,
            _ => count = 1,
        }
        if count == length {
            return true;
        }
        last = Some(place);
    }
    false
}

fn differs(field: StaticField, value: &[u8], other: &[u8]) -> bool {
    match field {
        StaticField::SrcIp => match (address(value), address(other)) {
            (Some(value), Some(other)) => value != other,
            (None, Some(_)) => true,
            _ => false,
        },
        _ => !other.is_empty() && value != other,
    }
}

fn address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Whether some alternative is anchored at either end, so that a restart would ask another question.
fn is_bound(expression: &Expression) -> bool {
    let pattern = expression.pattern();
    if expression.kind() == Kind::Pcre2 {
        let class = |at: usize| at > 0 && matches!(pattern.get(at - 1), Some(b'[' | b'\\'));
        let caret = memchr::memchr_iter(b'^', pattern).any(|at| !class(at));
        return caret || memchr::memmem::find(pattern, b"\\A").is_some() || pattern.ends_with(b"$");
    }
    pattern.split(|byte| *byte == b'|').any(|text| {
        let escaped = text.iter().rev().skip(1).take_while(|byte| **byte == b'\\').count() % 2 == 1;
        text.starts_with(b"^") || (text.ends_with(b"$") && !escaped)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_with_an_address_may_hold_one(
            before in "[ .:0-9a-f]{0,12}|\\PC{0,12}",
            address in any::<IpAddr>(),
            zeros in any::<u128>(),
            behind in "[ .:0-9a-f]{0,12}|\\PC{0,12}",
        ) {
            // Also addresses with runs of zeros, which are written shorter.
            let sparse = IpAddr::from((zeros & zeros.rotate_left(64) & 0xffff_0000_0000_ffff_0000_0000_ffff_ffff).to_be_bytes());
            for address in [address, sparse] {
                let text = format!("{before}{address}{behind}");
                prop_assert!(has_address(text.as_bytes()), "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_line_without_the_lead_of_a_group_has_no_second_match(
            pattern in prop::sample::select(vec![
                "Test same_(\\S+) '(\\w+)' '(\\w+)' from (\\d+.\\d+.\\d+.\\d+)", "user (\\S+) from (\\S+)", "(\\S+) \\.+ src=(\\S+)",
                "\\S+ (\\w+)-agent(\\d+)@(\\S+)", "user\\p*(\\S+)|from (\\S+)", "a\\|b (\\S+) c", "\\(x\\) (\\S+) y*(\\w+)",
            ]),
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "Test same_x", "test SAME_", "'u'", "'", "from", "1.2.3.4", "user", "USER", "src=a", "b-agent1@", "agent", "a|b",
                    "(x)", "y", "c", " ", "|", "=",
                ]),
                0..24,
            ),
            group in 0_usize..4,
        ) {
            let line = words.join(" ");
            let expression = Expression::compile(Kind::OsRegex, pattern.as_bytes()).unwrap();
            let mut captures = Captures::new();
            for start in 0..line.len() {
                let rest = &line.as_bytes()[start..];
                let matches = expression.find(rest, &mut captures).is_some() && captures.get(group).is_some();
                let lead = lead(pattern.as_bytes(), group);
                prop_assert!(!matches || lead.is_none_or(|lead| lead.is_in(rest)), "{pattern} {group} {line} from {start}");
            }
        }
    }

    #[test]
    fn a_lead_is_found_where_there_is_one_alternative() {
        let text = |pattern: &str, group| lead(pattern.as_bytes(), group);
        assert_eq!(text(r"Test same_(\S+) '(\w+)'", 1), Some(Needle::new(b"test same_")));
        assert_eq!(text(r"user (\S+)|from (\S+)", 1), None);
        assert_eq!(text(r"(\S+) from", 0), None);
        assert_eq!(text(r"a\|bc (\S+)", 0), Some(Needle::new(b"a|bc ")));
    }

    #[test]
    fn times_and_hardware_addresses_are_no_addresses() {
        for (text, wanted) in [
            ("at 10:15:30 and 11:16:31, version 1.2.3", false),
            ("aa:bb:cc:dd:ee:ff x.y.z www.example.org", false),
            ("::", true),
            ("1:2:3:4:5:6:7:8", true),
            ("1:2:3:4:5:6:192.0.2.1", true),
            ("from 192.0.2.1", true),
        ] {
            assert_eq!(has_address(text.as_bytes()), wanted, "{text}");
        }
    }
}
