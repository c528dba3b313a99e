//! Memory that alerts are rendered in: bytes that are there already, and how many of them count. Since what lies behind
//! them may be overwritten, texts are escaped sixteen bytes at a time.
//!
//! Invariant: what counts is what appending to a `Vec` would have given ([`super::json`] holds the plain form).

use tld_pattern::block::few;
use wide::u8x16;

use crate::special::specials;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Page {
    bytes: Vec<u8>,
    end: usize,
}

/// Texts are escaped in pieces of so many bytes, which become six times as many at most.
const PIECE: usize = 2048;
/// Room behind them, so that the last ones are copied in a block, too.
const SPARE: usize = 64;
/// More than this is given back at the start of the next page.
const MOST: usize = 256 << 10;

impl Page {
    /// Starts anew.
    pub(crate) fn clear(&mut self) {
        self.end = 0;
        if self.bytes.len() > MOST {
            self.bytes = Vec::new();
        }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.end
    }

    /// What was written.
    pub(crate) fn written(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// Forgets what was written since then.
    pub(crate) fn back_to(&mut self, end: usize) {
        self.end = end.min(self.end);
    }

    /// Replaces one byte.
    pub(crate) fn set(&mut self, at: usize, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(at) {
            *slot = byte;
        }
    }

    /// What lies behind the text: so many bytes at least.
    #[inline]
    fn room(&mut self, least: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < least {
            self.grow(least);
        }
        &mut self.bytes[self.end..]
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, least: usize) {
        let wanted = (self.end + least).max(self.bytes.len() * 2).max(4096);
        self.bytes.resize(wanted, 0);
    }

    /// Appends bytes as they are.
    #[inline(never)]
    pub(crate) fn append(&mut self, text: &[u8]) {
        self.room(text.len())[..text.len()].copy_from_slice(text);
        self.end += text.len();
    }

    /// Appends one byte.
    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        self.room(1)[0] = byte;
        self.end += 1;
    }

    /// Appends a number.
    pub(crate) fn decimal(&mut self, number: u32) {
        let mut text = [0; 10];
        let digits = number.checked_ilog10().map_or(1, |digits| digits as usize + 1);
        digits_into(number, &mut text[..digits]);
        self.append(&text[..digits]);
    }

    /// Appends what stands between the quotes of a JSON string.
    #[inline(never)]
    pub(crate) fn escaped(&mut self, text: &[u8]) {
        let mut rest = text;
        loop {
            let (piece, more) = rest.split_at(rest.len().min(PIECE));
            self.end += escape(piece, self.room(piece.len() * 6 + SPARE));
            if more.is_empty() {
                return;
            }
            rest = more;
        }
    }

    /// Appends bytes as they are, and a text with the quote behind it.
    #[inline(never)]
    pub(crate) fn quoted(&mut self, lead: &[u8], text: &[u8]) {
        if lead.len() + text.len() > PIECE {
            self.append(lead);
            self.escaped(text);
            self.push(b'"');
            return;
        }
        let out = self.room(lead.len() + text.len() * 6 + SPARE);
        out[..lead.len()].copy_from_slice(lead);
        let mut to = lead.len();
        to += escape(text, &mut out[to..]);
        out[to] = b'"';
        self.end += to + 1;
    }

    /// Appends a mark, a name in quotes and a colon.
    #[inline(never)]
    pub(crate) fn key(&mut self, mark: u8, name: &[u8]) {
        if name.len() > PIECE {
            self.append(&[mark, b'"']);
            self.escaped(name);
            self.append(b"\":");
            return;
        }
        let out = self.room(name.len() * 6 + SPARE);
        out[..2].copy_from_slice(&[mark, b'"']);
        let to = 2 + escape(name, &mut out[2..]);
        out[to..to + 2].copy_from_slice(b"\":");
        self.end += to + 2;
    }

    /// Appends a mark, a name in quotes, a colon and a text in quotes.
    pub(crate) fn member(&mut self, mark: u8, name: &[u8], text: &[u8]) {
        let most = name.len() + text.len();
        if most > PIECE {
            self.key(mark, name);
            self.quoted(b"\"", text);
            return;
        }
        let out = self.room(most * 6 + SPARE);
        out[..2].copy_from_slice(&[mark, b'"']);
        let mut to = 2 + escape(name, &mut out[2..]);
        out[to..to + 3].copy_from_slice(b"\":\"");
        to += 3;
        to += escape(text, &mut out[to..]);
        out[to] = b'"';
        self.end += to + 1;
    }
}

