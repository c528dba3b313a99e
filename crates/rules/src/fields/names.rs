//! Names of dynamic fields that rules ask for, found whole, or member by member while a JSON document is read.
//!
//! A known name is taken apart at its dots: each part is a member of a [`Scope`], and leads to the scope of what stands
//! within. So a document's names are never put together only to learn that nobody asks for them. Invariant: member by
//! member or whole, a name has the same number.

use std::collections::HashMap;

use tld_pattern::block::few;
use wide::u8x16;

use super::StaticField;
use crate::hash::Quick;
use crate::literals::case;

/// The number of a dynamic field that some rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FieldId(pub(crate) u16);

/// Names of the dynamic fields that rules ask for, ASCII case ignored.
#[derive(Debug)]
pub(crate) struct FieldNames {
    known: HashMap<Box<[u8]>, FieldId, Quick>,
    /// Bits for the lengths and last bytes of names, because most names that events carry are not asked for.
    sieve: Vec<u64>,
    /// The members by hash: sixteen bits of it, then their number and one; 0 where none is.
    slots: Box<[u32]>,
    members: Vec<Part>,
    /// What parts of names hold behind the bytes that stand in [`Part::start`], one behind the other, in lower case.
    ends: Vec<u8>,
    /// More names than members can be told of.
    crowded: bool,
}

/// The number of a field, if some rule asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known(u16);

impl Known {
    pub(crate) const NOT: Self = Self(u16::MAX);

    #[inline]
    pub(crate) fn field(self) -> Option<FieldId> {
        (self != Self::NOT).then_some(FieldId(self.0))
    }
}

impl From<Option<FieldId>> for Known {
    fn from(field: Option<FieldId>) -> Self {
        field.map_or(Self::NOT, |field| Self(field.0))
    }
}

/// The object whose members are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) struct Scope(u16);

impl Scope {
    /// The document itself.
    const TOP: Self = Self(0);
    /// No known name has a part in here.
    const NOWHERE: Self = Self(u16::MAX);
    /// Only whole names tell.
    const ANYWHERE: Self = Self(u16::MAX - 1);
}

/// What is known of a member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) field: Known,
    /// The scope of its own members.
    pub(crate) within: Scope,
    pub(crate) fixed: Option<Fixed>,
}

impl Member {
    /// Of which no known name has a part.
    const UNKNOWN: Self = Self { field: Known::NOT, within: Scope::NOWHERE, fixed: None };
}

/// A member that fills a field of every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fixed {
    Static(StaticField),
    /// `dstuser`, unless that is there.
    User,
}

impl Fixed {
    /// Unlike in `order`, the system's name is one word in JSON.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"user" => Some(Self::User),
            b"systemname" => Some(Self::Static(StaticField::SystemName)),
            b"system_name" => None,
            name => {
                StaticField::ALL.into_iter().find(|field| field.name().as_bytes() == name).map(Self::Static)
            }
        }
    }
}

/// A part of a known name.
#[derive(Debug)]
struct Part {
    /// What it begins with, in lower case, as [`Digest::start`].
    start: [u64; 2],
    /// For each byte of that what makes a capital letter small.
    cases: [u64; 2],
    /// Its hash, and which of all it is.
    hash: u64,
    number: u16,
    scope: Scope,
    length: u16,
    /// Where what it ends with begins.
    end: u32,
    member: Member,
}

impl Part {
    /// Whether it is one of this scope, of this length, and begins like that.
    #[inline]
    fn is(&self, scope: Scope, length: usize, [first, second]: [u64; 2]) -> bool {
        self.scope == scope
            && usize::from(self.length) == length
            && first | self.cases[0] == self.start[0]
            && second | self.cases[1] == self.start[1]
    }
}

impl Default for FieldNames {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl FieldNames {
    const LONGEST: usize = 128;
    /// Most scopes and members.
    const MOST: usize = 32_000;

