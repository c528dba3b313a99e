//! Names of dynamic fields that rules ask for, found whole, or member by member while a JSON document is read.
//!
//! A known name is taken apart at its dots: each part is a member of a [`Scope`], and leads to the scope of what stands
//! within. So a document's names are never put together only to learn that nobody asks for them. Invariant: member by
//! member or whole, a name has the same number.

use std::collections::HashMap;

use super::StaticField;
use crate::hash::Quick;
use crate::literals::{case, same};

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
    /// The parts of names, one behind the other, in lower case.
    texts: Vec<u8>,
    /// For each byte of them what makes a capital letter small.
    cases: Vec<u8>,
    /// More names than members can be told of.
    crowded: bool,
}

/// The object whose members are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope(u16);

impl Scope {
    /// The document itself.
    pub(crate) const TOP: Self = Self(0);
    /// No known name has a part in here.
    const NOWHERE: Self = Self(u16::MAX);
    /// Only whole names tell.
    const ANYWHERE: Self = Self(u16::MAX - 1);
}

/// What is known of a member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) field: Option<FieldId>,
    /// The scope of its own members.
    pub(crate) within: Scope,
    pub(crate) fixed: Option<Fixed>,
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
    scope: Scope,
    within: Scope,
    field: Option<FieldId>,
    fixed: Option<Fixed>,
    length: u16,
    /// Where its text begins.
    start: u32,
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
            texts: Vec::new(),
            cases: Vec::new(),
            crowded: false,
        };
        let fixed = StaticField::ALL.into_iter().map(StaticField::name).chain(["systemname", "user"]);
        for name in fixed {
            if let (Some(fixed), Some(part)) =
                (Fixed::of(name.as_bytes()), this.part(Scope::TOP, name.as_bytes()))
            {
                this.members[part].fixed = Some(fixed);
            }
        }
        let mut scopes = 1;
        for name in names.filter(|name| name.len() <= Self::LONGEST) {
            let Ok(number) = u16::try_from(this.known.len()) else { break };
            let name = name.to_ascii_lowercase().into_bytes();
            let bit = Self::bit(&name);
            this.sieve[bit / 64] |= 1 << (bit % 64);
            let field = *this.known.entry(name.as_slice().into()).or_insert(FieldId(number));
            this.take_apart(&name, field, &mut scopes);
        }
        this.cases = this.texts.iter().map(case).collect();
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
            let part = &mut self.members[part];
            if parts.peek().is_none() {
                part.field = Some(field);
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
        let hash = Digest::of(text).within(scope);
        let known = self.look(hash, |part| part.scope == scope && self.text(part) == text);
        if known.is_some() {
            return known;
        }
        if self.members.len() >= Self::MOST {
            self.crowded = true;
            return None;
        }
        let part = Part {
            scope,
            within: Scope::NOWHERE,
            field: None,
            fixed: None,
            length: text.len() as u16,
            start: self.texts.len() as u32,
        };
        self.texts.extend_from_slice(text);
        self.members.push(part);
        if self.members.len() * 4 > self.slots.len() {
            self.slots = vec![0; self.slots.len() * 2].into();
            for number in 0..self.members.len() {
                let part = &self.members[number];
                self.enter(Digest::of(self.text(part)).within(part.scope), number);
            }
        } else {
            self.enter(hash, self.members.len() - 1);
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

    /// The member of this hash that fits.
    fn look(&self, hash: u64, fits: impl Fn(&Part) -> bool) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut at = place(hash) & mask;
        // Three slots of four are empty.
        while self.slots[at] != 0 {
            let number = (self.slots[at] & 0xffff) as usize - 1;
            if self.slots[at] & 0xffff_0000 == tag(hash) && fits(&self.members[number]) {
                return Some(number);
            }
            at = (at + 1) & mask;
        }
        None
    }

    fn text(&self, part: &Part) -> &[u8] {
        &self.texts[part.start as usize..part.start as usize + usize::from(part.length)]
    }

    /// A member of an object. `whole` finds the number by the member's whole name.
    #[inline]
    pub(crate) fn member(
        &self,
        scope: Scope,
        name: &[u8],
        digest: Digest,
        whole: impl FnOnce() -> Option<FieldId>,
    ) -> Member {
        if scope == Scope::NOWHERE {
            return Member { field: None, within: Scope::NOWHERE, fixed: None };
        }
        if scope == Scope::ANYWHERE || digest.odd || self.crowded {
            let fixed = if scope == Scope::TOP { Fixed::of(name) } else { None };
            return Member { field: whole(), within: Scope::ANYWHERE, fixed };
        }
        let fits = |part: &Part| {
            let own = part.start as usize..part.start as usize + usize::from(part.length);
            part.scope == scope && own.len() == name.len() && {
                let text = &self.texts[own.clone()];
                if name.len() < 3 {
                    name.eq_ignore_ascii_case(text)
                } else {
                    same(name, &self.cases[own], text)
                }
            }
        };
        let Some(part) = self.look(digest.within(scope), fits) else {
            return Member { field: None, within: Scope::NOWHERE, fixed: None };
        };
        let part = &self.members[part];
        let fixed = part.fixed.filter(|_| self.text(part) == name);
        Member { field: part.field, within: part.within, fixed }
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
    /// It holds a dot or is no ASCII.
    pub(crate) odd: bool,
}

impl Digest {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    #[inline]
    pub(crate) fn of(name: &[u8]) -> Self {
        const ONES: u64 = u64::from_le_bytes([1; 8]);
        const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
        let (words, _) = name.as_chunks::<8>();
        let mut hash = (name.len() as u64).wrapping_mul(Self::FACTOR);
        let mut odd = 0;
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        for word in words.chain([last_word(name)]) {
            let dots = word ^ u64::from_le_bytes([b'.'; 8]);
            odd |= word | (dots.wrapping_sub(ONES) & !dots);
            hash = (hash ^ hash >> 32 ^ (word | u64::from_le_bytes([0x20; 8]))).wrapping_mul(Self::FACTOR);
        }
        Self { hash, odd: odd & HIGH != 0 }
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

/// The last eight bytes, or all that there are.
fn last_word(text: &[u8]) -> u64 {
    if let Some(last) = text.last_chunk::<8>() {
        return u64::from_le_bytes(*last);
    }
    match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        _ => text.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
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
            let mut scope = Scope::TOP;
            for depth in 1..=path.len() {
                let whole = path[..depth].join(".");
                let last = path[depth - 1].as_bytes();
                let member = names.member(scope, last, Digest::of(last), || names.find(whole.as_bytes()));
                prop_assert_eq!(member.field, names.find(whole.as_bytes()), "{}", whole);
                prop_assert_eq!(member.fixed, Fixed::of(last).filter(|_| depth == 1));
                scope = member.within;
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
            let member = |scope, name: &[u8]| names.member(scope, name, Digest::of(name), || None);
            let win = member(Scope::TOP, parts[0].as_bytes());
            let part = member(win.within, parts[1].as_bytes());
            let last = member(part.within, parts[2].to_ascii_uppercase().as_bytes());
            assert_eq!(last.field, Some(FieldId(number as u16)));
            assert_eq!(member(part.within, b"name").within, Scope::NOWHERE);
        }
    }
}
