//! Why a pattern was refused. The codes are the contract's own, so that messages can quote them.

/// A pattern that no matcher can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (error {code})")]
pub struct CompileError {
    /// 3 too long, 6 bad escape, 7 bad parentheses; from 100 on: PCRE2.
    pub code: u16,
    /// What is wrong, with the byte offset where that is known.
    pub message: String,
}

impl CompileError {
    /// The code of a PCRE2 pattern that cannot be compiled.
    pub const PCRE: u16 = 100;

    pub(crate) fn too_long(length: usize) -> Self {
        Self {
            code: 3,
            message: format!("pattern of {length} bytes is longer than {}", crate::PATTERN_LIMIT),
        }
    }

    pub(crate) fn bad_escape(offset: usize) -> Self {
        Self { code: 6, message: format!("unknown escape at offset {offset}") }
    }

    pub(crate) fn bad_parentheses(offset: usize) -> Self {
        Self { code: 7, message: format!("parentheses do not pair at offset {offset}") }
    }

    pub(crate) fn pcre(message: impl Into<String>) -> Self {
        Self { code: Self::PCRE, message: message.into() }
    }
}
