//! Any octets are frames, wait for more, or are refused; what was taken returns to the same octets.
#![no_main]

use lepus::protocol::frame::{HeaderCheck, protocol_header, put_frame, take_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if protocol_header(input) == HeaderCheck::Accepted {
        assert!(input.len() >= 8);
    }
    let mut rest = input;
    let mut again = Vec::new();
    loop {
        match take_frame(rest, 4096) {
            Ok(Some((frame, used))) => {
                assert!(frame.payload.len() <= 4096);
                again.clear();
                put_frame(&mut again, frame.kind, frame.channel, frame.payload);
                assert_eq!(again, rest[..used]);
                rest = &rest[used..];
            }
            Ok(None) => {
                assert!(rest.len() < 4096 + 8, "a whole frame must be taken");
                break;
            }
            Err(exception) => {
                assert_eq!(exception.code.code(), 501);
                assert!(exception.text.len() <= 255);
                break;
            }
        }
    }
});
