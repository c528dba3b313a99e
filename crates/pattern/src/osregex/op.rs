//! The items of a program: as the compiler sees them, and packed as they are kept.
//!
//! Lines of many kinds run other programs each time, so each run waits for the memory of its program: a byte for each item,
//! and in the same piece of memory four bytes for each different item that is no literal.
//! Invariant: what is unpacked is what was packed.

use super::program::{Members, Quantifier};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Literal(u8),
    /// A mark; where it is compared it stands for the byte `(`. Patterns are far shorter than marks can be counted.
    Mark(u16),
    Class {
        set: Members,
        quantifier: Quantifier,
        /// At most one byte of the pattern text is left behind the class letter.
        last: bool,
        /// What a run of the class does not just pass by: bytes that it refuses or that the next item accepts.
        /// None for a class without quantifier.
        stop: Option<Stop>,
        /// At most a mark stands behind the class.
        tail: bool,
    },
}

/// The bytes that end a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    None,
    One(u8),
    Two(u8, u8),
    /// What the class refuses, what the next item accepts if it is a class, and its byte if it is a literal, 0 otherwise.
    Several(Members, u8),
}

impl Stop {
    pub(super) fn new(set: Members, next: Option<&Op>) -> Self {
        let taken = |byte| next.is_some_and(|next| next.takes(byte));
        let members: Vec<u8> = (1..=u8::MAX).filter(|&byte| !set.contains(byte) || taken(byte)).collect();
        match (&members[..], next) {
            ([], _) => Self::None,
            ([one], _) => Self::One(*one),
            ([one, two], _) => Self::Two(*one, *two),
            (_, Some(Op::Class { set, .. })) => Self::Several(*set, 0),
            (_, Some(literal)) => Self::Several(Members::NONE, literal.byte().unwrap_or(0)),
            (_, None) => Self::Several(Members::NONE, 0),
        }
    }
}

impl Op {
    /// Whether the item accepts this byte where it stands.
    pub(super) fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Class { set, .. } => set.contains(byte),
            _ => self.is_literal(byte),
        }
    }

    pub(super) fn is_literal(&self, byte: u8) -> bool {
        self.byte() == Some(byte.to_ascii_lowercase())
    }

    /// The byte that a literal accepts, case folded; one from 128 on accepts none.
    pub(super) fn byte(&self) -> Option<u8> {
        let own = match self {
            Self::Literal(own) => *own,
            Self::Mark(_) => b'(',
            Self::Class { .. } => return None,
        };
        Some(own).filter(|own| *own < 0x80)
    }

    /// In four bytes; the two lowest bits tell what it is.
    fn pack(self) -> u32 {
        match self {
            Self::Literal(_) => Packed::NEVER,
            Self::Mark(index) => Packed::MARK | u32::from(index) << 16,
            Self::Class { set, quantifier, last, stop, tail } => {
                let (kind, next, one, two) = match stop {
                    None | Some(Stop::None) => (Class::NONE, Members::NONE, 0, 0),
                    Some(Stop::One(one)) => (Class::ONE, Members::NONE, one, 0),
                    Some(Stop::Two(one, two)) => (Class::TWO, Members::NONE, one, two),
                    Some(Stop::Several(next, literal)) => (Class::SEVERAL, next, literal, 0),
                };
                let flag = |holds: bool, flag: u32| if holds { flag } else { 0 };
                Packed::CLASS
                    | flag(quantifier == Quantifier::Plus, Class::PLUS)
                    | flag(quantifier == Quantifier::Star, Class::STAR)
                    | flag(last, Class::LAST)
                    | flag(tail, Class::TAIL)
                    | kind << 6
                    | u32::from(set.number()) << 8
                    | u32::from(next.number()) << 12
                    | u32::from(one) << 16
                    | u32::from(two) << 24
            }
        }
    }
}

/// An item as a run meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    Literal(u8),
    Mark(u16),
    Class(Class),
    /// A literal that accepts no byte.
    Never,
}

impl Packed {
    const NEVER: u32 = 0;
    const MARK: u32 = 1;
    const CLASS: u32 = 2;

    #[inline]
    fn of(packed: u32) -> Self {
        match packed & 3 {
            Self::CLASS => Self::Class(Class(packed)),
            Self::MARK => Self::Mark((packed >> 16) as u16),
            _ => Self::Never,
        }
    }