/// Writes the last digits of a number.
#[inline(never)]
pub(super) fn digits_into(number: u32, out: &mut [u8]) {
    let mut rest = number;
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// For bytes that must be escaped what stands behind the backslash, 0 for those written by their number.
const LETTERS: [u8; 256] = {
    let mut letters = [0; 256];
    letters[b'"' as usize] = b'"';
    letters[b'\\' as usize] = b'\\';
    letters[8] = b'b';
    letters[12] = b'f';
    letters[b'\n' as usize] = b'n';
    letters[b'\r' as usize] = b'r';
    letters[b'\t' as usize] = b't';
    letters
};

/// Escapes a text into room for six times as many bytes and sixteen more; how many it took.
#[inline(never)]
fn escape(text: &[u8], out: &mut [u8]) -> usize {
    let length = text.len();
    let mut at = 0;
    if let Some(last) = length.checked_sub(16) {
        while let (Some(from), Some(to)) =
            (text.get(at..at + 16).and_then(<[u8]>::first_chunk::<16>), out.get_mut(at..at + 16))
        {
            if specials(*from) != 0 {
                break;
            }
            to.copy_from_slice(from);
            if at == last {
                return length;
            }
            // The last piece begins where it ends with the text: some of its bytes are seen twice.
            at = (at + 16).min(last);
        }
        return escape_from(at, text, out);
    }
    let bytes = few(text);
    if let Some(room) = out.first_chunk_mut::<16>()
        && specials(bytes) & ((1 << length) - 1) == 0
    {
        *room = bytes;
        return length;
    }
    let mut padded = [0; 32];
    padded[..16].copy_from_slice(&bytes);
    escape_block(&padded, length, out)
}

/// The same as [`escape`] where nothing is to be escaped up to `start`.
#[inline(never)]
fn escape_from(start: usize, text: &[u8], out: &mut [u8]) -> usize {
    let (mut from, mut to) = (start, start);
    // Sixteen bytes, and as many behind them.
    while let Some(bytes) = text.get(from..from + 32).and_then(<[u8]>::first_chunk) {
        to += escape_block(bytes, 16, &mut out[to..]);
        from += 16;
    }
    let rest = &text[from..];
    let mut padded = [0; 48];
    padded[..rest.len()].copy_from_slice(rest);
    for (at, count) in [(0, rest.len().min(16)), (16, rest.len().saturating_sub(16))] {
        if let Some(bytes) = padded[at..].first_chunk() {
            to += escape_block(bytes, count, &mut out[to..]);
        }
    }
    to
}

/// Escapes so many of the first sixteen bytes; how many that took.
#[inline]
fn escape_block(bytes: &[u8; 32], count: usize, out: &mut [u8]) -> usize {
    let Some((block, _)) = bytes.split_first_chunk() else { return 0 };
    let [marked, other] = specials_by_kind(*block).map(|places| places & ((1 << count) - 1));
    match out.first_chunk_mut() {
        Some(room) if other == 0 => count + mark(bytes, marked, room),
        _ => escape_each(&block[..count], out),
    }
}

/// Copies sixteen bytes with a backslash before those at these places; how many there are.
#[inline]
fn mark(bytes: &[u8; 32], mut places: u32, room: &mut [u8; 48]) -> usize {
    room[..16].copy_from_slice(&bytes[..16]);
    let mut marks = 0;
    while places != 0 {
        let at = places.trailing_zeros() as usize % 16;
        places &= places - 1;
        let to = (at + marks) % 32;
        room[to] = b'\\';
        // What stands behind it is written anew.
        room[to + 1..to + 17].copy_from_slice(&bytes[at..at + 16]);
        marks += 1;
    }
    marks
}

/// Escapes a few bytes one by one.
#[cold]
#[inline(never)]
fn escape_each(bytes: &[u8], out: &mut [u8]) -> usize {
    let mut to = 0;
    for byte in bytes {
        if *byte < 0x20 || *byte == b'"' || *byte == b'\\' {
            to += escape_one(*byte, &mut out[to..]);
        } else {
            out[to] = *byte;
            to += 1;
        }
    }
    to
}

/// Which of sixteen bytes take a backslash before them, and which must be escaped otherwise: a bit for each.
#[inline]
fn specials_by_kind(bytes: [u8; 16]) -> [u32; 2] {
    let bytes = u8x16::new(bytes);
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    let quote = bytes.simd_eq(u8x16::splat(b'"'));
    let slash = bytes.simd_eq(u8x16::splat(b'\\'));
    [(quote | slash).to_bitmask(), control.to_bitmask()]
}

/// Escapes one byte that must be escaped; how many bytes it took.
#[inline]
fn escape_one(byte: u8, out: &mut [u8]) -> usize {
    let letter = LETTERS[usize::from(byte)];
    if letter == 0 {
        return escape_by_number(byte, out);
    }
    out[..2].copy_from_slice(&[b'\\', letter]);
    2
}

#[cold]
#[inline(never)]
fn escape_by_number(byte: u8, out: &mut [u8]) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
    out[..6].copy_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
    6
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alert::json;

    fn page(text: &[u8]) -> Vec<u8> {
        let mut page = Page::default();
        page.escaped(text);
        page.written().to_vec()
    }

    fn plain(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        json::escaped(text, &mut out);
        out
    }

    #[test]
    fn every_byte_is_escaped_as_in_the_plain_form_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                let mut text = vec![0xff; 24];
                (text[at], text[21]) = (byte, b'"');
                assert_eq!(page(&text), plain(&text), "{byte} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn texts_of_any_length_are_escaped_as_in_the_plain_form(
            text in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'!'), 0_u8..0x22], 0..1500),
        ) {
            prop_assert_eq!(page(&text), plain(&text));
        }

        #[test]
        fn a_member_is_its_key_and_its_text(
            name in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'a')], 0..300),
            text in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'a')], 0..300),
        ) {
            let (mut one, mut two) = (Page::default(), Page::default());
            one.member(b',', &name, &text);
            two.key(b',', &name);
            two.quoted(b"\"", &text);
            let wanted = [b",\"", &*plain(&name), b"\":\"", &*plain(&text), b"\""].concat();
            prop_assert_eq!(one.written(), &*wanted);
            prop_assert_eq!(two.written(), &*wanted);
        }

        #[test]
        fn numbers_are_written_in_full(number: u32) {
            let mut page = Page::default();
            page.decimal(number);
            let text = number.to_string();
            prop_assert_eq!(page.written(), text.as_bytes());
        }
    }
}
