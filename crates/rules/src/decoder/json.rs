//! JSON as the contract's parser reads it: lenient about numbers and what follows the value, strict about depth.
//!
//! Objects keep the order of their members and all duplicates, because fields come out in document order.
//! Strings without escapes are slices of the text. Invariant: nesting beyond [`DEPTH`] is an error, so neither
//! parsing nor walking nor dropping a value can exhaust the stack.

use std::borrow::Cow;

use wide::u8x16;

/// Deepest nesting.
pub(super) const DEPTH: usize = 512;
/// So many times sixteen bytes of a string are looked at before the rest is searched.
const SHORT_BLOCKS: usize = 6;
/// Longest text of a number.
const NUMBER_LENGTH: usize = 63;

/// A parsed value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json<'t> {
    Null,
    Bool(bool),
    Number(f64),
    String(Cow<'t, [u8]>),
    Array(Vec<Self>),
    Object(Vec<(Cow<'t, [u8]>, Self)>),
}

impl<'t> Json<'t> {
    /// The value at the start of the text; blanks before it and anything behind it are allowed.
    pub(super) fn parse(text: &'t [u8]) -> Option<Self> {
        Parser::new(text).value(0)
    }

    /// The first member of that exact name.
    pub(super) fn member(&self, name: &[u8]) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(key, _)| **key == *name).map(|(_, value)| value)
    }

    /// Indented text: what an array looks like in a field.
    pub(super) fn pretty(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, Some(0));
        out
    }

    /// Text without any blanks.
    pub(super) fn compact(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, None);
        out
    }

    /// `depth` is the number of values around this one when indenting, none for compact text.
    fn write(&self, out: &mut Vec<u8>, depth: Option<usize>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Number(value) => out.extend_from_slice(shortest(*value).as_bytes()),
            Self::String(text) => write_string(text, out),
            Self::Array(elements) => {
                out.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.extend_from_slice(if depth.is_some() { b", " } else { b"," });
                    }
                    element.write(out, depth.map(|depth| depth + 1));
                }
                out.push(b']');
            }
            Self::Object(members) => Self::write_object(members, out, depth),
        }
    }

    fn write_object(members: &[(Cow<'t, [u8]>, Self)], out: &mut Vec<u8>, depth: Option<usize>) {
        out.push(b'{');
        if depth.is_some() {
            out.push(b'\n');
        }
        for (index, (key, value)) in members.iter().enumerate() {
            out.extend(std::iter::repeat_n(b'\t', depth.map_or(0, |depth| depth + 1)));
            write_string(key, out);
            out.push(b':');
            if depth.is_some() {
                out.push(b'\t');
            }
            value.write(out, depth.map(|depth| depth + 1));
            if index + 1 < members.len() {
                out.push(b',');
            }
            if depth.is_some() {
                out.push(b'\n');
            }
        }
        out.extend(std::iter::repeat_n(b'\t', depth.unwrap_or(0)));
        out.push(b'}');
    }
}

/// A number as a field: an integer if it fits into 32 bits, six decimals otherwise.
pub(super) fn field_number(value: f64) -> String {
    match integer(value) {
        Some(integer) => integer.to_string(),
        None if value.is_infinite() => (if value > 0.0 { "inf" } else { "-inf" }).into(),
        None => format!("{value:.6}"),
    }
}

fn integer(value: f64) -> Option<i32> {
    // A float cast saturates, which is what the contract's conversion does.
    let integer = value as i32;
    (f64::from(integer) == value).then_some(integer)
}

/// A number inside JSON text: 15 significant digits, 17 if those do not read back the same.
fn shortest(value: f64) -> String {
    if let Some(integer) = integer(value) {
        return integer.to_string();
    }
    if !value.is_finite() {
        return "null".into();
    }
    let text = general(value, 15);
    if text.parse::<f64>().is_ok_and(|read| (read - value).abs() <= value.abs() * f64::EPSILON) {
        text
    } else {
        general(value, 17)
    }
}

/// C's `%.<digits>g`.
fn general(value: f64, digits: usize) -> String {
    let text = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let wide = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= wide {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.unsigned_abs());
    }
    let decimals = usize::try_from(wide - 1 - exponent).unwrap_or(0);
    trim(&format!("{value:.decimals$}"))
}

/// A string with quotes and the standard escapes; bytes above ASCII are copied.
fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