    /// Whether an item that is no class accepts this byte where it stands.
    pub(super) fn is_literal(self, byte: u8) -> bool {
        match self {
            Self::Literal(own) => own == byte.to_ascii_lowercase(),
            Self::Mark(_) => byte == b'(',
            Self::Class(_) | Self::Never => false,
        }
    }
}

/// A class as a run meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u32);

impl Class {
    const PLUS: u32 = 4;
    const STAR: u32 = 8;
    const LAST: u32 = 16;
    const TAIL: u32 = 32;
    const NONE: u32 = 0;
    const ONE: u32 = 1;
    const TWO: u32 = 2;
    const SEVERAL: u32 = 3;

    pub(super) fn set(self) -> Members {
        Members::of_number((self.0 >> 8) as u8)
    }

    pub(super) fn is_plus(self) -> bool {
        self.0 & Self::PLUS != 0
    }

    pub(super) fn is_star(self) -> bool {
        self.0 & Self::STAR != 0
    }

    /// Whether it has neither quantifier.
    pub(super) fn is_single(self) -> bool {
        self.0 & (Self::PLUS | Self::STAR) == 0
    }

    pub(super) fn is_last(self) -> bool {
        self.0 & Self::LAST != 0
    }

    pub(super) fn is_tail(self) -> bool {
        self.0 & Self::TAIL != 0
    }

    /// How many bytes a run of this class passes by; none where there is no run. Subjects hold no NUL.
    #[inline]
    pub(super) fn passed(self, rest: &[u8]) -> usize {
        if self.is_single() {
            return 0;
        }
        let [kind, _, one, two] = self.0.to_le_bytes();
        let end = match u32::from(kind >> 6) {
            Self::NONE => None,
            Self::ONE => memchr::memchr(one, rest),
            Self::TWO => memchr::memchr2(one, two, rest),
            _ => {
                let (class, next) = (self.set(), Members::of_number((self.0 >> 12) as u8));
                rest.iter().position(|&byte| {
                    !class.contains(byte) || next.contains(byte) || byte.to_ascii_lowercase() == one
                })
            }
        };
        end.unwrap_or(rest.len())
    }
}

/// The items of a program, as it is compiled.
#[derive(Debug, Clone)]
pub(super) struct Code {
    /// A byte for each item: a literal itself, or 128 and the number of what tells of it.
    pub(super) items: Vec<u8>,
    /// What tells of items. If there are too many different ones for such numbers, each item is told of, its place is its
    /// number.
    pub(super) told: Vec<[u8; 4]>,
}

/// Different items that can be numbered in a byte.
const MOST: usize = 128;

impl Code {
    pub(super) fn new(ops: &[Op]) -> Self {
        let literal = |op: &Op| matches!(op, Op::Literal(byte) if byte.is_ascii());
        let mut told: Vec<Op> = Vec::new();
        for op in ops.iter().filter(|op| !literal(op)) {
            if !told.contains(op) {
                told.push(*op);
            }
        }
        let wide = told.len() > MOST;
        let number = |op: &Op| told.iter().position(|told| told == op).unwrap_or_default() as u8;
        let byte = |op: &Op| match op {
            Op::Literal(byte) if byte.is_ascii() => *byte,
            _ if wide => 0x80,
            op => 0x80 | number(op),
        };
        let items = ops.iter().map(byte).collect();
        let told = if wide { ops } else { &told };
        Self { items, told: told.iter().map(|op| op.pack().to_le_bytes()).collect() }
    }
}

/// The items of a program.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    items: &'a [u8],
    told: &'a [[u8; 4]],
    /// What of an item's place is its number.
    places: usize,
}

