//! A few bytes in the very place where they are told of: nothing else has to be fetched to read them.
//!
//! Invariant: the bytes that were given come first, and behind them stand at most zeros.

/// Bytes that stand here if they are few.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Here([u8; Self::MOST]),
    Away(Box<[u8]>),
}

impl Piece {
    /// So many bytes are few: with them and its own mark a piece takes seven words.
    const MOST: usize = 55;

    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut here = [0; Self::MOST];
        match here.get_mut(..bytes.len()) {
            Some(front) => {
                front.copy_from_slice(bytes);
                Self::Here(here)
            }
            None => Self::Away(bytes.into()),
        }
    }

    /// The bytes, and perhaps zeros behind them.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Here(bytes) => bytes,
            Self::Away(bytes) => bytes,
        }
    }
}
