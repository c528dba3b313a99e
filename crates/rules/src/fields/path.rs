//! Names of the objects around a member, appended by blocks instead of calls that ask how long they are.

/// Names of the objects around a member, each with its dot.
#[derive(Debug, Default)]
pub(crate) struct Path {
    names: Vec<u8>,
    length: usize,
}

impl Path {
    /// All names.
    #[inline]
    pub(super) fn names(&self) -> &[u8] {
        &self.names[..self.length]
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
    pub(crate) fn push(&mut self, name: &[u8]) {
        self.length = self.join(name).len() + 1;
        self.names.push(b'.');
    }

    /// The whole name of a member.
    pub(crate) fn join(&mut self, name: &[u8]) -> &[u8] {
        self.names.truncate(self.length);
        self.names.extend_from_slice(name);
        &self.names
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
