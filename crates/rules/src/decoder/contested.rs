//! Whether a captured target could have been another one: a user name that imitates the rest of its own message
//! (`Invalid user x from 203.0.113.9 port 22 from 198.51.100.5 port 40022`) makes an expression stop too early.
//!
//! The expression that set a field is started again at its first capture. Only an expression that may match
//! anywhere is asked: one that is bound to the beginning could not have taken anything else.

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
        return Vec::new();
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