/// Reads a text piece by piece.
#[derive(Debug)]
pub(super) struct Parser<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Parser<'t> {
    /// A reader at the start of a text.
    pub(super) fn new(text: &'t [u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self { text, at: 0 }
    }

    /// Goes over the colon between a name and its value.
    pub(super) fn colon(&mut self) -> Option<()> {
        self.skip_blanks();
        self.byte(b':')?;
        self.skip_blanks();
        Some(())
    }

    /// An integer of at most fifteen digits as it stands here, and whether a field shows decimals behind it because it is
    /// one of more than 32 bits.
    pub(super) fn integer(&mut self) -> Option<(&'t [u8], bool)> {
        let rest = self.rest();
        let sign = usize::from(rest.first() == Some(&b'-'));
        let digits = rest.iter().skip(sign).take(16).take_while(|byte| byte.is_ascii_digit()).count();
        let alone = !rest.get(sign + digits).is_some_and(|byte| b"+-.eE".contains(byte));
        let leading_zero = rest.get(sign) == Some(&b'0') && (digits > 1 || sign == 1);
        if !(1..16).contains(&digits) || !alone || leading_zero {
            return None;
        }
        let text = rest.get(..sign + digits)?;
        let most: &[u8] = if sign == 1 { b"-2147483648" } else { b"2147483647" };
        let long = digits > 10 || (digits == 10 && text > most);
        self.at += sign + digits;
        Some((text, long))
    }

    /// A string: as it stands here, or appended to `out`.
    pub(super) fn text(&mut self, out: &mut Vec<u8>) -> Option<Option<&'t [u8]>> {
        self.byte(b'"')?;
        let end = self.special(self.at)?;
        if self.text.get(end) == Some(&b'"') {
            let plain = self.text.get(self.at..end);
            self.at = end + 1;
            return Some(plain);
        }
        self.rewritten(end, out).map(|()| None)
    }

    /// The rest of a string that is not what it stands for, up to whose first such byte nothing is to be done.
    #[inline(never)]
    fn rewritten(&mut self, mut next: usize, out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        loop {
            out.extend_from_slice(self.text.get(self.at..next)?);
            self.at = next + 1;
            match self.text.get(next)? {
                b'"' => break,
                b'\\' => {
                    self.escape(out)?;
                    // Where a path is quoted, one stands behind the other.
                    while self.byte(b'\\').is_some() {
                        self.escape(out)?;
                    }
                }
                _ => out.push(0),
            }
            next = self.special(self.at)?;
        }
        // Values end at a NUL, as all text does for expressions.
        if let Some(kept) = memchr::memchr(0, out.get(start..)?) {
            out.truncate(start + kept);
        }
        Some(())
    }

    /// The next quote, backslash or NUL from a place on.
    fn special(&self, from: usize) -> Option<usize> {
        let mut rest = self.text.get(from..)?;
        let mut at = from;
        // Most strings are short; a search that is made for long ones costs more than these.
        for _ in 0..SHORT_BLOCKS {
            let Some((block, behind)) = rest.split_first_chunk::<16>() else { break };
            let special = specials(*block);
            if special != 0 {
                return Some(at + special.trailing_zeros() as usize);
            }
            at += 16;
            rest = behind;
        }
        memchr::memchr3(b'"', b'\\', 0, rest).map(|place| at + place)
    }

    fn rest(&self) -> &'t [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn skip_blanks(&mut self) {
        // The NUL ends a text and is no blank.
        while self.peek().is_some_and(|byte| (1..=0x20).contains(&byte)) {
            self.at += 1;
        }
    }

    /// Goes over a byte if it stands here.
    pub(super) fn byte(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// The text if it stands here.
    pub(super) fn take(&mut self, text: &[u8]) -> Option<&'t [u8]> {
        let there = self.rest().get(..text.len()).filter(|there| *there == text)?;
        self.at += text.len();
        Some(there)
    }

    /// Appends the array that stands here as a field shows it: [`Json::pretty`] without a tree between.
    pub(super) fn pretty(&mut self, depth: usize, out: &mut Vec<u8>) -> Option<()> {
        self.show(0, depth, out)
    }

    /// `tabs` is the number of values around this one within the field.
    fn show(&mut self, tabs: usize, depth: usize, out: &mut Vec<u8>) -> Option<()> {
        self.skip_blanks();
        match self.peek()? {
            b'"' => self.show_text(out),
            b'[' if depth < DEPTH => self.show_array(tabs, depth + 1, out),
            b'{' if depth < DEPTH => self.show_object(tabs, depth + 1, out),
            _ => {
                self.value(depth)?.write(out, Some(tabs));
                Some(())
            }
        }
    }

    fn show_array(&mut self, tabs: usize, depth: usize, out: &mut Vec<u8>) -> Option<()> {
        self.byte(b'[')?;
        out.push(b'[');
        self.skip_blanks();
        if self.peek() != Some(b']') {
            loop {
                self.show(tabs + 1, depth, out)?;
                self.skip_blanks();
                if self.byte(b',').is_none() {
                    break;
                }
                out.extend_from_slice(b", ");
            }
        }
        self.byte(b']')?;
        out.push(b']');
        Some(())
    }

    fn show_object(&mut self, tabs: usize, depth: usize, out: &mut Vec<u8>) -> Option<()> {
        self.byte(b'{')?;
        out.extend_from_slice(b"{\n");
        self.skip_blanks();
        if self.peek() != Some(b'}') {
            loop {
                self.skip_blanks();
                out.extend(std::iter::repeat_n(b'\t', tabs + 1));
                self.show_text(out)?;
                self.skip_blanks();
                self.byte(b':')?;
                out.extend_from_slice(b":\t");
                self.show(tabs + 1, depth, out)?;
                self.skip_blanks();
                if self.byte(b',').is_none() {
                    break;
                }
                out.extend_from_slice(b",\n");
            }
            out.push(b'\n');
        }
        self.byte(b'}')?;
        out.extend(std::iter::repeat_n(b'\t', tabs));
        out.push(b'}');
        Some(())
    }

    fn show_text(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let text = self.string()?;
        write_string(&text, out);
        Some(())
    }

    pub(super) fn value(&mut self, depth: usize) -> Option<Json<'t>> {
        self.skip_blanks();
        match self.peek()? {
            b'n' => self.take(b"null").map(|_| Json::Null),
            b't' => self.take(b"true").map(|_| Json::Bool(true)),
            b'f' => self.take(b"false").map(|_| Json::Bool(false)),
            b'"' => self.string().map(Json::String),
            b'-' | b'0'..=b'9' => self.number().map(Json::Number),
            b'[' if depth < DEPTH => self.array(depth + 1),
            b'{' if depth < DEPTH => self.object(depth + 1),
            _ => None,
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json<'t>> {
        self.at += 1;
        self.skip_blanks();
        let mut elements = Vec::new();
        if self.byte(b']').is_some() {
            return Some(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            self.skip_blanks();
            if self.byte(b',').is_none() {
                break;
            }
        }
        self.byte(b']').map(|()| Json::Array(elements))
    }

    fn object(&mut self, depth: usize) -> Option<Json<'t>> {
        self.at += 1;
        self.skip_blanks();
        let mut members = Vec::new();
        if self.byte(b'}').is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.skip_blanks();
            let key = self.string()?;
            self.skip_blanks();
            self.byte(b':')?;
            members.push((key, self.value(depth)?));
            self.skip_blanks();
            if self.byte(b',').is_none() {
                break;
            }
        }
        self.byte(b'}').map(|()| Json::Object(members))
    }

    fn number(&mut self) -> Option<f64> {
        let allowed = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let length = self.rest().iter().take(NUMBER_LENGTH).take_while(allowed).count();
        let text = std::str::from_utf8(self.rest().get(..length)?).ok()?;
        // Like `strtod`, the longest beginning that is a number counts.
        let (length, value) =
            (1..=length).rev().find_map(|end| Some((end, text.get(..end)?.parse::<f64>().ok()?)))?;
        self.at += length;
        Some(value)
    }

    pub(super) fn string(&mut self) -> Option<Cow<'t, [u8]>> {
        let mut unescaped = Vec::new();
        self.text(&mut unescaped).map(|text| text.map_or(Cow::Owned(unescaped), Cow::Borrowed))
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let plain = match self.peek()? {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'u' => {
                self.at += 1;
                let character = self.code_point()?;
                let mut buffer = [0; 4];
                out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        self.at += 1;
        out.push(plain);
        Some(())
    }

    /// Four hexadecimal digits, and the second half of a pair if the first half stands here.
    fn code_point(&mut self) -> Option<char> {
        let first = self.four_digits()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.take(b"\\u")?;
        let second = self.four_digits()?;
        let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.rest().get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        self.at += 4;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

/// Which of sixteen bytes are quotes, backslashes or NULs: a bit for each.
#[inline]
fn specials(bytes: [u8; 16]) -> u32 {
    let bytes = u8x16::new(bytes);
    let quote = bytes.simd_eq(u8x16::splat(b'"'));
    let slash = bytes.simd_eq(u8x16::splat(b'\\'));
    (quote | slash | bytes.simd_eq(u8x16::ZERO)).to_bitmask()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Parser;

    proptest! {
        #[test]
        fn strings_of_any_length_end_at_the_first_byte_that_is_not_plain(
            before in "[a!#\u{e9}]{0,140}",
            special in prop_oneof![Just("\""), Just("\\"), Just("\0"), Just("")],
            behind in "[a\"\\\\\0]{0,40}",
        ) {
            let text = [&*before, special, &*behind].concat();
            let wanted = text.bytes().position(|byte| b"\"\\\0".contains(&byte));
            prop_assert_eq!(Parser::new(text.as_bytes()).special(0), wanted);
        }
    }
}
