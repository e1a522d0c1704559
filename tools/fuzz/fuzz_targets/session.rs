//! Any session of methods and content, its decisions read from the input: see `tape` and `session` in the broker in memory.
#![no_main]

#[path = "../../../tests/in_memory/mod.rs"]
mod in_memory;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| in_memory::session::check_tape(input));
