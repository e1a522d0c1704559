//! Any octets behind a handshake, in pieces: see `session` in the broker in memory for what must hold.
//!
//! The first octet chooses the frame-max and the size of the pieces, the rest is what the client sends.
#![no_main]

#[path = "../../../tests/in_memory/mod.rs"]
mod in_memory;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, octets)) = input.split_first() else { return };
    let frame_max = if first & 1 == 0 { 4096 } else { 131_072 };
    in_memory::session::check_octets(frame_max, octets, &[1 + usize::from(first >> 1)]);
});
