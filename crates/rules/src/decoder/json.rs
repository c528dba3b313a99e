//! JSON as the contract's parser reads it: lenient about numbers and what follows the value, strict about depth.
//!
//! Objects keep the order of their members and all duplicates, because fields come out in document order.
//! Strings without escapes are slices of the text. Invariant: nesting beyond [`DEPTH`] is an error, so neither
//! parsing nor walking nor dropping a value can exhaust the stack.

mod value;

use std::borrow::Cow;

use crate::fields::append_part;
use crate::special::specials;
use value::write_string;
pub(super) use value::{Json, field_number};

/// Deepest nesting.
pub(super) const DEPTH: usize = 512;
/// So many bytes are searched at once for what is special in strings.
const BLOCK: usize = 64;
/// Where no block begins.
const NOWHERE: usize = usize::MAX - BLOCK;
/// Longest text of a number.
const NUMBER_LENGTH: usize = 63;

/// Reads a text piece by piece.
#[derive(Debug)]
pub(super) struct Parser<'t> {
    text: &'t [u8],
    at: usize,
    /// Where the block begins that was searched last.
    block: usize,
    /// A bit for each of its bytes that is special in a string.
    marks: u64,
    /// Whether all since [`Parser::start`] stands as alerts write it: without blanks, and with their escapes only.
    exact: bool,
}

impl<'t> Parser<'t> {
    /// A reader at the start of a text.
    pub(super) fn new(text: &'t [u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self { text, at: 0, block: NOWHERE, marks: 0, exact: false }
    }

