//! The zlib stream inside sealed messages, both directions.
//! Invariant: inflating never yields more than the caller's limit; nobody else touches the raw decoder.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Why a stream was not inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// Not a zlib stream, or damaged, or cut.
    #[error("the compressed text is damaged")]
    Damaged,
    /// Longer than allowed once inflated.
    #[error("the text inflates to more than {0} bytes")]
    TooLong(usize),
}

/// A reusable zlib coder of the contract's level; its tables are large, so a sender keeps one.
pub struct Deflater(Compress);

impl Default for Deflater {
    fn default() -> Self {
        Self(Compress::new(Compression::best(), true))
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deflater")
    }
}

impl Deflater {
    /// A whole zlib stream.
    pub fn deflate(&mut self, text: &[u8]) -> Vec<u8> {
        self.0.reset();
        // Stored blocks are the worst case: five bytes each, and the stream's own six.
        let mut out = Vec::with_capacity(text.len() + text.len() / 1_000 + 64);
        loop {
            let used = usize::try_from(self.0.total_in()).unwrap_or(usize::MAX).min(text.len());
            match self.0.compress_vec(&text[used..], &mut out, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => return out,
                Ok(Status::Ok | Status::BufError) => out.reserve(out.len().max(64)),
                Err(_) => unreachable!("a deflate stream that was just reset cannot be in a wrong state"),
            }
        }
    }
}

/// A reusable zlib decoder.
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inflater")
    }
}

impl Inflater {
    /// The text of a zlib stream; bytes behind its end are ignored.
    ///
    /// # Errors
    /// When the stream is damaged or its text exceeds `limit`.
    pub fn inflate(&mut self, stream: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
        self.0.reset(true);
        let mut out = Vec::with_capacity(stream.len().saturating_mul(4).clamp(64, limit.saturating_add(1)));
        loop {
            let used = usize::try_from(self.0.total_in()).unwrap_or(usize::MAX).min(stream.len());
            let before = (used, out.len());
            let status = self.0.decompress_vec(&stream[used..], &mut out, FlushDecompress::Finish);
            if out.len() > limit {
                return Err(InflateError::TooLong(limit));
            }
            match status {
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(Status::Ok | Status::BufError) if out.len() == out.capacity() => {
                    let room = limit + 1 - out.len();
                    out.reserve_exact(room.min(out.len().max(64)));
                }
                // Room is left and nothing moved: the stream is cut.
                Ok(_) if before == (usize::try_from(self.0.total_in()).unwrap_or(usize::MAX), out.len()) => {
                    return Err(InflateError::Damaged);
                }
                Ok(_) => {}
                Err(_) => return Err(InflateError::Damaged),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = Deflater::default().deflate(&vec![b'a'; 10_000_000]);
        assert!(bomb.len() < 65_536);
        assert_eq!(Inflater::default().inflate(&bomb, 65_536), Err(InflateError::TooLong(65_536)));
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        let stream = Deflater::default().deflate(&[b'a'; 100]);
        assert_eq!(Inflater::default().inflate(&stream, 100).unwrap().len(), 100);
        assert_eq!(Inflater::default().inflate(&stream, 99), Err(InflateError::TooLong(99)));
    }

    #[test]
    fn a_cut_or_empty_stream_is_damaged() {
        let stream = Deflater::default().deflate(b"some text that is long enough");
        for cut in 0..stream.len() {
            assert_eq!(
                Inflater::default().inflate(&stream[..cut], 1_000),
                Err(InflateError::Damaged),
                "{cut}"
            );
        }
    }

    proptest! {
        #[test]
        fn text_round_trips_with_rubbish_behind(text in prop::collection::vec(any::<u8>(), 0..3_000), tail: [u8; 7]) {
            let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
            for _ in 0..2 {
                let mut stream = deflater.deflate(&text);
                stream.extend_from_slice(&tail);
                prop_assert_eq!(&inflater.inflate(&stream, 65_536).unwrap(), &text);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = vec![0x78, 0xda];
            stream.extend_from_slice(&bytes);
            let _ = Inflater::default().inflate(&stream, 1_000);
            let _ = Inflater::default().inflate(&bytes, 1_000);
        }
    }
}
