//! Texts that conditions compare with a whole value, and for each the numbers to report.
//!
//! Values of many kinds are looked up in many such tables in turn, each of which is likely to be in memory only: so a value of
//! a length that no text has is not looked up at all, and the others touch two places of one piece of memory.
//! Invariant: exactly the texts that were given are found, ASCII case folded.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use crate::hash::Quick;

/// Longer texts are not in a table.
pub(super) const LONGEST: usize = 64;

/// Texts in lower case, by their hash.
#[derive(Debug, Default)]
pub(super) struct Wholes {
    /// Which lengths occur, one of `n` bytes at bit `n - 1`.
    lengths: u64,
    /// First the slots, each two words: the hash, and where its text is told of, 0 for none. Then for each text its length, how
    /// many numbers it has, these, and its bytes in words.
    words: Box<[u32]>,
    /// The number of slots less one.
    mask: u32,
    quick: Quick,
}

impl Wholes {
    /// Of pairs of a text in lower case and a number to report. Texts that are empty or too long are left out.
    pub(super) fn new<'t>(pairs: impl IntoIterator<Item = (&'t [u8], u32)>) -> Self {
        let mut by_text: BTreeMap<&[u8], Vec<u32>> = BTreeMap::new();
        for (text, number) in pairs.into_iter().filter(|(text, _)| (1..=LONGEST).contains(&text.len())) {
            by_text.entry(text).or_default().push(number);
        }
        if by_text.is_empty() {
            return Self::default();
        }
        let slots = (2 * by_text.len()).next_power_of_two();
        let mut table = Self { mask: slots as u32 - 1, ..Self::default() };
        let mut words = vec![0; 2 * slots];
        for (text, numbers) in by_text {
            table.lengths |= 1 << (text.len() - 1);
            let hash = table.hash(text);
            let mut slot = hash & table.mask;
            while words[2 * slot as usize + 1] != 0 {
                slot = (slot + 1) & table.mask;
            }
            words[2 * slot as usize] = hash;
            words[2 * slot as usize + 1] = words.len() as u32;
            words.extend([text.len() as u32, numbers.len() as u32]);
            words.extend(numbers);
            words.extend(in_words(&Folded::new(text).0).take(text.len().div_ceil(4)));
        }
        table.words = words.into();
        table
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        4 * self.words.len()
    }

    /// The numbers to report for a value.
    pub(super) fn find(&self, value: &[u8]) -> &[u32] {
        let length = value.len();
        if !(1..=LONGEST).contains(&length) || self.lengths >> (length - 1) & 1 == 0 {
            return &[];
        }
        let folded = Folded::new(value);
        let hash = self.hash(&folded.0[..length]);
        let mut slot = hash & self.mask;
        // Half of the slots are vacant.
        while let [known, place] = self.words[2 * slot as usize..][..2]
            && place > 0
        {
            if known == hash
                && let Some(numbers) = self.numbers(place as usize, length, &folded)
            {
                return numbers;
            }
            slot = (slot + 1) & self.mask;
        }
        &[]
    }

    /// The numbers of the text that is told of at a place, if it is this one.
    fn numbers(&self, place: usize, length: usize, folded: &Folded) -> Option<&[u32]> {
        let [own, count] = *self.words[place..].first_chunk()?;
        let (numbers, text) = self.words[place + 2..].split_at(count as usize);
        let same =
            text.iter().copied().zip(in_words(&folded.0)).take(length.div_ceil(4)).all(|(a, b)| a == b);
        (own as usize == length && same).then_some(numbers)
    }

    fn hash(&self, text: &[u8]) -> u32 {
        self.quick.hash_one(text) as u32
    }
}

/// A text in lower case, with zeros behind it.
struct Folded([u8; LONGEST]);

impl Folded {
    fn new(text: &[u8]) -> Self {
        let mut folded = [0; LONGEST];
        folded[..text.len()].copy_from_slice(text);
        folded[..text.len()].make_ascii_lowercase();
        Self(folded)
    }
}

fn in_words(bytes: &[u8; LONGEST]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_has_the_numbers_of_the_texts_that_it_is(
            pairs in proptest::collection::vec(("[ab\0]{0,5}|[ab]{63,65}", 0_u32..9), 0..30),
            values in proptest::collection::vec("[aAbB\0]{0,5}|[aA]{63,65}", 0..20),
        ) {
            let wholes = Wholes::new(pairs.iter().map(|(text, number)| (text.as_bytes(), *number)));
            let own = pairs.iter().map(|(text, _)| text.clone());
            for value in values.into_iter().chain(own) {
                let fits = |text: &str| (1..=LONGEST).contains(&text.len()) && text.eq_ignore_ascii_case(&value);
                let wanted: Vec<u32> =
                    pairs.iter().filter(|(text, _)| fits(text)).map(|(_, number)| *number).collect();
                prop_assert_eq!(wholes.find(value.as_bytes()), wanted);
            }
        }
    }
}
