//! Lines of a log as bytes, each with a bound: logs are not always text, and not always lines. Invariant: no line needs more
//! memory than the longest event of the contract.

use std::io::{self, BufRead, Read};

/// Longest line; the bound of an event in the contract.
pub(crate) const LIMIT: usize = 65_535;

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Whole(Vec<u8>),
    /// What is longer than [`LIMIT`] is gone.
    Cut(Vec<u8>),
}

/// Where lines come from.
#[derive(Debug)]
pub(crate) struct Input<R> {
    reader: R,
}

impl Input<io::StdinLock<'static>> {
    pub(crate) fn of_process() -> Self {
        Self::new(io::stdin().lock())
    }
}

impl<R: BufRead> Input<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader }
    }

    /// The next line; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        self.next_in(Vec::new())
    }

    /// The same in the memory of an empty text.
    pub(crate) fn next_in(&mut self, mut text: Vec<u8>) -> io::Result<Option<Line>> {
        let limit = LIMIT as u64 + 2;
        if (&mut self.reader).take(limit).read_until(b'\n', &mut text)? == 0 {
            return Ok(None);
        }
        let ended = text.pop_if(|byte| *byte == b'\n').is_some();
        if ended {
            text.pop_if(|byte| *byte == b'\r');
        }
        if text.len() <= LIMIT {
            return Ok(Some(Line::Whole(text)));
        }
        text.truncate(LIMIT);
        if !ended {
            self.skip()?;
        }
        Ok(Some(Line::Cut(text)))
    }

    /// Goes behind the next newline without keeping what stands before it.
    fn skip(&mut self) -> io::Result<()> {
        loop {
            let held = self.reader.fill_buf()?;
            let newline = held.iter().position(|byte| *byte == b'\n');
            let count = newline.map_or(held.len(), |at| at + 1);
            let over = held.is_empty() || newline.is_some();
            self.reader.consume(count);
            if over {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<Line> {
        let mut input = Input { reader: text };
        std::iter::from_fn(|| input.next().unwrap()).collect()
    }

    #[test]
    fn lines_lose_their_ends_and_keep_their_bytes() {
        let whole = |text: &[u8]| Line::Whole(text.to_vec());
        assert_eq!(lines(b"a\xff\r\n\nb\rc"), [whole(b"a\xff"), whole(b""), whole(b"b\rc")]);
    }

    #[test]
    fn a_line_over_the_limit_is_cut_and_the_next_one_is_whole() {
        for extra in [0, 1, 2, 70_000] {
            let long = vec![b'x'; LIMIT + extra];
            let found = lines(&[&long, &b"\nnext\n"[..]].concat());
            let kept = vec![b'x'; LIMIT];
            let first = if extra == 0 { Line::Whole(kept) } else { Line::Cut(kept) };
            assert_eq!(found, [first, Line::Whole(b"next".to_vec())], "{extra}");
        }
    }
}
