//! JSON text as the contract writes it: compact, members in a given order, bytes above 0x7f copied unchanged even if
//! they are no UTF-8 (analysis-output 1).

/// Appends a JSON string.
pub(crate) fn string(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    escaped(text, out);
    out.push(b'"');
}

/// Appends what stands between the quotes of a JSON string.
pub(crate) fn escaped(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text;
    loop {
        let plain = plain_length(rest);
        let (head, tail) = rest.split_at(plain);
        out.extend_from_slice(head);
        let Some((&byte, tail)) = tail.split_first() else { return };
        rest = tail;
        out.push(b'\\');
        match byte {
            b'"' | b'\\' => out.push(byte),
            8 => out.push(b'b'),
            12 => out.push(b'f'),
            b'\n' => out.push(b'n'),
            b'\r' => out.push(b'r'),
            b'\t' => out.push(b't'),
            _ => {
                out.extend_from_slice(b"u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
}

/// How many bytes stand before the first that must be escaped; eight at a time.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    // A byte below a limit borrows into its high bit; exact for the first such byte, which is all that counts.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let mut at = 0;
    for chunk in text.chunks_exact(8) {
        let word = chunk.try_into().map_or(0, u64::from_le_bytes);
        let quote = word ^ (ONES * u64::from(b'"'));
        let slash = word ^ (ONES * u64::from(b'\\'));
        let special = below(word, 0x20) | below(quote, 1) | below(slash, 1);
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = text[at..].iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    at + rest.unwrap_or(text.len() - at)
}

/// Appends members of one object.
pub(crate) struct Object<'o> {
    pub(crate) out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    /// Opens an object.
    pub(crate) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Starts a member; its value is to follow.
    pub(crate) fn key(&mut self, key: &[u8]) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        string(key, self.out);
        self.out.push(b':');
        self.out
    }

    /// The same for a name of ours, which needs no escapes.
    pub(crate) fn named(&mut self, key: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.empty { b"\"" } else { b",\"" });
        self.empty = false;
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A text member.
    pub(crate) fn text(&mut self, key: &'static str, value: &[u8]) {
        string(value, self.named(key));
    }

    /// A number or truth value, already in JSON form.
    pub(crate) fn raw(&mut self, key: &'static str, value: &str) {
        self.named(key).extend_from_slice(value.as_bytes());
    }

    /// An array of texts.
    pub(crate) fn texts<'a>(&mut self, key: &[u8], values: impl IntoIterator<Item = &'a [u8]>) {
        let out = self.key(key);
        out.push(b'[');
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            string(value, out);
        }
        out.push(b']');
    }

    /// Closes the object.
    pub(crate) fn close(self) {
        self.out.push(b'}');
    }
}

/// A JSON array in compact form, if the whole text is one: blanks go, numbers and escapes are written anew.
/// Works token by token without recursion, because nesting is the sender's choice.
pub(crate) fn compact_array(text: &[u8]) -> Option<Vec<u8>> {
    if text.first() != Some(&b'[') {
        return None;
    }
    let mut scanner = Scanner { rest: text, out: Vec::with_capacity(text.len()) };
    let mut open: Vec<u8> = Vec::new();
    loop {
        scanner.value(&mut open)?;
        // Behind a value: close what ends here, then expect the next value or the end.
        loop {
            scanner.blanks();
            let Some(&inner) = open.last() else {
                return scanner.rest.is_empty().then_some(scanner.out);
            };
            let closing = if inner == b'[' { b']' } else { b'}' };
            if scanner.take(closing) {
                scanner.out.push(closing);
                open.pop();
                continue;
            }
            if !scanner.take(b',') {
                return None;
            }
            scanner.out.push(b',');
            if inner == b'{' {
                scanner.member()?;
            }
            break;
        }
    }
}

/// Deeper nesting is no JSON to the contract's reader.
const DEEPEST: usize = 1000;

struct Scanner<'a> {
    rest: &'a [u8],
    out: Vec<u8>,
}

