//! Counting requests for memory, for tests and benches that hold code to none.
//!
//! A test or bench installs [`Counting`] as its `#[global_allocator]` and asks [`of_this_thread`] before and after what it
//! measures; no program that is shipped does. Invariant: memory comes from the system allocator, unchanged.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static REQUESTS: Cell<u64> = const { Cell::new(0) };
}

/// The system allocator, with a count of requests for each thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counting;

/// Requests for memory that this thread has made so far; always 0 where [`Counting`] is not installed.
pub fn of_this_thread() -> u64 {
    REQUESTS.try_with(Cell::get).unwrap_or(0)
}

fn count() {
    // A thread that ends may still ask for memory when its counter is gone.
    let _ = REQUESTS.try_with(|requests| requests.set(requests.get() + 1));
}

// SAFETY: every call goes to the system allocator with the same arguments; counting touches no memory of the heap.
#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(memory, layout) }
    }
}
