//! Packets as the BSD packet filter's tcpdump prints them: `… 2/0(match) block in on em0: a.b.c.d.1 > e.f.g.h.2: …`.

use super::Cursor;
use crate::decoder::select::slice;
use crate::{Decoded, StaticField, Value};

pub(in crate::decoder) fn decode<'e>(decoded: &mut Decoded<'e>, log: &Value<'e>) -> bool {
    read(decoded, &mut Cursor::new(log)).is_some()
}

fn read<'e>(decoded: &mut Decoded<'e>, cursor: &mut Cursor<'_, 'e>) -> Option<()> {
    cursor.pass(b")")?;
    cursor.take(b" ")?;
    let action: &'static [u8] = match cursor.peek()? {
        b'p' => b"pass",
        b'b' => b"block",
        _ => return None,
    };
    decoded.set(StaticField::Action, action);
    cursor.pass(b": ")?;
    let source = cursor.until(b' ')?;
    set_endpoint(decoded, &source, StaticField::SrcIp, StaticField::SrcPort);
    cursor.take(b"> ")?;
    let destination = cursor.until(b':')?;
    set_endpoint(decoded, &destination, StaticField::DstIp, StaticField::DstPort);
    while cursor.peek() == Some(b' ') {
        cursor.at += 1;
    }
    let protocol: &'static [u8] = match cursor.peek()? {
        b'u' => b"UDP",
        b'i' => b"ICMP",
        _ => b"TCP",
    };
    decoded.set(StaticField::Protocol, protocol);
    Some(())
}

/// Splits at the fourth dot: `a.b.c.d.port`.
fn set_endpoint<'e>(decoded: &mut Decoded<'e>, text: &Value<'e>, ip: StaticField, port: StaticField) {
    let dot = memchr::memchr_iter(b'.', text).nth(3);
    decoded.set(ip, &slice(text, 0, dot.unwrap_or(text.len())));
    if let Some(dot) = dot {
        decoded.set(port, &slice(text, dot + 1, text.len()));
    }
}
