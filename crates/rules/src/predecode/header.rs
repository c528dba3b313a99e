//! The header forms, in the order in which they are tried.

use super::Header;

/// Finds the first form that fits.
pub(super) fn read(text: &[u8]) -> Header<'_> {
    // A German March takes one byte more than other months: tests look at the text as if it had not, cuts do not.
    let umlaut = text.len() >= 2 && text.get(1..3) == Some(b"\xc3\xa4");
    let probe = Probe { text, umlaut };
    if let Some(length) = syslog_length(&probe) {
        return syslog(text, length);
    }
    if let Some((timestamp, log)) = dated(&probe) {
        let log = log.min(text.len());
        return Header { timestamp: text.get(timestamp), log, ..Header::default() };
    }
    if probe.longer_than(26)
        && probe.has(&[(0, b'['), (1, b'T'), (5, b' '), (10, b'.'), (13, b'.'), (16, b' '), (19, b':')])
    {
        return apple_log(text);
    }
    if is_squid(&probe) {
        let blanks = text.iter().skip(14).take_while(|byte| **byte == b' ').count();
        let log = (14 + blanks).min(text.len());
        return Header { timestamp: text.get(..log.saturating_sub(1)), log, ..Header::default() };
    }
    Header::default()
}

struct Probe<'e> {
    text: &'e [u8],
    umlaut: bool,
}

impl Probe<'_> {
    /// Compares with the length that the contract counts with: one more than the bytes.
    fn longer_than(&self, length: usize) -> bool {
        self.text.len() + 1 > length
    }

    /// The byte at a place; 0 behind the end.
    fn at(&self, place: usize) -> u8 {
        let byte = match (self.umlaut, place) {
            (true, 1) => return b'a',
            (true, 2..) => self.text.get(place + 1),
            _ => self.text.get(place),
        };
        byte.copied().unwrap_or(0)
    }

    fn has(&self, bytes: &[(usize, u8)]) -> bool {
        bytes.iter().all(|(place, byte)| self.at(*place) == *byte)
    }

    fn digit(&self, place: usize) -> bool {
        self.at(place).is_ascii_digit()
    }
}

/// Length of a syslog-like date, its blank included.
fn syslog_length(probe: &Probe<'_>) -> Option<usize> {
    const DASHED: [(usize, u8); 4] = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let long = probe.longer_than(33);
    let dashed = probe.has(&DASHED);
    if probe.longer_than(17) && probe.has(&[(3, b' '), (6, b' '), (15, b' '), (9, b':'), (12, b':')]) {
        return Some(16);
    }
    if probe.longer_than(24) && dashed && probe.has(&[(10, b' '), (19, b',')]) {
        return Some(24);
    }
    if long && dashed && probe.at(10) == b'T' {
        if probe.has(&[(22, b':'), (25, b' ')]) {
            return Some(26);
        }
        if probe.at(19) == b'.' {
            return Some(match (probe.at(26), probe.at(29)) {
                (b':', _) => 30,
                (_, b':') => 33,
                _ => 32,
            });
        }
    }
    let year_first = [(4, b' '), (8, b' '), (11, b' '), (20, b' '), (14, b':'), (17, b':')];
    if probe.longer_than(21) && probe.digit(0) && probe.has(&year_first) {
        return Some(21);
    }
    let unified = dashed && probe.has(&[(10, b' '), (19, b'.'), (31, b' ')]);
    (long && probe.digit(0) && unified && matches!(probe.at(26), b'-' | b'+')).then_some(32)
}

/// Forms of which only the date is removed: range of the date, start of the log.
fn dated(probe: &Probe<'_>) -> Option<(std::ops::Range<usize>, usize)> {
    const XFERLOG: &[(usize, u8)] =
        &[(3, b' '), (7, b' '), (10, b' '), (19, b' '), (24, b' '), (26, b' '), (13, b':'), (16, b':')];
    const SNORT: &[(usize, u8)] = &[(2, b'/'), (5, b'-'), (8, b':'), (11, b':'), (14, b'.'), (21, b' ')];
    const SURICATA: &[(usize, u8)] =
        &[(2, b'/'), (5, b'/'), (10, b'-'), (13, b':'), (16, b':'), (19, b'.'), (26, b' ')];
    const APACHE: &[(usize, u8)] =
        &[(0, b'['), (4, b' '), (8, b' '), (11, b' '), (20, b' '), (14, b':'), (17, b':'), (25, b']')];
    if probe.longer_than(28) && probe.has(XFERLOG) {
        return Some((0..24, 25));
    }
    if probe.longer_than(24) && probe.has(SNORT) {
        return Some((0..21, 23));
    }
    if probe.longer_than(26) && probe.has(SURICATA) {
        return Some((0..26, 28));
    }
    (probe.longer_than(27) && probe.has(APACHE)).then_some((1..25, 27))
}

