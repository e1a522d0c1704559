//! Any octets are a content header or are refused; both decoders agree, and properties return to the same octets.
#![no_main]

use lepus::protocol::properties::{
    self, Properties, content_header, delivery_mode, expiration, headers, priority, property_flags,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The shortcuts do no harm to octets that nobody has validated.
    let _ = (delivery_mode(input), priority(input), expiration(input));
    if let Some(table) = headers(input) {
        let _ = table.iter().count();
    }
    let Ok(header) = content_header(input) else {
        if let Some(raw) = input.get(properties::CONTENT_HEADER_FIXED_OCTETS..) {
            assert!(Properties::decode(raw).is_err());
        }
        return;
    };
    let raw = header.properties;
    let decoded = Properties::decode(raw).expect("a content header is validated");
    assert_eq!(delivery_mode(raw), decoded.delivery_mode);
    assert_eq!(priority(raw), decoded.priority);
    assert_eq!(expiration(raw), decoded.expiration);
    assert_eq!(headers(raw), decoded.headers);
    let mut again = Vec::new();
    decoded.encode(&mut again);
    assert_eq!(again, raw);
    assert_eq!(property_flags(&again), property_flags(raw));
});
