//! A file's bytes under the name that diagnostics show.
//!
//! Spans are byte offsets into these bytes and stay valid because a source never changes.

use std::sync::Arc;

/// A named text; the name is what diagnostics show, usually a path relative to the home directory.
#[derive(Debug, Clone)]
pub struct Source {
    /// Shown in diagnostics.
    pub name: Arc<str>,
    /// The bytes of the file.
    pub text: Arc<[u8]>,
}

impl Source {
    /// Names some bytes.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<[u8]>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The bytes under a span; what lies outside the text is left out.
    #[must_use]
    pub fn slice(&self, span: Span) -> &[u8] {
        let end = (span.end as usize).min(self.text.len());
        let start = (span.start as usize).min(end);
        &self.text[start..end]
    }

    /// Line number of a span's start, from 1.
    #[must_use]
    pub fn line_of(&self, span: Span) -> u32 {
        let before = &self.text[..(span.start as usize).min(self.text.len())];
        u32::try_from(memchr::memchr_iter(b'\n', before).count()).map_or(u32::MAX, |n| n.saturating_add(1))
    }
}

/// A range of byte offsets into a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A span of offsets that are known to fit: sources above 4 GiB are refused before scanning.
    pub(crate) fn of(start: usize, end: usize) -> Self {
        let fit = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self { start: fit(start), end: fit(end) }
    }
}
