//! Records of one kind told by how they differ: events of one rule repeat most of their text, so what is older than the
//! newest is kept as a pattern and the words that are not in it.
//!
//! A record is cut into words and single other bytes, and wherever one of its values begins or ends. Records with as
//! many pieces and with their values at the same ones share a pattern, the first of them; another is the list of its
//! pieces that differ. Each is read on its own, without its neighbours.
//! Invariant: unpacking gives the record back byte for byte.

use std::collections::HashMap;

use super::record::{self, PLAIN};
use crate::hash::Quick;

/// Longer bodies, and heads of more numbers, stay as they are.
const LONGEST: usize = 8192;
const MOST_NUMBERS: usize = 256;
/// Patterns of one set.
const MOST_PATTERNS: usize = 255;
/// Pieces that one byte can pass over; more follow as a number.
const FAR: usize = 31;

/// Bytes that words are made of.
const WORD: [bool; 256] = {
    let mut word = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        word[byte] = value.is_ascii_alphanumeric() || matches!(value, b'.' | b'-' | b'_') || value >= 0x80;
        byte += 1;
    }
    word
};

/// How a piece is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bytes,
    Decimal8,
    Decimal16,
    Decimal32,
    TwoDigits,
    Hex16,
    Address,
}

const FORMS: [Form; 7] = [
    Form::Bytes,
    Form::Decimal8,
    Form::Decimal16,
    Form::Decimal32,
    Form::TwoDigits,
    Form::Hex16,
    Form::Address,
];

/// The patterns that the records of one set refer to.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Patterns {
    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity() + size_of::<u32>() * self.ends.capacity()
    }

    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    fn find(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.bytes[start..self.ends[number] as usize]
    }

    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len() as u32);
    }
}

/// A record cut into pieces.
#[derive(Debug, Default)]
struct Cut {
    numbers: Vec<u32>,
    /// The places among them, in order.
    places: Vec<u32>,
    /// Where pieces begin, and where the last one ends.
    bounds: Vec<u32>,
}

impl Cut {
    /// Cuts a record; its body. None for one that is too long.
    fn cut<'r>(&mut self, record: &'r [u8]) -> Option<&'r [u8]> {
        let body = record::split(record, &mut self.numbers);
        let places = self.numbers.iter().enumerate().filter(|(at, _)| !PLAIN.contains(at));
        self.places.clear();
        self.places.extend(places.map(|(_, place)| *place));
        self.places.sort_unstable();
        let last = self.places.last().map_or(0, |last| *last as usize);
        if body.len() > LONGEST || self.numbers.len() > MOST_NUMBERS || last > body.len() {
            return None;
        }
        self.bounds.clear();
        self.bounds.push(0);
        let mut places = self.places.iter().map(|place| *place as usize).peekable();
        for (at, pair) in (1..).zip(body.windows(2)) {
            let mut cut = !(WORD[usize::from(pair[0])] && WORD[usize::from(pair[1])]);
            while let Some(place) = places.next_if(|place| *place <= at) {
                cut |= place == at;
            }
            if cut {
                self.bounds.push(at as u32);
            }
        }
        if !body.is_empty() {
            self.bounds.push(body.len() as u32);
        }
        // Places become numbers of pieces.
        for at in (0..self.numbers.len()).filter(|at| !PLAIN.contains(at)) {
            self.numbers[at] = self.bounds.binary_search(&self.numbers[at]).ok()? as u32;
        }
        Some(body)
    }

    fn pieces(&self) -> usize {
        self.bounds.len() - 1
    }

    fn piece<'b>(&self, body: &'b [u8], number: usize) -> &'b [u8] {
        &body[self.bounds[number] as usize..self.bounds[number + 1] as usize]
    }

    /// Equal for records that should share a pattern; equal for others only by chance.
    fn shape(&self, body: &[u8]) -> u64 {
        let mut shape = self.bounds.len() as u64;
        let mut mix =
            |number: u64| shape = (shape.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.numbers.iter().for_each(|number| mix(u64::from(*number)));
        body.iter().filter(|byte| !WORD[usize::from(**byte)]).for_each(|byte| mix(u64::from(*byte)));
        shape
    }
}

/// Packs and unpacks records; keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Packer {
    /// Patterns of the set in work by shape, each cut.
    shapes: HashMap<u64, usize, Quick>,
    cuts: Vec<Cut>,
    used: usize,
    cut: Cut,
    body: Vec<u8>,
    bounds: Vec<u32>,
}

impl Packer {
    /// Begins a set without patterns.
    pub(super) fn begin(&mut self) {
        self.shapes.clear();
        self.used = 0;
    }