    pub(crate) fn new<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let mut this = Self {
            known: HashMap::default(),
            sieve: vec![0; 64],
            slots: vec![0; 256].into(),
            members: Vec::new(),
            ends: Vec::new(),
            crowded: false,
        };
        let fixed = StaticField::ALL.into_iter().map(StaticField::name).chain(["systemname", "user"]);
        for name in fixed {
            if let (Some(fixed), Some(part)) =
                (Fixed::of(name.as_bytes()), this.part(Scope::TOP, name.as_bytes()))
            {
                this.members[part].member.fixed = Some(fixed);
            }
        }
        let mut scopes = 1;
        for name in names.filter(|name| name.len() <= Self::LONGEST) {
            // The last number is that of no field.
            let number = u16::try_from(this.known.len()).ok().filter(|number| *number < u16::MAX);
            let Some(number) = number else { break };
            let name = name.to_ascii_lowercase().into_bytes();
            let bit = Self::bit(&name);
            this.sieve[bit / 64] |= 1 << (bit % 64);
            let field = *this.known.entry(name.as_slice().into()).or_insert(FieldId(number));
            this.take_apart(&name, field, &mut scopes);
        }
        this
    }

    /// Makes the parts of a name known.
    fn take_apart(&mut self, name: &[u8], field: FieldId, scopes: &mut u16) {
        let mut scope = Scope::TOP;
        let mut parts = name.split(|byte| *byte == b'.').peekable();
        while let Some(text) = parts.next() {
            // Whole names tell of what is no ASCII.
            if !text.is_ascii() {
                return;
            }
            if usize::from(*scopes) >= Self::MOST {
                self.crowded = true;
                return;
            }
            let Some(part) = self.part(scope, text) else { return };
            let part = &mut self.members[part].member;
            if parts.peek().is_none() {
                part.field = Some(field).into();
                return;
            }
            if part.within == Scope::NOWHERE {
                part.within = Scope(*scopes);
                *scopes += 1;
            }
            scope = part.within;
        }
    }

    /// The number of a part, a new one if need be.
    fn part(&mut self, scope: Scope, text: &[u8]) -> Option<usize> {
        let digest = Digest::of(text);
        let known = self.look(scope, text, digest).map(|part| part.number);
        if known.is_some() {
            return known.map(usize::from);
        }
        if self.members.len() >= Self::MOST {
            self.crowded = true;
            return None;
        }
        let cases = |word: u64| u64::from_le_bytes(word.to_le_bytes().map(|byte| case(&byte)));
        let part = Part {
            number: self.members.len() as u16,
            hash: digest.within(scope),
            start: digest.start,
            cases: digest.start.map(cases),
            scope,
            length: text.len() as u16,
            end: self.ends.len() as u32,
            member: Member::UNKNOWN,
        };
        self.ends.extend_from_slice(text.get(Digest::START..).unwrap_or_default());
        self.members.push(part);
        if self.members.len() * 4 > self.slots.len() {
            self.slots = vec![0; self.slots.len() * 2].into();
            for number in 0..self.members.len() {
                self.enter(self.members[number].hash, number);
            }
        } else {
            self.enter(digest.within(scope), self.members.len() - 1);
        }
        Some(self.members.len() - 1)
    }

    fn enter(&mut self, hash: u64, number: usize) {
        let mask = self.slots.len() - 1;
        let mut at = place(hash) & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = tag(hash) | (number as u32 + 1);
    }

    /// The member of that name in a scope, ASCII case ignored.
    #[inline(always)]
    fn look(&self, scope: Scope, name: &[u8], digest: Digest) -> Option<&Part> {
        let hash = digest.within(scope);
        let at = place(hash) & (self.slots.len() - 1);
        // Three slots of four are empty.
        let slot = self.slots.get(at).filter(|slot| **slot != 0)?;
        let part = self.members.get(number(*slot, hash));
        if part.is_some_and(|part| part.is(scope, name.len(), digest.start)) && name.len() <= Digest::START {
            return part;
        }
        self.look_from(at, (scope, hash), name, &digest)
    }

