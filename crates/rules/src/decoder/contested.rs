//! Whether a captured target could have been another one: a user name that imitates the rest of its own message
//! (`Invalid user x from 203.0.113.9 port 22 from 198.51.100.5 port 40022`) makes an expression stop too early.
//!
//! The expression that set a field is started again at its first capture. One that is bound to the beginning cannot be
//! started elsewhere; if it lets text of any length pass before the target, that text may have imitated what follows it,
//! and the part of the expression around the target is looked for once more behind the match. Where nothing variable
//! stands before the target, or the expression is bound to the end, nobody could have moved the target.

use std::net::IpAddr;

use tld_pattern::{Captures, Expression, Kind};

use super::select::{Origin, origins};
use super::{Action, Decoders, Scratch};
use crate::{Decoded, StaticField};

/// Most restarts per field, so most other values reported.
const RESTARTS: usize = 64;

pub(super) fn contested(decoders: &Decoders, decoded: &Decoded<'_>) -> Vec<(StaticField, Vec<Vec<u8>>)> {
    if super::built_in(decoded.event.queue).is_some() || decoded.decoder.is_none() {
        return Vec::new();
    }
    let mut scratch = Scratch::new();
    let mut again = Decoded::new(decoded.event);
    again.log = std::borrow::Cow::Borrowed(&decoded.log);
    again.program_name = decoded.program_name.as_deref().map(std::borrow::Cow::Borrowed);
    let origins = origins(decoders, &mut again, &mut scratch);
    [StaticField::SrcIp, StaticField::DstUser]
        .into_iter()
        .filter_map(|field| {
            let origin = origins.get(field as usize).copied().flatten()?;
            let value = again.field(field)?;
            let others = others(decoders, &decoded.log, field, value, origin);
            (!others.is_empty()).then_some((field, others))
        })
        .collect()
}

fn others(decoders: &Decoders, log: &[u8], field: StaticField, value: &[u8], origin: Origin) -> Vec<Vec<u8>> {
    let Action::Regex(regex) = &decoders.entry(origin.decoder).action else { return Vec::new() };
    let expression = &regex.expression;
    if is_bound(expression) {
        return behind(expression, log, field, value, origin);
    }
    let mut captures = Captures::new();
    let mut capture = |from: usize| {
        let subject = log.get(from..).filter(|subject| !subject.is_empty())?;
        expression.find(subject, &mut captures)?;
        captures.get(origin.group).map(|range| from + range.start..from + range.end)
    };
    let mut found: Vec<Vec<u8>> = Vec::new();
    let Some(mut last) = capture(origin.from) else { return found };
    for _ in 0..RESTARTS {
        // The captured text may itself be what comes before the next target, so the search goes on at its start;
        // a match inside it would be a piece of the same word.
        let next = capture(last.start).filter(|next| next.start >= last.end);
        let Some(next) = next.or_else(|| capture(last.end)) else { break };
        let other = log.get(next.clone()).unwrap_or_default();
        if differs(field, value, other) && !found.iter().any(|known| known == other) {
            found.push(other.to_vec());
        }
        last = next.start..next.end.max(last.end + 1);
    }
    found
}

/// Other targets behind the match of a bound expression.
fn behind(expression: &Expression, log: &[u8], field: StaticField, value: &[u8], origin: Origin) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut captures = Captures::new();
    let subject = log.get(origin.from..).unwrap_or_default();
    let Some(end) = expression.find(subject, &mut captures) else { return found };
    let target = captures.get(origin.group).map_or(0, |range| range.end);
    let rest = subject.get(end.max(target)..).unwrap_or_default();
    if expression.kind() != Kind::OsRegex {
        return found;
    }
    // A later address is one by its form; a later name only by the words before it.
    let least = if field == StaticField::SrcIp { 1 } else { 3 };
    for (pattern, group) in surroundings(expression.pattern(), origin.group, least) {
        let Ok(around) = Expression::compile(Kind::OsRegex, pattern) else { continue };
        let mut rest = rest;
        for _ in 0..RESTARTS {
            if rest.is_empty() || around.find(rest, &mut captures).is_none() {
                break;
            }
            let Some(range) = captures.get(group) else { break };
            let other = rest.get(range.clone()).unwrap_or_default();
            if differs(field, value, other) && !found.iter().any(|known| known == other) {
                found.push(other.to_vec());
            }
            rest = rest.get(range.end.max(range.start + 1)..).unwrap_or_default();
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
