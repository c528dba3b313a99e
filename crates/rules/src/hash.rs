//! A quick hash for maps whose keys senders choose: multiply and fold, from a start that only this process knows.
//! Invariant: nothing that leaves the process depends on it.

use std::hash::{BuildHasher, Hasher, RandomState};

pub(crate) const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both halves of a product in one.
pub(crate) fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product as u64) ^ (product >> 64) as u64
}

/// Makes hashers of one secret.
#[derive(Debug, Clone)]
pub(crate) struct Quick {
    secret: [u64; 2],
}

impl Default for Quick {
    fn default() -> Self {
        let random = RandomState::new();
        Self { secret: [random.hash_one(0_u8), random.hash_one(1_u8) | 1] }
    }
}

impl Quick {
    /// What is secret, the second number odd.
    pub(crate) fn secret(&self) -> [u64; 2] {
        self.secret
    }
}

impl BuildHasher for Quick {
    type Hasher = QuickHasher;

    fn build_hasher(&self) -> QuickHasher {
        QuickHasher { state: self.secret[0], factor: self.secret[1] }
    }
}

/// See [`Quick`].
#[derive(Debug, Clone)]
pub(crate) struct QuickHasher {
    state: u64,
    factor: u64,
}

impl QuickHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = (product as u64) ^ ((product >> 64) as u64).wrapping_add(FACTOR);
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Lengths keep texts apart of which one is the other and more, whose words overlap alike.
        let length = (bytes.len() as u64).rotate_left(56);
        let Some(last) = bytes.last_chunk::<8>() else {
            self.mix(short(bytes) ^ length);
            return;
        };
        // The last but one may overlap with the last.
        let mut rest = bytes;
        while let Some((word, behind)) = rest.split_first_chunk::<8>()
            && !behind.is_empty()
        {
            self.mix(u64::from_le_bytes(*word));
            rest = behind;
        }
        self.mix(u64::from_le_bytes(*last) ^ length);
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.mix(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn finish(&self) -> u64 {
        fold(self.state, self.factor ^ FACTOR)
    }
}

/// The word of less than eight bytes; of the same length, no two are equal.
fn short(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>(), bytes) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        (_, _, [one, .., last]) => {
            u64::from(*one) | u64::from(bytes[bytes.len() / 2]) << 8 | u64::from(*last) << 16
        }
        (_, _, [one]) => u64::from(*one),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_differ_hardly_ever_meet() {
        let quick = Quick::default();
        let hashes: std::collections::HashSet<u64> =
            (0..100_000_u32).map(|number| quick.hash_one(number.to_string().as_bytes())).collect();
        assert!(hashes.len() > 99_990);
        assert_ne!(quick.hash_one(&b"a"[..]), quick.hash_one(&b"a\0"[..]));
    }

    #[test]
    fn every_byte_of_a_text_of_any_length_counts() {
        let quick = Quick::default();
        for length in 1..70 {
            let text: Vec<u8> = (0..length).collect();
            let hash = quick.hash_one(text.as_slice());
            for place in 0..text.len() {
                let mut other = text.clone();
                other[place] ^= 0x80;
                assert_ne!(quick.hash_one(other.as_slice()), hash, "byte {place} of {length}");
            }
        }
    }
}
