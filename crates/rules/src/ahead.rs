//! Telling the processor what will be read soon, so that it comes from memory while other work goes on.
//!
//! Pays where something is seldom in a cache and is read at the earliest some fifty instructions later; elsewhere it costs an
//! instruction. Invariant: a hint changes nothing but time.

/// Asks for the line of memory in which a value begins.
#[inline(always)]
pub(crate) fn fetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    safe_arch::prefetch_t0(value);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// The same for the beginning of a text, which as a whole may be in no cache.
#[inline(always)]
pub(crate) fn fetch_text(text: &[u8]) {
    text.iter().step_by(LINE).take(LINES).for_each(fetch);
}

/// Lines of a text; the processor goes on by itself behind them.
const LINES: usize = 6;
/// Bytes of a line.
const LINE: usize = 64;