    /// Appends a record to the set in work.
    pub(super) fn pack(&mut self, raw: &[u8], patterns: &mut Patterns, out: &mut Vec<u8>) {
        let Some(body) = self.cut.cut(raw) else { return whole(raw, out) };
        let shape = self.cut.shape(body);
        match self.shapes.get(&shape) {
            Some(&number) => {
                let known = &self.cuts[number];
                if known.numbers != self.cut.numbers || known.bounds.len() != self.cut.bounds.len() {
                    return whole(raw, out);
                }
                record::put(number as u32 + 1, out);
                let pattern = record::split(patterns.find(number), &mut self.bounds);
                differences((known, pattern), (&self.cut, body), out);
            }
            None if self.used < MOST_PATTERNS => {
                patterns.push(raw);
                self.shapes.insert(shape, self.used);
                record::put(self.used as u32 + 1, out);
                if self.cuts.len() <= self.used {
                    self.cuts.push(Cut::default());
                }
                std::mem::swap(&mut self.cuts[self.used], &mut self.cut);
                self.used += 1;
            }
            None => whole(raw, out),
        }
    }

    /// Appends the record that was packed.
    pub(super) fn unpack(&mut self, mut packed: &[u8], patterns: &Patterns, out: &mut Vec<u8>) {
        let tag = record::take(&mut packed) as usize;
        let Some(number) = tag.checked_sub(1) else { return out.extend_from_slice(packed) };
        let raw = patterns.find(number);
        if packed.is_empty() {
            return out.extend_from_slice(raw);
        }
        let Some(pattern) = self.cut.cut(raw) else { return };
        self.body.clear();
        self.bounds.clear();
        let mut piece = 0;
        while let Some((&head, rest)) = packed.split_first() {
            packed = rest;
            let mut gap = usize::from(head) & FAR;
            if gap == FAR {
                gap += record::take(&mut packed) as usize;
            }
            self.copy(pattern, piece, piece + gap);
            self.bounds.push(self.body.len() as u32);
            read(FORMS[usize::from(head >> 5)], &mut packed, &mut self.body);
            piece += gap + 1;
        }
        self.copy(pattern, piece, self.cut.pieces());
        self.bounds.push(self.body.len() as u32);
        for at in (0..self.cut.numbers.len()).filter(|at| !PLAIN.contains(at)) {
            self.cut.numbers[at] = self.bounds[self.cut.numbers[at] as usize];
        }
        record::compose(&self.cut.numbers, &self.body, out);
    }

    /// Takes pieces from the pattern.
    fn copy(&mut self, pattern: &[u8], from: usize, to: usize) {
        for piece in from..to {
            self.bounds.push(self.body.len() as u32);
            self.body.extend_from_slice(self.cut.piece(pattern, piece));
        }
    }
}

/// A record as it is.
fn whole(raw: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(raw);
}

/// The pieces of a record that are not its pattern's.
fn differences(known: (&Cut, &[u8]), record: (&Cut, &[u8]), out: &mut Vec<u8>) {
    let mut gap = 0;
    for number in 0..record.0.pieces() {
        let piece = record.0.piece(record.1, number);
        if piece == known.0.piece(known.1, number) {
            gap += 1;
            continue;
        }
        let form = form(piece);
        out.push((form as u8) << 5 | gap.min(FAR) as u8);
        if gap >= FAR {
            record::put((gap - FAR) as u32, out);
        }
        write(form, piece, out);
        gap = 0;
    }
}

/// The shortest form that gives exactly this piece back.
fn form(piece: &[u8]) -> Form {
    let digits = piece.iter().all(u8::is_ascii_digit);
    match piece {
        [b'0', _] if digits => Form::TwoDigits,
        [b'0', _, ..] => Form::Bytes,
        _ if digits && piece.len() <= 10 => match decimal(piece) {
            0..=0xff => Form::Decimal8,
            0x100..=0xffff => Form::Decimal16,
            0x1_0000..=0xffff_ffff => Form::Decimal32,
            _ => Form::Bytes,
        },
        _ if piece.len() <= 4 && piece.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) => {
            Form::Hex16
        }
        _ if address(piece).is_some() => Form::Address,
        _ => Form::Bytes,
    }
}

