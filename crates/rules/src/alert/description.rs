//! Expansion of `$(name)` in descriptions (analysis-rules 3.1).

use crate::{Decoded, StaticField};

/// A result that reaches this length is given up for the text as written.
const LIMIT: usize = 1024;

/// The description for this event.
pub(crate) fn expand(text: &[u8], event: &Decoded<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some(start) = variable(rest) {
        let Some(length) = memchr::memchr(b')', &rest[start..]) else { break };
        out.extend_from_slice(&rest[..start]);
        out.extend_from_slice(value(&rest[start + 2..start + length], event));
        rest = &rest[start + length + 1..];
    }
    out.extend_from_slice(rest);
    if out.len() >= LIMIT { text.to_vec() } else { out }
}

/// Where the next `$(` stands.
fn variable(text: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'$', text).find(|at| text.get(at + 1) == Some(&b'('))
}

fn value<'a>(name: &[u8], event: &'a Decoded<'_>) -> &'a [u8] {
    let Ok(name) = std::str::from_utf8(name) else { return b"" };
    let value = match name {
        "program_name" => event.program_name.as_deref(),
        "hostname" => event.hostname(),
        _ => match StaticField::from_name(name) {
            Some(field) => event.field(field),
            None => event.dynamic_field(name),
        },
    };
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tld_model::{Event, Timestamp};

    #[test]
    fn names_are_replaced_by_values_and_missing_ones_by_nothing() {
        let event = Event::local("x", "log", Timestamp::EPOCH);
        let mut event = Decoded::new(&event);
        event.set(StaticField::SrcIp, b"192.0.2.1");
        event.push_dynamic("A.b", b"v", 1);
        let expand = |text: &str| String::from_utf8(expand(text.as_bytes(), &event)).unwrap();
        assert_eq!(expand("from $(srcip): $(a.B)$(none) $(srcip"), "from 192.0.2.1: v $(srcip");
        assert_eq!(expand("$(user)$5"), "$5");
        let long = format!("$(srcip){}", "x".repeat(1020));
        assert_eq!(expand(&long), long);
    }
}