impl Scanner<'_> {
    fn blanks(&mut self) {
        let blanks = self.rest.iter().take_while(|byte| **byte <= b' ').count();
        self.rest = &self.rest[blanks..];
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.rest.first() == Some(&byte);
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }

    /// Reads a scalar or an empty container, or descends to the first value of a container.
    fn value(&mut self, open: &mut Vec<u8>) -> Option<()> {
        loop {
            self.blanks();
            match *self.rest.first()? {
                kind @ (b'[' | b'{') => {
                    if open.len() >= DEEPEST {
                        return None;
                    }
                    self.rest = &self.rest[1..];
                    self.out.push(kind);
                    self.blanks();
                    let closing = if kind == b'[' { b']' } else { b'}' };
                    if self.take(closing) {
                        self.out.push(closing);
                        return Some(());
                    }
                    open.push(kind);
                    if kind == b'{' {
                        self.member()?;
                    }
                }
                b'"' => return self.text(),
                b't' => return self.word(b"true"),
                b'f' => return self.word(b"false"),
                b'n' => return self.word(b"null"),
                _ => return self.number(),
            }
        }
    }

    /// A key and its colon.
    fn member(&mut self) -> Option<()> {
        self.blanks();
        if self.rest.first() != Some(&b'"') {
            return None;
        }
        self.text()?;
        self.blanks();
        self.take(b':').then(|| self.out.push(b':'))
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        self.out.extend_from_slice(word);
        Some(())
    }

    fn text(&mut self) -> Option<()> {
        let mut rest = self.rest.get(1..)?;
        // A text without escapes stays as it is.
        let stop = memchr::memchr2(b'"', b'\\', rest)?;
        if rest[stop] == b'"' && plain_length(&rest[..stop]) == stop {
            self.out.extend_from_slice(&self.rest[..stop + 2]);
            self.rest = &rest[stop + 1..];
            return Some(());
        }
        let mut plain = Vec::new();
        loop {
            let stop = memchr::memchr2(b'"', b'\\', rest)?;
            plain.extend_from_slice(&rest[..stop]);
            let closed = rest[stop] == b'"';
            rest = &rest[stop + 1..];
            if closed {
                break;
            }
            let (&escape, after) = rest.split_first()?;
            rest = after;
            match escape {
                b'"' | b'\\' | b'/' => plain.push(escape),
                b'b' => plain.push(8),
                b'f' => plain.push(12),
                b'n' => plain.push(b'\n'),
                b'r' => plain.push(b'\r'),
                b't' => plain.push(b'\t'),
                b'u' => {
                    let (character, after) = unicode(rest)?;
                    rest = after;
                    plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => return None,
            }
        }
        self.rest = rest;
        string(&plain, &mut self.out);
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let of_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let length = self.rest.iter().take_while(of_number).count();
        let (digits, rest) = self.rest.split_at(length);
        let number: f64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        self.rest = rest;
        self.out.extend_from_slice(number_text(number).as_bytes());
        Some(())
    }
}

fn unicode(text: &[u8]) -> Option<(char, &[u8])> {
    let unit = |text: &[u8]| {
        let digits = text.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit(text)?;
    let rest = text.get(4..)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first)
            .filter(|character| *character != '\0')
            .map(|character| (character, rest));
    }
    let rest = rest.strip_prefix(b"\\u")?;
    let second = unit(rest).filter(|second| (0xdc00..0xe000).contains(second))?;
    let character = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?;
    Some((character, rest.get(4..)?))
}

/// Integers of 32 bits as such, other numbers with as many digits as they need, at least 15 (C's `%1.15g`, else
/// `%1.17g`).
fn number_text(number: f64) -> String {
    if !number.is_finite() {
        return "null".to_owned();
    }
    if number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX) {
        return format!("{}", number as i64);
    }
    let short = general(number, 15);
    if short.parse::<f64>().is_ok_and(|again| again == number) { short } else { general(number, 17) }
}

/// C's `%.{digits}g`.
fn general(number: f64, digits: usize) -> String {
    let scientific = format!("{:.*e}", digits - 1, number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let limit = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= limit {
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let decimals = usize::try_from(limit - 1 - exponent).unwrap_or(0);
    let fixed = format!("{number:.decimals$}");
    if fixed.contains('.') { fixed.trim_end_matches('0').trim_end_matches('.').to_owned() } else { fixed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(text: &str) -> Option<String> {
        compact_array(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn control_bytes_are_escaped_and_high_bytes_are_not() {
        let mut out = Vec::new();
        string(b"a\"\\\n\x01/\xff", &mut out);
        assert_eq!(out, b"\"a\\\"\\\\\\n\\u0001/\xff\"");
    }

    #[test]
    fn the_first_byte_to_escape_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                let mut text = vec![0xff; 24];
                text[at] = byte;
                text[21] = b'"';
                let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                assert_eq!(plain_length(&text), if special { at } else { 21 }, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn arrays_lose_their_blanks_and_keep_their_order() {
        for (text, wanted) in [
            ("[]", "[]"),
            ("[ \"a\" , {\"k\":\t1.500000, \"k\": [ ]} , null ]", "[\"a\",{\"k\":1.5,\"k\":[]},null]"),
            ("[1e3, 3000000000, 0.1, 1e-7]", "[1000,3000000000,0.1,1e-07]"),
            ("[\"\\u00e9\\/\\ud83d\\ude00\"]", "[\"é/😀\"]"),
            ("[\"plain é\", \"\", \"a\u{1}b\"]", "[\"plain é\",\"\",\"a\\u0001b\"]"),
        ] {
            assert_eq!(compact(text).as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_not_completely_an_array_is_none() {
        for text in ["[x", "[1,]", "[1] x", "[\"a]", "{}", "[{1:2}]", "[\"\\x\"]", "[[1]", "[1}"] {
            assert_eq!(compact(text), None, "{text}");
        }
    }

    #[test]
    fn very_deep_nesting_is_refused_without_recursion() {
        assert_eq!(compact(&"[".repeat(100_000)), None);
        let deep = format!("{}{}", "[".repeat(900), "]".repeat(900));
        assert_eq!(compact(&deep), Some(deep));
    }
}