fn decimal(piece: &[u8]) -> u64 {
    piece.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

fn hex(piece: &[u8]) -> u16 {
    piece.iter().fold(0, |number, digit| {
        number << 4 | u16::from(if *digit < b'a' { digit - b'0' } else { digit - b'a' + 10 })
    })
}

/// An IPv4 address in its only canonical form.
fn address(piece: &[u8]) -> Option<[u8; 4]> {
    let mut parts = piece.split(|byte| *byte == b'.');
    let mut address = [0; 4];
    for byte in &mut address {
        let part = parts.next()?;
        let good = matches!(part, [b'0'] | [b'1'..=b'9', ..]) && part.len() <= 3;
        if !good || !part.iter().all(u8::is_ascii_digit) {
            return None;
        }
        *byte = u8::try_from(decimal(part)).ok()?;
    }
    parts.next().is_none().then_some(address)
}

fn write(form: Form, piece: &[u8], out: &mut Vec<u8>) {
    match form {
        Form::Bytes => {
            record::put(piece.len() as u32, out);
            out.extend_from_slice(piece);
        }
        Form::Decimal8 | Form::TwoDigits => out.push(decimal(piece) as u8),
        Form::Decimal16 => out.extend_from_slice(&(decimal(piece) as u16).to_le_bytes()),
        Form::Decimal32 => out.extend_from_slice(&(decimal(piece) as u32).to_le_bytes()),
        Form::Hex16 => out.extend_from_slice(&hex(piece).to_le_bytes()),
        Form::Address => out.extend_from_slice(&address(piece).unwrap_or_default()),
    }
}

fn read(form: Form, packed: &mut &[u8], body: &mut Vec<u8>) {
    use std::io::Write;
    let length = match form {
        Form::Bytes => record::take(packed) as usize,
        Form::Decimal8 | Form::TwoDigits => 1,
        Form::Decimal16 | Form::Hex16 => 2,
        Form::Decimal32 | Form::Address => 4,
    };
    let (piece, rest) = packed.split_at(length.min(packed.len()));
    *packed = rest;
    let number = piece.iter().rev().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    // Writing to a vector cannot fail.
    let _ = match form {
        Form::Bytes => body.write_all(piece),
        Form::TwoDigits => write!(body, "{number:02}"),
        Form::Hex16 => write!(body, "{number:x}"),
        Form::Address => write!(body, "{}", std::net::Ipv4Addr::from(number.swap_bytes())),
        Form::Decimal8 | Form::Decimal16 | Form::Decimal32 => write!(body, "{number}"),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Packs records, unpacks each on its own; bytes of all that was packed.
    fn there_and_back(records: &[Vec<u8>]) -> (Vec<Vec<u8>>, usize) {
        let (mut packer, mut patterns) = (Packer::default(), Patterns::default());
        let mut packed = Vec::new();
        packer.begin();
        for record in records {
            let mut out = Vec::new();
            packer.pack(record, &mut patterns, &mut out);
            packed.push(out);
        }
        let size = packed.iter().map(Vec::len).sum::<usize>() + patterns.bytes.len();
        let mut unpack = |packed: &Vec<u8>| {
            let mut out = Vec::new();
            packer.unpack(packed, &patterns, &mut out);
            out
        };
        (packed.iter().map(&mut unpack).collect(), size)
    }

    fn record(body: &[u8], places: &[u32]) -> Vec<u8> {
        let end = body.len() as u32;
        let mut numbers = vec![end, end, 0, end, 5716, 0, 0, 0, 0];
        numbers.extend(places.iter().map(|place| place % (end + 1)));
        let mut out = Vec::new();
        record::compose(&numbers, body, &mut out);
        out
    }

    proptest! {
        #[test]
        fn what_is_unpacked_is_what_was_packed(
            bodies in proptest::collection::vec(
                ("([0-9]{1,6}|0[0-9]|[0-9a-f]{1,5}|[a-c]{1,3}|[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,4}|[ :=@é]){0,9}",
                 proptest::collection::vec(any::<u32>(), 0..5)),
                0..30,
            ),
        ) {
            let mut records: Vec<Vec<u8>> =
                bodies.iter().map(|(body, places)| record(body.as_bytes(), places)).collect();
            records.push(record(&vec![b'x'; 20_000], &[7]));
            records.push(Vec::new());
            prop_assert_eq!(&there_and_back(&records).0, &records);
        }

        #[test]
        fn records_of_any_bytes_come_back(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let records: Vec<Vec<u8>> = bodies.iter().map(|body| record(body, &[3, 9])).collect();
            prop_assert_eq!(&there_and_back(&records).0, &records);
        }
    }

    #[test]
    fn lines_of_one_kind_take_a_fraction() {
        let line = |number: u32| {
            let text = format!(
                "Nov 22 20:{:02}:{:02} web01 sshd[{}]: Failed password for root from 198.18.{}.{} port {} ssh2",
                number / 60 % 60,
                number % 60,
                number * 7,
                number % 256,
                number / 3 % 256,
                number + 1024
            );
            record(text.as_bytes(), &[])
        };
        let records: Vec<Vec<u8>> = (0..500).map(line).collect();
        let (back, size) = there_and_back(&records);
        assert_eq!(back, records);
        assert!(size < 20 * 500, "{size}");
    }
}