    /// The same from a slot on that is not empty.
    #[inline(never)]
    fn look_from(
        &self,
        mut at: usize,
        (scope, hash): (Scope, u64),
        name: &[u8],
        digest: &Digest,
    ) -> Option<&Part> {
        while let Some(slot) = self.slots.get(at).filter(|slot| **slot != 0) {
            if let Some(part) = self.members.get(number(*slot, hash))
                && part.is(scope, name.len(), digest.start)
                && name.get(Digest::START..).is_none_or(|rest| rest.eq_ignore_ascii_case(self.end(part)))
            {
                return Some(part);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }

    fn end(&self, part: &Part) -> &[u8] {
        let length = usize::from(part.length).saturating_sub(Digest::START);
        &self.ends[part.end as usize..part.end as usize + length]
    }

    /// The scope of a document's members.
    pub(crate) fn top(&self) -> Scope {
        if self.crowded { Scope::ANYWHERE } else { Scope::TOP }
    }

    /// A member of an object; none where only its whole name tells, see [`Self::member_by`].
    #[inline(always)]
    pub(crate) fn member(&self, scope: Scope, name: &[u8], digest: Digest) -> Option<Member> {
        if scope >= Scope::ANYWHERE || digest.odd {
            return (scope == Scope::NOWHERE).then_some(Member::UNKNOWN);
        }
        let Some(part) = self.look(scope, name, digest) else { return Some(Member::UNKNOWN) };
        let mut member = part.member;
        // Their names are short and in lower case.
        if part.start != digest.start {
            member.fixed = None;
        }
        Some(member)
    }

    /// A member whose whole name is this, and that name within its object.
    #[cold]
    #[inline(never)]
    pub(crate) fn member_by(&self, whole: &[u8], name: &[u8]) -> Member {
        let fixed = if whole.len() == name.len() { Fixed::of(name) } else { None };
        Member { field: self.find(whole).into(), within: Scope::ANYWHERE, fixed }
    }

    fn bit(name: &[u8]) -> usize {
        let last = name
            .iter()
            .rev()
            .take(4)
            .fold(name.len() as u32, |hash, byte| hash.rotate_left(8) ^ u32::from(byte | 0x20));
        (last.wrapping_mul(0x9e37_79b1) >> 20) as usize
    }

    /// The number of a whole name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<FieldId> {
        let bit = Self::bit(name);
        if self.sieve.get(bit / 64)? >> (bit % 64) & 1 == 0 || name.len() > Self::LONGEST {
            return None;
        }
        let mut folded = [0; Self::LONGEST];
        let folded = folded.get_mut(..name.len())?;
        folded.copy_from_slice(name);
        folded.make_ascii_lowercase();
        self.known.get(&*folded).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

/// A look at a member's name, eight bytes at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest {
    /// The same for names that differ only in the case of letters.
    hash: u64,
    /// What it begins with, and zeros behind a shorter one.
    start: [u64; 2],
    /// It holds a dot or is no ASCII.
    pub(crate) odd: bool,
}

impl Digest {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    /// Bytes in [`Digest::start`].
    const START: usize = 16;

    #[inline]
    pub(crate) fn of(name: &[u8]) -> Self {
        let start = name.first_chunk().copied().unwrap_or_else(|| few(name));
        Self::new(u8x16::new(start), name)
    }

    /// Of a name with sixteen bytes of the text that it begins: without a call that asks how long it is.
    #[inline]
    pub(crate) fn with_start(name: &[u8], start: &[u8; Self::START]) -> Self {
        // So many bytes of it, all at most.
        let place = Self::START.saturating_sub(name.len());
        let mask = ONES_AND_ZEROS.get(place..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; Self::START]);
        Self::new(u8x16::new(*start) & u8x16::new(*mask), name)
    }

    #[inline]
    fn new(start: u8x16, name: &[u8]) -> Self {
        let mut odd = is_odd(start);
        let start = words(start.to_array());
        let mut hash = mix(mix(name.len() as u64, start[0]), start[1]);
        if name.len() > Self::START {
            let more = with_rest(hash, name);
            hash = more.0;
            odd |= more.1;
        }
        Self { hash, start, odd }
    }

    /// What tells names of an object apart.
    pub(crate) fn mark(self) -> u32 {
        (self.hash >> 32) as u32
    }

    /// The hash of a member in that scope.
    fn within(self, scope: Scope) -> u64 {
        self.hash ^ u64::from(scope.0).wrapping_mul(Self::FACTOR)
    }
}

const ONES_AND_ZEROS: [u8; 2 * Digest::START] = {
    let mut bytes = [0; 2 * Digest::START];
    let mut at = 0;
    while at < Digest::START {
        bytes[at] = 0xff;
        at += 1;
    }
    bytes
};

/// The hash of a name that is longer than its start, and whether the rest of it holds what is odd.
#[inline(never)]
fn with_rest(mut hash: u64, name: &[u8]) -> (u64, bool) {
    let mut odd = false;
    for chunk in name.chunks(Digest::START).skip(1) {
        let mut bytes = [0; Digest::START];
        bytes[..chunk.len()].copy_from_slice(chunk);
        odd |= is_odd(u8x16::new(bytes));
        hash = words(bytes).into_iter().fold(hash, mix);
    }
    (hash, odd)
}

/// Whether there is a dot or what is no ASCII.
#[inline]
fn is_odd(bytes: u8x16) -> bool {
    (bytes | bytes.simd_eq(u8x16::splat(b'.'))).to_bitmask() != 0
}

#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ hash >> 32 ^ (word | u64::from_le_bytes([0x20; 8]))).wrapping_mul(Digest::FACTOR)
}

