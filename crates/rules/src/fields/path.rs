//! Names of members put together, and short texts appended by blocks instead of calls that ask how long they are.

/// Names of the objects around a member, each with its dot; behind them are bytes that do not count, to be copied in
/// blocks.
#[derive(Debug, Default)]
pub(crate) struct Path {
    padded: Vec<u8>,
    length: usize,
}

impl Path {
    /// What it begins with, if there is as much.
    #[inline]
    pub(super) fn block(&self) -> Option<&[u8; 32]> {
        self.padded.first_chunk()
    }

    /// All names.
    #[inline]
    pub(super) fn names(&self) -> &[u8] {
        &self.padded[..self.length]
    }

    /// Goes back to so many bytes.
    #[inline]
    pub(crate) fn back_to(&mut self, length: usize) {
        self.length = length.min(self.length);
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Goes into the object of that name.
    #[inline]
    pub(crate) fn push(&mut self, name: &[u8]) {
        self.length = self.join(name).len() + 1;
        self.padded.push(b'.');
        self.padded.extend_from_slice(&[0; 32]);
    }

    /// The whole name of a member.
    #[inline]
    pub(crate) fn join(&mut self, name: &[u8]) -> &[u8] {
        self.padded.truncate(self.length);
        self.padded.extend_from_slice(name);
        &self.padded
    }
}

/// Appends a part of a text. Short ones are copied with what stands behind them in blocks of `N` bytes, which is quicker
/// than to ask how long they are.
#[inline]
pub(crate) fn append_part<const N: usize>(out: &mut Vec<u8>, text: &[u8], mut from: usize, to: usize) {
    while from < to {
        let Some(block) = text.get(from..).and_then(<[u8]>::first_chunk::<N>) else {
            out.extend_from_slice(text.get(from..to).unwrap_or_default());
            return;
        };
        out.extend_from_slice(block);
        from += N;
    }
    out.truncate(out.len() - (from - to));
}

/// Appends a text, by this block that begins with it if it is short.
#[inline]
pub(super) fn append_short(out: &mut Vec<u8>, block: Option<&[u8; 32]>, text: &[u8]) {
    match block {
        Some(block) if text.len() <= block.len() => {
            let end = out.len() + text.len();
            out.extend_from_slice(block);
            out.truncate(end);
        }
        _ => out.extend_from_slice(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::append_part;

    proptest! {
        #[test]
        fn parts_are_appended_in_full(
            text in prop::collection::vec(any::<u8>(), 0..70), from in 0_usize..70, length in 0_usize..70,
        ) {
            let from = from.min(text.len());
            let to = (from + length).min(text.len());
            let mut out = b"x".to_vec();
            append_part::<16>(&mut out, &text, from, to);
            append_part::<32>(&mut out, &text, from, to);
            prop_assert_eq!(out, [b"x", &text[from..to], &text[from..to]].concat());
        }
    }
}
