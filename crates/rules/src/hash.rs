//! A quick hash for maps whose keys senders choose: multiply and fold, from a start that only this process knows.
//! Invariant: nothing that leaves the process depends on it.

use std::hash::{BuildHasher, Hasher, RandomState};

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

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
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(word.try_into().map_or(0, u64::from_le_bytes));
        }
        // Lengths keep texts apart that differ only in zeros at the end.
        let rest = words.remainder();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) ^ (bytes.len() as u64).rotate_left(56));
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
        let product = u128::from(self.state) * u128::from(self.factor ^ FACTOR);
        (product as u64) ^ (product >> 64) as u64
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
}
