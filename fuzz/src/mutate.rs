//! Inputs made from seeds by a generator with a fixed start: no coverage, but the same inputs on every machine.

/// Makes inputs.
#[derive(Debug)]
pub struct Mutator<'s> {
    seeds: &'s [Vec<u8>],
    words: &'s [&'s str],
    limit: usize,
    state: u64,
}

impl<'s> Mutator<'s> {
    /// Inputs like `seeds`, none longer than `limit`; `start` chooses the sequence.
    pub fn new(seeds: &'s [Vec<u8>], words: &'s [&'s str], limit: usize, start: u64) -> Self {
        Self { seeds, words, limit, state: start | 1 }
    }

    /// The next input: a seed after one to eight changes.
    pub fn make(&mut self) -> Vec<u8> {
        let mut input = self.seed().to_vec();
        for _ in 0..=self.below(8) {
            self.change(&mut input);
        }
        input.truncate(self.limit);
        input
    }

    fn seed(&mut self) -> &'s [u8] {
        let chosen = self.below(self.seeds.len());
        self.seeds.get(chosen).map_or(&[], Vec::as_slice)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        match self.below(9) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => input.insert(at, self.byte()),
            2 => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at.min(end)..end);
            }
            3 => {
                let end = (at + 1 + self.below(64)).min(input.len());
                let part = input[at.min(end)..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, part);
            }
            4 => input.truncate(at),
            5 => {
                let other = self.seed();
                let from = self.below(other.len() + 1);
                let end = (from + self.below(128)).min(other.len());
                input.splice(at..at, other[from..end].iter().copied());
            }
            6 => {
                // Long runs find what is not linear.
                let byte = self.byte();
                let length = 1 << self.below(11);
                input.splice(at..at, std::iter::repeat_n(byte, length));
            }
            _ => {
                let chosen = self.below(self.words.len());
                let word = self.words.get(chosen).copied().unwrap_or_default().as_bytes();
                let end = if self.below(2) == 0 { at } else { (at + word.len()).min(input.len()) };
                input.splice(at..end, word.iter().copied());
            }
        }
    }

    /// Bytes that mean something come as often as all others.
    fn byte(&mut self) -> u8 {
        const MARKED: &[u8] = b"\0\n\r\t \"'\\<>()[]{}|^$*+?.,:;/!&%-_0a\x7f\x80\xc3\xff";
        let any = (self.next() >> 32) as u8;
        if self.below(2) == 0 { any } else { MARKED[usize::from(any) % MARKED.len()] }
    }

    fn below(&mut self, end: usize) -> usize {
        let wide = (self.next() >> 33) as usize;
        if end == 0 { 0 } else { wide % end }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_start_gives_the_same_inputs_within_the_limit() {
        let seeds = [b"<a>b</a>".to_vec(), Vec::new()];
        let make = |start| {
            let mut mutator = Mutator::new(&seeds, &["</a>"], 64, start);
            (0..500).map(|_| mutator.make()).collect::<Vec<_>>()
        };
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(9));
        assert!(make(7).iter().all(|input| input.len() <= 64));
    }

    #[test]
    fn nothing_is_needed_to_begin() {
        let mut mutator = Mutator::new(&[], &[], 64, 3);
        assert!((0..200).any(|_| !mutator.make().is_empty()));
    }
}
