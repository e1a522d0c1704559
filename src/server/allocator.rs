//! The allocator's settings that matter to a broker: memory that a drained queue gives back goes back to the system.
//!
//! Measured on mimalloc 2's defaults: after 200,000 messages of 1 KiB were drained, 130 MB of 265 MB stayed resident for as
//! long as nothing was allocated. A collection a second gives all of it back.

#![allow(unsafe_code, reason = "mimalloc's collection is a function of C")]

/// Gives back what the calling thread has freed.
pub fn collect() {
    // SAFETY: `mi_collect` may be called by any thread at any time; it touches the allocator's own state only.
    unsafe { libmimalloc_sys::mi_collect(false) };
}
