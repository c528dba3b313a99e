//! SonicWall firewalls: `pri=… c=… m=… … src=ip:port:zone dst=ip:port:zone proto=…`; the category and message
//! number decide which type of event it is.

use std::sync::LazyLock;

use tld_pattern::{Captures, Expression, Kind};

use crate::decoder::select::slice;
use crate::{Category, Decoded, StaticField, Value};

/// The three expressions of the contract (analysis-decoders 6), compiled once.
struct Expressions {
    head: Expression,
    endpoints: Expression,
    request: Expression,
}

static EXPRESSIONS: LazyLock<Option<Expressions>> = LazyLock::new(|| {
    let compile = |text: &str| Expression::compile(Kind::OsRegex, text.as_bytes()).ok();
    Some(Expressions {
        head: compile(r"pri=(\d) c=(\d+) m=(\d+) ")?,
        endpoints: compile(r"src=(\d+.\d+.\d+.\d+):(\d+):\S+ dst=(\d+.\d+.\d+.\d+):(\d+):")?,
        request: compile(r"result=(\d+) dstname=(\S+) arg=(\S+)$")?,
    })
});

/// Longest protocol text kept.
const PROTOCOL_LENGTH: usize = 6;

pub(in crate::decoder) fn decode<'e>(decoded: &mut Decoded<'e>, log: &Value<'e>) -> bool {
    decoded.category = Category::Syslog;
    let Some(expressions) = EXPRESSIONS.as_ref() else { return false };
    read(decoded, log, expressions).is_some()
}

fn read<'e>(decoded: &mut Decoded<'e>, log: &Value<'e>, expressions: &Expressions) -> Option<()> {
    use StaticField::{DstIp, DstPort, Id, SrcIp, SrcPort, Status};
    let mut captures = Captures::new();
    let mut groups = |expression: &Expression, at: usize| {
        let next = at + expression.find(log.get(at..)?, &mut captures)?;
        let values: Vec<Value<'e>> = captures.iter().map(|g| slice(log, at + g.start, at + g.end)).collect();
        Some((next.min(log.len()), values))
    };
    let (at, head) = groups(&expressions.head, 0)?;
    let [status, category, id] = <[Value<'e>; 3]>::try_from(head).ok()?;
    decoded.set(Status, &status);
    decoded.set(Id, &id);
    let (at, endpoints) = groups(&expressions.endpoints, at)?;
    for (field, value) in [SrcIp, SrcPort, DstIp, DstPort].into_iter().zip(endpoints) {
        decoded.set(field, &value);
    }
    let mut here = at;
    if let Some(blank) = memchr::memchr(b' ', log.get(at..)?) {
        here = at + blank + 1;
        let rest = log.get(here..)?;
        if let Some(value) = rest.strip_prefix(b"proto=") {
            let length = value.iter().take(PROTOCOL_LENGTH).take_while(|byte| **byte != b'/').count();
            here += b"proto=".len();
            decoded.set(StaticField::Protocol, &slice(log, here, here + length));
        }
    }
    classify(decoded, &category, &id);
    if *id == *b"97" {
        let (_, request) = groups(&expressions.request, here)?;
        let [result, host, path] = <[Value<'e>; 3]>::try_from(request).ok()?;
        decoded.set(Id, &result);
        decoded.set(StaticField::Url, &[host, path].concat());
    }
    Some(())
}

fn classify(decoded: &mut Decoded<'_>, category: &[u8], id: &[u8]) {
    let (kind, action): (Category, Option<&'static [u8]>) = match (category, id) {
        (b"32", _) => (Category::Ids, None),
        (_, b"98" | b"597" | b"598") => (Category::Firewall, Some(b"pass")),
        (_, b"38" | b"36" | b"173" | b"174" | b"37") => (Category::Firewall, Some(b"drop")),
        (_, b"537") => (Category::Firewall, Some(b"close")),
        (_, b"97") => (Category::Squid, None),
        _ => return,
    };
    decoded.category = kind;
    if let Some(action) = action {
        decoded.set(StaticField::Action, action);
    }
}
