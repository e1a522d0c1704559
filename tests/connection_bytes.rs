//! Whole connections of arbitrary octets against a broker in memory: see `in_memory::session` for what must hold.
//!
//! `PROPTEST_CASES` sets how many are tried. The same harness is fuzzed: `tools/fuzz`.

mod in_memory;

use in_memory::session::{check_octets, check_tape, check_whole};
use proptest::prelude::*;

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..20_usize, 1..5000_usize], 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// Goal: no octets behind a handshake do harm. Method: random ones, in random pieces.
    #[test]
    fn any_octets_after_the_handshake(octets in prop::collection::vec(any::<u8>(), 0..2000), pieces in pieces()) {
        check_octets(4096, &octets, &pieces);
    }

    /// Goal: no octets at all do harm. Method: random ones behind some of a protocol header.
    #[test]
    fn any_octets_from_the_start(
        header in 0..9_usize,
        octets in prop::collection::vec(any::<u8>(), 0..200),
        pieces in pieces(),
    ) {
        let mut whole = b"AMQP\0\0\x09\x01"[..header.min(8)].to_vec();
        whole.extend(octets);
        check_whole(131_072, whole, &pieces);
    }

    /// Goal: no session of methods and content does harm, however plausible, damaged or cut into pieces.
    /// Method: decisions are read from random octets; a connection that ends is followed by the next.
    #[test]
    fn any_session(tape in prop::collection::vec(any::<u8>(), 0..3000)) {
        check_tape(&tape);
    }
}