#[inline]
fn words(bytes: [u8; Digest::START]) -> [u64; 2] {
    let both = u128::from_le_bytes(bytes);
    [both as u64, (both >> 64) as u64]
}

/// What number a slot tells for that hash: one beyond all if it is another hash's.
#[inline]
fn number(slot: u32, hash: u64) -> usize {
    ((slot ^ tag(hash)) as usize).wrapping_sub(1)
}

fn place(hash: u64) -> usize {
    (hash >> 44) as usize
}

fn tag(hash: u64) -> u32 {
    (hash >> 12) as u32 & 0xffff_0000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_has_the_same_number_whole_and_member_by_member(
            known in proptest::collection::vec("([aBé]{0,3}[.]){0,3}[ab]{0,9}|user|id", 0..20),
            path in proptest::collection::vec("[abé.]{0,3}|[aAb]{0,9}|user|ID|id|systemname", 1..4),
        ) {
            let names = FieldNames::new(known.iter().map(String::as_str));
            let mut scope = names.top();
            for depth in 1..=path.len() {
                let whole = path[..depth].join(".");
                let last = path[depth - 1].as_bytes();
                let member = names.member(scope, last, Digest::of(last));
                let member = member.unwrap_or_else(|| names.member_by(whole.as_bytes(), last));
                prop_assert_eq!(member.field.field(), names.find(whole.as_bytes()), "{}", whole);
                prop_assert_eq!(member.fixed, Fixed::of(last).filter(|_| depth == 1));
                scope = member.within;
            }
        }
    }

    proptest! {
        #[test]
        fn a_name_in_a_text_has_the_digest_that_it_has_alone(name in "[a-z.\u{e9}]{0,40}", behind in "\\PC{0,30}") {
            let text = ["x", &*name, &*behind].concat();
            if let Some(start) = text.as_bytes()[1..].first_chunk() {
                let digest = Digest::with_start(name.as_bytes(), start);
                let alone = Digest::of(name.as_bytes());
                prop_assert_eq!((digest.hash, digest.start, digest.odd), (alone.hash, alone.start, alone.odd));
                prop_assert_eq!(alone.odd, !name.is_ascii() || name.contains('.'));
            }
        }
    }

    #[test]
    fn thousands_of_names_are_told_apart() {
        let all: Vec<String> =
            (0..5_000).map(|number| format!("win.part{}.Name{number}", number % 7)).collect();
        let names = FieldNames::new(all.iter().map(String::as_str));
        for (number, name) in all.iter().enumerate() {
            let parts: Vec<&str> = name.split('.').collect();
            let member = |scope, name: &[u8]| names.member(scope, name, Digest::of(name)).unwrap();
            let win = member(Scope::TOP, parts[0].as_bytes());
            let part = member(win.within, parts[1].as_bytes());
            let last = member(part.within, parts[2].to_ascii_uppercase().as_bytes());
            assert_eq!(last.field.field(), Some(FieldId(number as u16)));
            assert_eq!(member(part.within, b"name").within, Scope::NOWHERE);
        }
    }
}
