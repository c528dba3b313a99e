//! The journal's export format: entries of `NAME=value` lines, or `NAME`, a 64-bit length and raw bytes.
//!
//! Pure: bytes in, entries out. Invariant: memory is bounded by [`MAX_ENTRY`] whatever the lengths claim; an
//! entry that is larger is skipped and counted, and reading goes on behind it.

use tld_model::{Timestamp, Zone};

/// Bytes of wanted fields kept per entry, and the longest line without a length.
pub(crate) const MAX_ENTRY: usize = 1024 * 1024;

/// The fields of an entry that a message is made of, and all others that a filter may ask for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    fields: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// The first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// The place to continue behind.
    pub(crate) fn cursor(&self) -> Option<&str> {
        self.field("__CURSOR").and_then(|value| std::str::from_utf8(value).ok())
    }

    /// When the journal received it, seconds since the epoch.
    pub(crate) fn seconds(&self) -> Option<i64> {
        let micros: i64 = std::str::from_utf8(self.field("__REALTIME_TIMESTAMP")?).ok()?.parse().ok()?;
        Some(micros.div_euclid(1_000_000))
    }

    /// `Mon DD HH:MM:SS host ident[pid]: text` in UTC; none without host or text.
    pub(crate) fn message(&self) -> Option<Vec<u8>> {
        let host = self.field("_HOSTNAME")?;
        let text = self.field("MESSAGE")?;
        let at = Zone::utc().local(Timestamp::from_secs(self.seconds()?));
        let mut message = crate::glob::strftime("%b %d %H:%M:%S ", &at).into_bytes();
        message.extend_from_slice(host);
        message.push(b' ');
        message.extend_from_slice(self.field("SYSLOG_IDENTIFIER").unwrap_or(b"unknown"));
        if let Some(pid) = self.field("SYSLOG_PID").or_else(|| self.field("_PID")) {
            message.push(b'[');
            message.extend_from_slice(pid);
            message.push(b']');
        }
        message.extend_from_slice(b": ");
        message.extend_from_slice(text);
        message.truncate(crate::lines::MAX_LINE);
        Some(message)
    }
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Line,
    /// Name of the field whose length comes next.
    Length(String),
    /// Name and bytes still to come, the closing newline included; `None` for a value too large to keep.
    Value(Option<String>, u64),
    /// A line without end, to be skipped.
    LongLine,
}

/// Reads the format from chunks of any size.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    state: State,
    buffer: Vec<u8>,
    entry: Entry,
    size: usize,
    oversized: bool,
    /// Entries skipped because of their size.
    pub(crate) skipped: u64,
}

