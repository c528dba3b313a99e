//! Telling the processor what will be read soon, so that it comes from memory while other work goes on.
//!
//! Invariant: a hint changes nothing but time, whatever it points at.

/// Asks for the line of memory in which a value begins. Pays where the value is seldom in a cache and is read at the earliest
/// some fifty instructions later; elsewhere it costs an instruction.
#[inline(always)]
pub fn fetch<T: ?Sized>(value: &T) {
    line(std::ptr::from_ref(value).cast::<u8>());
}

/// The same for the first two lines of a value that begins with one.
#[inline(always)]
pub fn fetch_two<T>(value: &T) {
    let place = std::ptr::from_ref(value).cast::<u8>();
    line(place);
    line(place.wrapping_add(LINE));
}

/// The same for all of a value of a few lines.
#[inline(always)]
pub fn fetch_all<T>(value: &T) {
    let place = std::ptr::from_ref(value).cast::<u8>();
    (0..size_of::<T>()).step_by(LINE).for_each(|at| line(place.wrapping_add(at)));
    // Values do not begin with a line unless they say so.
    if align_of::<T>() < LINE {
        line(place.wrapping_add(size_of::<T>().saturating_sub(1)));
    }
}

/// The same for the beginning of a text, which as a whole may be in no cache.
#[inline(always)]
pub fn fetch_text(text: &[u8]) {
    for part in text.chunks(LINE).take(LINES) {
        line(part.as_ptr());
    }
}

/// Lines of a text; the processor goes on by itself behind them.
const LINES: usize = 6;
/// Bytes of a line.
const LINE: usize = 64;

#[inline(always)]
#[cfg(target_arch = "x86_64")]
fn line(place: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    #[expect(unsafe_code, reason = "a hint that takes a bare pointer")]
    // SAFETY: the instruction reads nothing into the program and never faults, whatever the address.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
}

#[inline(always)]
#[cfg(target_arch = "aarch64")]
fn line(place: *const u8) {
    #[expect(unsafe_code, reason = "no function for it yet")]
    // SAFETY: the instruction reads nothing into the program and never faults, whatever the address.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
}

#[inline(always)]
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn line(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_about_anything_changes_nothing() {
        let values = vec![7_u8; 100];
        fetch(&values);
        fetch(&values[..]);
        fetch(&values[100..]);
        fetch_two(&values[99]);
        fetch_all(&[1_u64; 20]);
        fetch_text(&values);
        fetch_text(&[]);
        line(std::ptr::null());
        line(std::ptr::dangling::<[u8; 4096]>().cast());
        assert_eq!(values, [7; 100]);
    }
}
