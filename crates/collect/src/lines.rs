//! Cuts a stream of chunks into lines. Invariant: [`Splitter::held_back`] bytes after the last line's end have been
//! taken but belong to no line yet, so the caller always knows the offset at which a restart must begin.

use memchr::memchr;

/// Longest line text that is passed on (contract 1.1); what follows up to the newline is skipped.
pub(crate) const MAX_LINE: usize = 65_279;

/// One line without its end, which is a newline or, as programs of other systems write it, CR and newline: a CR that stayed
/// would become part of the last value, often an address, and make it useless.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The text, cut at [`MAX_LINE`].
    pub(crate) text: &'a [u8],
    /// Bytes the line takes in the stream, newline included.
    pub(crate) length: u64,
    /// The line holds a NUL byte, also past the cut.
    pub(crate) nul: bool,
}

/// Remembers the beginning of a line whose newline has not arrived.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    held: Vec<u8>,
    length: u64,
    nul: bool,
    handed_out: bool,
}

impl Splitter {
    /// The next complete line of `chunk`, which shrinks; `None` once the rest has been kept for later.
    pub(crate) fn next<'s, 'a: 's>(&'s mut self, chunk: &mut &'a [u8]) -> Option<Line<'s>> {
        if self.handed_out {
            self.clear();
        }
        let Some((line, rest)) = memchr(b'\n', chunk).and_then(|at| chunk.split_at_checked(at)) else {
            let tail = std::mem::take(chunk);
            self.keep(tail);
            return None;
        };
        *chunk = rest.split_first().map_or(&[], |(_, rest)| rest);
        if self.length == 0 {
            let text = without_cr(line.get(..MAX_LINE).unwrap_or(line));
            return Some(Line { text, length: line.len() as u64 + 1, nul: memchr(0, line).is_some() });
        }
        self.keep(line);
        self.handed_out = true;
        Some(Line { text: without_cr(&self.held), length: self.length + 1, nul: self.nul })
    }

    /// Bytes taken since the end of the last line.
    pub(crate) fn held_back(&self) -> u64 {
        if self.handed_out { 0 } else { self.length }
    }

    /// Forgets the unfinished line.
    pub(crate) fn clear(&mut self) {
        self.held.clear();
        // One long line must not cost its memory for the life of the file.
        self.held.shrink_to(4096);
        self.length = 0;
        self.nul = false;
        self.handed_out = false;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.held.len());
        self.held.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.length += bytes.len() as u64;
        self.nul |= memchr(0, bytes).is_some();
    }
}

fn without_cr(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\r").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> (Vec<(Vec<u8>, u64, bool)>, u64) {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut rest: &[u8] = chunk;
            while let Some(line) = splitter.next(&mut rest) {
                lines.push((line.text.to_vec(), line.length, line.nul));
            }
        }
        (lines, splitter.held_back())
    }

    #[test]
    fn a_line_over_two_chunks_is_joined_and_the_unfinished_rest_is_held_back() {
        let (lines, held) = split(&[b"one\ntw", b"o\nthr"]);
        assert_eq!(lines, [(b"one".to_vec(), 4, false), (b"two".to_vec(), 4, false)]);
        assert_eq!(held, 3);
    }

    #[test]
    fn a_long_line_is_cut_and_its_rest_skipped() {
        let long = vec![b'a'; MAX_LINE + 500];
        let (lines, _) = split(&[&long, b"bbb\nnext\n"]);
        assert_eq!(lines[0].0.len(), MAX_LINE);
        assert_eq!(lines[0].1, (MAX_LINE + 504) as u64);
        assert_eq!(lines[1].0, b"next");
    }

    #[test]
    fn a_nul_is_noticed_even_past_the_cut() {
        let mut long = vec![b'a'; MAX_LINE + 10];
        long.extend_from_slice(b"\0\nok\n");
        let (lines, _) = split(&[&long]);
        assert!(lines[0].2);
        assert!(!lines[1].2);
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_lines(text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(0u8), any::<u8>()], 0..400), step in 1usize..50) {
            let whole = split(&[&text]);
            let parts: Vec<&[u8]> = text.chunks(step).collect();
            prop_assert_eq!(&whole, &split(&parts));
            let taken: u64 = whole.0.iter().map(|line| line.1).sum::<u64>() + whole.1;
            prop_assert_eq!(taken, text.len() as u64);
        }
    }
}