impl<'a> View<'a> {
    /// Of code; nothing is told of behind the end of few items.
    #[inline]
    pub(super) fn new(items: &'a [u8], told: &'a [[u8; 4]]) -> Self {
        Self { items, told, places: if told.len() > MOST { usize::MAX } else { 0 } }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    #[inline]
    pub(super) fn get(&self, place: usize) -> Option<Packed> {
        let byte = *self.items.get(place)?;
        if byte.is_ascii() {
            return Some(Packed::Literal(byte));
        }
        let number = (place & self.places) | usize::from(byte & 0x7f);
        self.told.get(number).map(|told| Packed::of(u32::from_le_bytes(*told)))
    }

    /// How many literals in a row from some place on stand at the beginning of a text. Subjects hold no NUL.
    #[inline]
    pub(super) fn literals(&self, from: usize, text: &[u8]) -> usize {
        let pairs = self.items.get(from..).unwrap_or_default().iter().zip(text);
        let same = |own: u8, byte: u8| own.is_ascii() && (own == byte || own == byte.to_ascii_lowercase());
        pairs.take_while(|(own, byte)| same(**own, **byte)).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members() -> impl Strategy<Value = Members> {
        "[dwsp()DWS.t$|<]".prop_map(|name| Members::of_class(name.as_bytes()[0]))
    }

    fn op() -> impl Strategy<Value = Op> {
        let quantifier = prop_oneof![Just(Quantifier::None), Just(Quantifier::Plus), Just(Quantifier::Star)];
        let stop = prop_oneof![
            Just(Stop::None),
            any::<u8>().prop_map(Stop::One),
            any::<(u8, u8)>().prop_map(|(one, two)| Stop::Two(one, two)),
            (members(), any::<u8>()).prop_map(|(next, literal)| Stop::Several(next, literal)),
        ];
        prop_oneof![
            any::<u8>().prop_map(|byte| Op::Literal(byte.to_ascii_lowercase())),
            any::<u16>().prop_map(Op::Mark),
            (members(), quantifier, any::<bool>(), stop, any::<bool>()).prop_map(
                |(set, quantifier, last, stop, tail)| {
                    let stop = Some(stop).filter(|_| quantifier != Quantifier::None);
                    Op::Class { set, quantifier, last, stop, tail }
                }
            ),
        ]
    }

    /// How many bytes a run passes by, one by one.
    fn passed(stop: Stop, class: Members, text: &[u8]) -> usize {
        let ends = |byte: u8| match stop {
            Stop::None => false,
            Stop::One(one) => byte == one,
            Stop::Two(one, two) => byte == one || byte == two,
            Stop::Several(next, literal) => {
                !class.contains(byte) || next.contains(byte) || byte.to_ascii_lowercase() == literal
            }
        };
        text.iter().position(|byte| ends(*byte)).unwrap_or(text.len())
    }

    proptest! {
        #[test]
        fn items_are_met_as_they_were_packed(
            ops in prop_oneof![proptest::collection::vec(op(), 0..20), proptest::collection::vec(op(), 150..400)],
            text in proptest::collection::vec(prop_oneof![1..=u8::MAX, Just(b'a'), Just(b' ')], 0..12),
        ) {
            let code = Code::new(&ops);
            let view = View::new(&code.items, &code.told);
            prop_assert_eq!(view.len(), ops.len());
            for (place, op) in ops.iter().enumerate() {
                let met = view.get(place).expect("there is an item");
                match (*op, met) {
                    (Op::Literal(byte), Packed::Literal(own)) => prop_assert_eq!(byte, own),
                    (Op::Literal(byte), Packed::Never) => prop_assert!(!byte.is_ascii()),
                    (Op::Mark(index), Packed::Mark(own)) => prop_assert_eq!(index, own),
                    (Op::Class { set, quantifier, last, stop, tail }, Packed::Class(class)) => {
                        prop_assert_eq!(class.set(), set);
                        prop_assert_eq!(class.is_single(), quantifier == Quantifier::None);
                        prop_assert_eq!(class.is_plus(), quantifier == Quantifier::Plus);
                        prop_assert_eq!(class.is_star(), quantifier == Quantifier::Star);
                        prop_assert_eq!((class.is_last(), class.is_tail()), (last, tail));
                        prop_assert_eq!(class.passed(&text), stop.map_or(0, |stop| passed(stop, set, &text)));
                    }
                    (op, met) => prop_assert!(false, "{op:?} became {met:?}"),
                }
                for byte in 1..=u8::MAX {
                    prop_assert_eq!(met.is_literal(byte), op.is_literal(byte));
                }
            }
            prop_assert_eq!(view.get(ops.len()), None);
        }

        #[test]
        fn literals_are_counted_up_to_what_is_none(
            ops in proptest::collection::vec(
                prop_oneof![any::<u8>().prop_map(|byte| Op::Literal(byte.to_ascii_lowercase())), "[ab]".prop_map(|byte| Op::Literal(byte.as_bytes()[0])), op()],
                0..12,
            ),
            text in proptest::collection::vec(prop_oneof![1..=u8::MAX, Just(b'A'), Just(b'b')], 0..12),
            from in 0_usize..4,
        ) {
            let plain = ops.iter().skip(from).zip(&text);
            let plain = plain.take_while(|(op, byte)| matches!(op, Op::Literal(_)) && op.is_literal(**byte)).count();
            let code = Code::new(&ops);
            prop_assert_eq!(View::new(&code.items, &code.told).literals(from, &text), plain);
        }
    }
}