    /// The text that is read.
    pub(super) fn whole(&self) -> &'t [u8] {
        self.text
    }

    /// Whether that byte stands behind the one that stands here.
    pub(super) fn is_next(&self, byte: u8) -> bool {
        self.text.get(self.at + 1) == Some(&byte)
    }

    /// How far it was read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Begins what may stand as alerts write it.
    pub(super) fn start(&mut self) {
        self.exact = true;
    }

    /// Whether what began there stands so.
    pub(super) fn is_exact(&self) -> bool {
        self.exact
    }

    /// Reads again from there on.
    pub(super) fn back_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Goes over the colon between a name and its value; whether there are blanks, too.
    pub(super) fn colon(&mut self) -> Option<bool> {
        let start = self.at;
        self.skip_blanks();
        self.byte(b':')?;
        self.skip_blanks();
        Some(self.at > start + 1)
    }

    /// Goes over the comma behind a member and the blank behind that, if a quote follows.
    #[inline]
    pub(super) fn comma(&mut self) -> bool {
        let Some([b',', next, behind]) = self.text.get(self.at..).and_then(<[u8]>::first_chunk) else {
            return false;
        };
        if *next == b'"' {
            self.at += 1;
            return true;
        }
        let blank = *next == b' ' && *behind == b'"';
        if blank {
            self.at += 2;
        }
        blank
    }

    /// Goes over what stands behind a member: a comma and blanks, or the brace behind the last one. Whether one more follows.
    #[inline(never)]
    pub(super) fn comma_by_bytes(&mut self) -> Option<bool> {
        self.skip_blanks();
        if self.byte(b',').is_none() {
            return self.byte(b'}').map(|()| false);
        }
        self.skip_blanks();
        Some(true)
    }

    /// A string that is what it stands for: where its text begins and ends. Nothing is read where there is none.
    #[inline]
    pub(super) fn plain(&mut self) -> Option<(usize, usize)> {
        let start = self.at + 1;
        if self.peek() != Some(b'"') {
            return None;
        }
        let end = self.plain_end(start)?;
        self.at = end + 1;
        Some((start, end))
    }

    /// A value behind its colon that is such a string and does not look like an array: where its quotes stand. Nothing is read
    /// where there is none.
    #[inline]
    pub(super) fn plain_value(&mut self) -> Option<(usize, usize)> {
        let [colon, next, behind, more] = *self.text.get(self.at..)?.first_chunk()?;
        let blank = next == b' ';
        let (quote, first) = if blank { (behind, more) } else { (next, behind) };
        if colon != b':' || quote != b'"' || first == b'[' {
            return None;
        }
        let quote = self.at + 1 + usize::from(blank);
        let end = self.plain_end(quote + 1)?;
        self.at = end + 1;
        Some((quote, end))
    }

    /// Goes over a colon and the brace behind it, if they stand here.
    #[inline]
    pub(super) fn opens_object(&mut self) -> bool {
        let opens = self.rest().starts_with(b":{");
        if opens {
            self.at += 2;
        }
        opens
    }

    /// Where a string ends in which nothing is special from here on.
    #[inline]
    fn plain_end(&mut self, from: usize) -> Option<usize> {
        self.special(from).filter(|end| self.text.get(*end) == Some(&b'"'))
    }

    /// An integer of at most fifteen digits as it stands here, and whether a field shows decimals behind it because it is
    /// one of more than 32 bits.
    pub(super) fn integer(&mut self) -> Option<(&'t [u8], bool)> {
        let rest = self.rest();
        let sign = usize::from(rest.first() == Some(&b'-'));
        let mut end = sign;
        while rest.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
            if end == sign + 16 {
                return None;
            }
        }
        let text = rest.get(..end)?;
        let digits = end - sign;
        let leading_zero = rest.get(sign) == Some(&b'0') && (digits > 1 || sign == 1);
        let goes_on = matches!(rest.get(end), Some(b'+' | b'-' | b'.' | b'e' | b'E'));
        if digits == 0 || leading_zero || goes_on {
            return None;
        }
        let most: &[u8] = if sign == 1 { b"-2147483648" } else { b"2147483647" };
        let long = digits > 10 || (digits == 10 && text > most);
        self.at += end;
        Some((text, long))
    }

    /// A string: as it stands here, or appended to `out`.
    #[inline]
    pub(super) fn text(&mut self, out: &mut Vec<u8>) -> Option<Option<&'t [u8]>> {
        if let Some((start, end)) = self.plain() {
            return Some(self.text.get(start..end));
        }
        self.byte(b'"')?;
        self.rewritten(out).map(|()| None)
    }

    /// The rest of a string that is not what it stands for.
    #[inline(never)]
    fn rewritten(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let (text, start) = (self.text, out.len());
        // Whether there may be a NUL.
        let mut odd = false;
        let mut at = self.at;
        loop {
            let next = self.special(at)?;
            append_part::<32>(out, text, at, next);
            at = next;
            // Where a path is quoted, one stands behind the other.
            while let Some([b'\\', letter]) = text.get(at..).and_then(<[u8]>::first_chunk) {
                let byte = ESCAPES[usize::from(*letter)];
                if byte == 0 {
                    self.at = at + 1;
                    self.unicode(out)?;
                    (at, odd) = (self.at, true);
                } else {
                    self.exact &= *letter != b'/';
                    out.push(byte);
                    at += 2;
                }
            }
            match *text.get(at)? {
                b'"' => break,
                b'\\' => return None,
                byte if byte < 0x20 => {
                    odd = true;
                    out.push(byte);
                    at += 1;
                }
                _ => {}
            }
        }
        self.at = at + 1;
        // Values end at a NUL, as all text does for expressions.
        if odd {
            self.exact = false;
            if let Some(kept) = memchr::memchr(0, out.get(start..)?) {
                out.truncate(start + kept);
            }
        }
        Some(())
    }

    /// The next quote, backslash or control character from a place on.
    #[inline]
    fn special(&mut self, from: usize) -> Option<usize> {
        let into = from.wrapping_sub(self.block);
        if into < BLOCK {
            let marks = self.marks >> into;
            if marks != 0 {
                return Some(from + marks.trailing_zeros() as usize);
            }
        }
        self.search(from)
    }

    /// The same by a look at the text: behind what was looked at already, at blocks of it one behind the other.
    #[inline(never)]
    fn search(&mut self, from: usize) -> Option<usize> {
        let mut start = if from.wrapping_sub(self.block) < BLOCK { self.block + BLOCK } else { from };
        loop {
            let rest = self.text.get(start..)?;
            let marks = match rest.first_chunk() {
                Some(block) => block_specials(block),
                None => last_specials(rest)?,
            };
            if marks != 0 {
                (self.block, self.marks) = (start, marks);
                return Some(start + marks.trailing_zeros() as usize);
            }
            start += BLOCK;
        }
    }

    fn rest(&self) -> &'t [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    pub(super) fn skip_blanks(&mut self) {
        if self.peek().is_some_and(|byte| byte <= 0x20) {
            self.skip();
        }
    }

    #[inline(never)]
    fn skip(&mut self) {
        // The NUL ends a text and is no blank.
        while self.peek().is_some_and(|byte| (1..=0x20).contains(&byte)) {
            self.exact = false;
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
            first => {
                let start = self.at;
                if let Some((text, false)) = self.integer() {
                    out.extend_from_slice(text);
                    return Some(());
                }
                self.at = start;
                self.exact &= first.is_ascii_lowercase();
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
        let start = self.at;
        let before = std::mem::replace(&mut self.exact, true);
        let text = self.string()?;
        // What is written with these escapes only is what would be written.
        match self.text.get(start..self.at) {
            Some(_) if self.exact => append_part::<16>(out, self.text, start, self.at),
            _ => write_string(&text, out),
        }
        self.exact &= before;
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

    /// What stands behind a backslash and is no letter for one byte.
    #[inline(never)]
    fn unicode(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.byte(b'u')?;
        let character = self.code_point()?;
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
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

/// What a byte behind a backslash stands for; 0 where it is none of one byte.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes[b'/' as usize] = b'/';
    escapes[b'b' as usize] = 8;
    escapes[b'f' as usize] = 12;
    escapes[b'n' as usize] = b'\n';
    escapes[b'r' as usize] = b'\r';
    escapes[b't' as usize] = b'\t';
    escapes
};

/// Which of these bytes are quotes, backslashes or control characters: a bit for each.
#[inline]
fn block_specials(bytes: &[u8; BLOCK]) -> u64 {
    let (pieces, _) = bytes.as_chunks();
    pieces.iter().rev().fold(0, |marks, piece| marks << 16 | u64::from(specials(*piece)))
}

/// The same at the end of a text; none where there is nothing more.
#[inline(never)]
fn last_specials(rest: &[u8]) -> Option<u64> {
    let mut padded = [b' '; BLOCK];
    padded.get_mut(..rest.len())?.copy_from_slice(rest);
    (!rest.is_empty()).then(|| block_specials(&padded))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Parser;

    proptest! {
        #[test]
        fn strings_of_any_length_end_at_the_first_byte_that_is_not_plain(
            before in "[a!#\u{e9}\u{7f}]{0,140}",
            special in prop_oneof![Just("\""), Just("\\"), Just("\0"), Just("\t"), Just("")],
            behind in "[a\"\\\\\0]{0,140}",
            from in 0_usize..140,
        ) {
            let text = [&*before, special, &*behind].concat();
            let special = |byte: &u8| *byte < 0x20 || b"\"\\".contains(byte);
            let mut parser = Parser::new(text.as_bytes());
            for from in [0, from, 0] {
                let wanted = text.bytes().skip(from).position(|byte| special(&byte)).map(|at| at + from);
                prop_assert_eq!(parser.special(from), wanted);
            }
        }
    }
}
