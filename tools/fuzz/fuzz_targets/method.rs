//! Any octets are a method or are refused; a method returns to octets that are the same method; the fast path agrees.
#![no_main]

use lepus::protocol::exception::ConnectionException;
use lepus::protocol::method::{Method, peek_publish};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let peeked = peek_publish(input);
    match Method::decode(input) {
        Ok(method) => {
            let mut octets = Vec::new();
            method.encode(&mut octets);
            // Unused bits and reserved arguments become zero; all else is kept.
            assert_eq!(Method::decode(&octets), Ok(method));
            if let Method::BasicPublish(publish) = method {
                assert_eq!(peeked, Some(publish));
            } else {
                assert_eq!(peeked, None);
            }
        }
        Err(fault) => {
            assert_eq!(peeked, None);
            let exception = ConnectionException::from(fault);
            assert!([502, 540].contains(&exception.code.code()));
        }
    }
});
