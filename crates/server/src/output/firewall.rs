//! A line of `logs/firewall/firewall.log` (analysis-output 3). Invariant: one event, one line, whatever its fields hold.

use tld_model::LocalTime;
use tld_rules::{Category, Decoded, StaticField as F};

/// The line without its newline; none for events of other types and those that lack one of the six fields.
pub(crate) fn line(event: &Decoded<'_>, at: &LocalTime) -> Option<Vec<u8>> {
    if event.category != Category::Firewall {
        return None;
    }
    let fields = [F::Protocol, F::SrcIp, F::SrcPort, F::DstIp, F::DstPort];
    let mut values = [b"".as_slice(); 5];
    for (value, field) in values.iter_mut().zip(fields) {
        *value = event.field(field)?;
    }
    let [protocol, srcip, srcport, dstip, dstport] = values;
    let action = word(event.field(F::Action)?);
    let mut line = format!("{} ", at.plain_stamp()).into_bytes();
    if !event.location.starts_with(b"(") {
        line.extend_from_slice(event.hostname().unwrap_or_default());
        line.extend_from_slice(b"->");
    }
    let parts = [
        &*event.location,
        b" ",
        action,
        b" ",
        protocol,
        b" ",
        srcip,
        b":",
        srcport,
        b"->",
        dstip,
        b":",
        dstport,
    ];
    parts.iter().for_each(|part| line.extend_from_slice(part));
    for byte in &mut line {
        if byte.is_ascii_control() {
            *byte = b'?';
        }
    }
    Some(line)
}

/// What the firewall did, by the first letter of its own word.
fn word(action: &[u8]) -> &'static [u8] {
    match action.first().map(u8::to_ascii_lowercase) {
        Some(b'd' | b'r' | b'b') => b"DROP",
        Some(b'c' | b't') => b"CLOSED",
        Some(b'a' | b'p' | b'o') => b"ALLOW",
        _ => b"UNKNOWN",
    }
}

#[cfg(test)]
mod tests {

    use tld_model::{Event, Timestamp, Zone};

    use super::*;

    fn at() -> LocalTime {
        Zone::utc().local(Timestamp::from_secs(1_772_446_530))
    }

    #[test]
    fn six_fields_make_a_line_and_five_do_not() {
        let event = Event::local("/var/log/fw.log", "x", Timestamp::EPOCH);
        let mut decoded = Decoded::new(&event);
        decoded.category = Category::Firewall;
        decoded.set_hostname(b"gate");
        let all = [
            (F::Action, "Blocked"),
            (F::SrcIp, "198.51.100.2"),
            (F::SrcPort, "4000"),
            (F::DstIp, "192.0.2.1"),
            (F::DstPort, "22\nx"),
        ];
        for (field, value) in all {
            decoded.set(field, value.as_bytes());
        }
        assert_eq!(line(&decoded, &at()), None);
        decoded.set(F::Protocol, b"tcp");
        let text = String::from_utf8(line(&decoded, &at()).unwrap()).unwrap();
        assert_eq!(
            text,
            "2026 Mar 02 10:15:30 gate->/var/log/fw.log DROP tcp 198.51.100.2:4000->192.0.2.1:22?x"
        );
        decoded.category = Category::Syslog;
        assert_eq!(line(&decoded, &at()), None);
    }
}