impl Parser {
    /// Takes a chunk; pushes the entries that it completes.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], out: &mut Vec<Entry>) {
        while !chunk.is_empty() {
            chunk = match std::mem::take(&mut self.state) {
                State::Line => self.line(chunk, out),
                State::LongLine => self.long_line(chunk),
                State::Length(name) => self.length(name, chunk),
                State::Value(name, left) => self.value(name, left, chunk),
            };
        }
    }

    fn line<'a>(&mut self, chunk: &'a [u8], out: &mut Vec<Entry>) -> &'a [u8] {
        let (part, rest) = match memchr::memchr(b'\n', chunk).and_then(|at| chunk.split_at_checked(at)) {
            Some((part, rest)) => (part, rest.get(1..)),
            None => (chunk, None),
        };
        if self.buffer.len() + part.len() > MAX_ENTRY {
            self.buffer.clear();
            self.oversized = true;
            // The newline, if it is there, stays for that state.
            self.state = State::LongLine;
            return chunk.get(part.len()..).unwrap_or(&[]);
        }
        self.buffer.extend_from_slice(part);
        let Some(rest) = rest else { return &[] };
        let line = std::mem::take(&mut self.buffer);
        if line.is_empty() {
            self.finish(out);
        } else if let Some((name, value)) =
            memchr::memchr(b'=', &line).and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?)))
        {
            self.keep(String::from_utf8_lossy(name).into_owned(), value.to_vec());
        } else {
            self.state = State::Length(String::from_utf8_lossy(&line).into_owned());
        }
        rest
    }

    fn long_line<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        match memchr::memchr(b'\n', chunk) {
            Some(at) => chunk.get(at + 1..).unwrap_or(&[]),
            None => {
                self.state = State::LongLine;
                &[]
            }
        }
    }

    fn length<'a>(&mut self, name: String, chunk: &'a [u8]) -> &'a [u8] {
        let wanted = 8 - self.buffer.len().min(8);
        let (part, rest) = chunk.split_at(wanted.min(chunk.len()));
        self.buffer.extend_from_slice(part);
        let Ok(bytes) = <[u8; 8]>::try_from(self.buffer.as_slice()) else {
            self.state = State::Length(name);
            return rest;
        };
        self.buffer.clear();
        let length = u64::from_le_bytes(bytes);
        let fits = usize::try_from(length).is_ok_and(|length| self.size.saturating_add(length) <= MAX_ENTRY);
        self.oversized |= !fits;
        self.state = State::Value(fits.then_some(name), length.saturating_add(1));
        rest
    }

    fn value<'a>(&mut self, name: Option<String>, left: u64, chunk: &'a [u8]) -> &'a [u8] {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let (part, rest) = chunk.split_at(take);
        let left = left.saturating_sub(take as u64);
        if name.is_some() {
            self.buffer.extend_from_slice(part);
        }
        if left > 0 {
            self.state = State::Value(name, left);
        } else if let Some(name) = name {
            let mut value = std::mem::take(&mut self.buffer);
            value.pop();
            self.keep(name, value);
        }
        rest
    }

    fn keep(&mut self, name: String, value: Vec<u8>) {
        self.size = self.size.saturating_add(name.len() + value.len() + 64);
        if self.size > MAX_ENTRY * 2 {
            self.oversized = true;
        } else {
            self.entry.fields.push((name, value));
        }
    }

    fn finish(&mut self, out: &mut Vec<Entry>) {
        let entry = std::mem::take(&mut self.entry);
        self.size = 0;
        if std::mem::take(&mut self.oversized) {
            self.skipped += 1;
        } else if !entry.fields.is_empty() {
            out.push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> (Vec<Entry>, u64) {
        let mut parser = Parser::default();
        let mut out = Vec::new();
        for chunk in chunks {
            parser.feed(chunk, &mut out);
        }
        (out, parser.skipped)
    }

    fn binary(name: &str, value: &[u8]) -> Vec<u8> {
        [name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat()
    }

    const HEAD: &[u8] =
        b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1709210096123456\n_HOSTNAME=web1\nSYSLOG_IDENTIFIER=sshd\n_PID=42\n";

    #[test]
    fn an_entry_becomes_a_syslog_line_in_utc() {
        let (entries, _) = parse(&[HEAD, b"MESSAGE=Failed password\n\n"]);
        assert_eq!(entries[0].message().unwrap(), b"Feb 29 12:34:56 web1 sshd[42]: Failed password");
        assert_eq!(entries[0].cursor(), Some("s=1;i=2"));
    }

    #[test]
    fn the_day_has_two_digits_and_unknown_senders_are_called_so() {
        let (entries, _) = parse(&[b"__REALTIME_TIMESTAMP=0\n_HOSTNAME=h\nMESSAGE=x\n\n"]);
        assert_eq!(entries[0].message().unwrap(), b"Jan 01 00:00:00 h unknown: x");
    }

    #[test]
    fn the_senders_own_pid_goes_before_the_kernels() {
        let (entries, _) = parse(&[HEAD, b"SYSLOG_PID=7\nMESSAGE=x\n\n"]);
        assert_eq!(entries[0].message().unwrap(), b"Feb 29 12:34:56 web1 sshd[7]: x");
    }

    #[test]
    fn an_entry_without_host_or_text_is_no_message() {
        let (entries, _) =
            parse(&[b"__REALTIME_TIMESTAMP=0\n_HOSTNAME=h\n\n__REALTIME_TIMESTAMP=0\nMESSAGE=x\n\n"]);
        assert!(entries.iter().all(|entry| entry.message().is_none()));
    }

    #[test]
    fn a_binary_field_keeps_newlines_and_equals_signs() {
        let text = binary("MESSAGE", b"a\nb=c\n\n");
        let (entries, _) = parse(&[HEAD, &text, b"\n"]);
        assert_eq!(entries[0].field("MESSAGE"), Some(&b"a\nb=c\n\n"[..]));
    }

    #[test]
    fn an_oversized_entry_is_skipped_and_the_next_one_read() {
        let huge = vec![b'x'; MAX_ENTRY + 1];
        let (entries, skipped) = parse(&[HEAD, &binary("MESSAGE", &huge), b"\nA=1\n\n"]);
        assert_eq!((entries.len(), skipped), (1, 1));
        let (entries, skipped) = parse(&[HEAD, b"M=", &huge, b"\n\nA=1\n\n"]);
        assert_eq!((entries.len(), skipped), (1, 1));
        assert_eq!(entries[0].field("A"), Some(&b"1"[..]));
    }

    #[test]
    fn a_length_that_lies_costs_no_memory() {
        let mut parser = Parser::default();
        let mut out = Vec::new();
        parser.feed(b"MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xff", &mut out);
        for _ in 0..100 {
            parser.feed(&[b'x'; 65_536], &mut out);
        }
        assert!(out.is_empty() && parser.buffer.capacity() < MAX_ENTRY);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic_and_chunking_never_matters(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'='), Just(0u8), any::<u8>()], 0..600),
            step in 1usize..40,
        ) {
            let whole = parse(&[&bytes]);
            let parts: Vec<&[u8]> = bytes.chunks(step).collect();
            prop_assert_eq!(&whole, &parse(&parts));
            for entry in whole.0 {
                entry.message();
            }
        }

        #[test]
        fn fields_survive_both_encodings(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..5), step in 1usize..30) {
            let mut stream = Vec::new();
            for (number, value) in values.iter().enumerate() {
                let name = format!("F{number}");
                if value.contains(&b'\n') || number % 2 == 0 {
                    stream.extend(binary(&name, value));
                } else {
                    stream.extend([name.as_bytes(), b"=", value, b"\n"].concat());
                }
            }
            stream.push(b'\n');
            let parts: Vec<&[u8]> = stream.chunks(step).collect();
            let (entries, _) = parse(&parts);
            prop_assert_eq!(entries.len(), 1);
            for (number, value) in values.iter().enumerate() {
                prop_assert_eq!(entries[0].field(&format!("F{number}")), Some(value.as_slice()));
            }
        }
    }
}