fn is_squid(probe: &Probe<'_>) -> bool {
    probe.longer_than(32)
        && probe.has(&[(0, b'1'), (10, b'.'), (14, b' ')])
        && [1, 2, 3, 13].into_iter().all(|place| probe.digit(place))
        && (probe.at(21) == b' ' || probe.at(22) == b' ')
}

/// `[Time …] [Facility …] [Sender …] [PID …] [Message …] … [Host …]`
fn apple_log(text: &[u8]) -> Header<'_> {
    let mut header = Header { log: 25.min(text.len()), ..Header::default() };
    let mut at = 25;
    let mut has_message = false;
    while let Some(open) = text.get(at..).and_then(|rest| memchr::memchr(b'[', rest)) {
        at += open + 1;
        let rest = text.get(at..).unwrap_or_default();
        let close = memchr::memchr(b']', rest);
        if header.program.is_none() && rest.starts_with(b"Sender ") {
            let Some(close) = close else { break };
            header.program = rest.get(7..close);
            at += close;
        } else if !has_message && rest.starts_with(b"Message ") {
            has_message = true;
            header.log = at + 8;
            let Some(close) = close else { break };
            header.log_end = Some(at + close);
            at += close;
        } else if rest.starts_with(b"Host ") {
            header.hostname = close.and_then(|close| rest.get(5..close));
            break;
        }
    }
    header
}

/// Host and program behind a syslog-like date.
fn syslog(text: &[u8], length: usize) -> Header<'_> {
    let byte = |place: usize| text.get(place).copied().unwrap_or(0);
    let mut start = length.min(text.len());
    if byte(start) == b' ' {
        start += 1;
    }
    let mut header =
        Header { timestamp: text.get(..length.saturating_sub(1)), log: start, ..Header::default() };
    let end = name_end(text, start);
    let name = text.get(start..end);
    match (byte(end), byte(end + 1)) {
        (b':', b' ') => {
            header.program = name;
            header.log = skip_message_id(text, end + 2);
        }
        (b' ', _) => {
            header.hostname = name;
            header.log = end + 1;
            program(text, end + 1, &mut header);
        }
        _ => {}
    }
    header
}

fn program<'e>(text: &'e [u8], start: usize, header: &mut Header<'e>) {
    let byte = |place: usize| text.get(place).copied().unwrap_or(0);
    let end = name_end(text, start);
    match byte(end) {
        b':' => {
            header.program = text.get(start..end);
            header.log = skip_message_id(text, end + 1 + usize::from(byte(end + 1) == b' '));
        }
        b'[' if byte(end + 1).is_ascii_digit() => {
            let close = run_end(text, end + 1, |byte| byte.is_ascii_digit());
            let log = match (byte(close), byte(close + 1)) {
                (b']', b':') => close + 2 + usize::from(byte(close + 2) == b' '),
                (b']', b' ') => close + 2,
                _ => return,
            };
            header.program = text.get(start..end);
            header.log = skip_message_id(text, log);
        }
        b'|' if byte(end + 1).is_ascii_lowercase() => aix(text, end + 1, header),
        _ => {}
    }
}

/// `auth|security:info prog[123]: …`, from behind the bar.
fn aix<'e>(text: &'e [u8], facility: usize, header: &mut Header<'e>) {
    let byte = |place: usize| text.get(place).copied().unwrap_or(0);
    let colon = run_end(text, facility, |byte| byte.is_ascii_alphanumeric());
    if byte(colon) != b':' {
        return;
    }
    let blank = run_end(text, colon + 1, |byte| byte.is_ascii_alphanumeric());
    if byte(blank) != b' ' {
        return;
    }
    let start = blank + 1;
    let end = name_end(text, start);
    let name = text.get(start..end);
    match (byte(end), byte(end + 1)) {
        (b':', b' ') => {
            header.program = name;
            header.log = end + 2;
        }
        (b'[', _) => {
            let close = run_end(text, end + 1, |byte| byte.is_ascii_digit());
            header.program = name;
            if close > end + 1 && text.get(close..close + 3) == Some(b"]: ") {
                header.log = close + 3;
            }
        }
        _ => {
            // The contract forgets to end the name here.
            header.program = text.get(start..);
            header.log = end;
        }
    }
}

/// Solaris puts `[ID 702911 auth.notice] ` before the message.
fn skip_message_id(text: &[u8], log: usize) -> usize {
    let rest = text.get(log..).unwrap_or_default();
    if !rest.starts_with(b"[ID ") {
        return log.min(text.len());
    }
    memchr::memchr(b']', rest).map_or(log, |close| (log + close + 2).min(text.len()))
}

fn name_end(text: &[u8], start: usize) -> usize {
    run_end(text, start, |byte| byte.is_ascii_alphanumeric() || b"()-./@_".contains(&byte))
}

fn run_end(text: &[u8], start: usize, within: impl Fn(u8) -> bool) -> usize {
    let run = text.iter().skip(start).take_while(|byte| within(**byte)).count();
    start + run
}
