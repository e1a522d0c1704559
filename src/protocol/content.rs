//! Content on its way out: one header frame, then as many body frames as the negotiated frame size asks for.
//!
//! Source: AMQP 0-9-1, section 4.2.6.

use crate::protocol::frame::{
    FRAME_END, FRAME_HEADER_OCTETS, FRAME_OVERHEAD_OCTETS, FrameKind, frame_header, put_frame,
};
use crate::protocol::method::basic;
use crate::protocol::properties::CONTENT_HEADER_FIXED_OCTETS;

/// The class id of all content.
pub const BASIC_CLASS_ID: u16 = basic::Publish::IDS.0;

/// Appends the header frame and the body frames of a message; none of these is longer than `frame_max` octets. An empty
/// body has no frame.
///
/// `properties` are flags and list, well-formed.
///
/// # Panics
/// Where `frame_max` leaves no room for a body.
#[inline]
pub fn put_content(out: &mut Vec<u8>, channel: u16, properties: &[u8], body: &[u8], frame_max: usize) {
    assert!(frame_max > FRAME_OVERHEAD_OCTETS, "frames have no room for a body");
    put_content_header(out, channel, properties, body.len() as u64);
    let payload_octets_max = frame_max - FRAME_OVERHEAD_OCTETS;
    if body.len() <= payload_octets_max {
        if !body.is_empty() {
            put_body_frame(out, channel, body);
        }
        return;
    }
    for part in body.chunks(payload_octets_max) {
        put_body_frame(out, channel, part);
    }
}

/// Appends the header frame alone; the body's frames are somebody else's.
#[inline]
pub fn put_content_header(out: &mut Vec<u8>, channel: u16, properties: &[u8], body_size: u64) {
    let mut head = [0; FRAME_HEADER_OCTETS + CONTENT_HEADER_FIXED_OCTETS];
    let payload_octets = CONTENT_HEADER_FIXED_OCTETS + properties.len();
    head[..7].copy_from_slice(&frame_header(FrameKind::Header, channel, payload_octets));
    head[7..9].copy_from_slice(&BASIC_CLASS_ID.to_be_bytes());
    head[11..].copy_from_slice(&body_size.to_be_bytes());
    out.reserve(payload_octets + FRAME_OVERHEAD_OCTETS);
    out.extend_from_slice(&head);
    out.extend_from_slice(properties);
    out.push(FRAME_END);
}

/// Appends a whole delivery: `basic.deliver`, the header frame and the body frames, as [`Method::put`] and
/// [`put_content`] together do, but with one look at the room in `out` and few copies.
///
/// # Panics
/// Where a short string has more than 255 octets, or `frame_max` leaves no room for a body.
///
/// [`Method::put`]: crate::protocol::method::Method::put
#[inline]
pub fn put_delivery(
    out: &mut Vec<u8>,
    channel: u16,
    deliver: &basic::Deliver<'_>,
    properties: &[u8],
    body: &[u8],
    frame_max: usize,
) {
    let basic::Deliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key } = *deliver;
    let strings_octets = consumer_tag.len() + exchange.len() + routing_key.len();
    let payload_octets = DELIVER_FIXED_OCTETS + strings_octets;
    out.reserve(payload_octets + properties.len() + body.len() + DELIVERY_OVERHEAD_OCTETS);

    let mut head = [0; FRAME_HEADER_OCTETS + 5];
    head[..7].copy_from_slice(&frame_header(FrameKind::Method, channel, payload_octets));
    head[7..9].copy_from_slice(&basic::Deliver::IDS.0.to_be_bytes());
    head[9..11].copy_from_slice(&basic::Deliver::IDS.1.to_be_bytes());
    head[11] = short_string_octets(consumer_tag);
    out.extend_from_slice(&head);
    out.extend_from_slice(consumer_tag);
    let mut middle = [0; 10];
    middle[..8].copy_from_slice(&delivery_tag.to_be_bytes());
    middle[8] = u8::from(redelivered);
    middle[9] = short_string_octets(exchange);
    out.extend_from_slice(&middle);
    out.extend_from_slice(exchange);
    out.push(short_string_octets(routing_key));
    out.extend_from_slice(routing_key);
    out.push(FRAME_END);
    put_content(out, channel, properties, body, frame_max);
}

/// Octets of a `basic.deliver` payload but for its strings: ids, three lengths, delivery tag, redelivered.
const DELIVER_FIXED_OCTETS: usize = 4 + 3 + 8 + 1;
/// Octets of a delivery of one body frame but for the payload of `basic.deliver`, the properties and the body.
const DELIVERY_OVERHEAD_OCTETS: usize = 3 * FRAME_OVERHEAD_OCTETS + CONTENT_HEADER_FIXED_OCTETS;

#[inline]
fn short_string_octets(octets: &[u8]) -> u8 {
    u8::try_from(octets.len()).expect("a short string is at most 255 octets")
}

#[inline]
fn put_body_frame(out: &mut Vec<u8>, channel: u16, part: &[u8]) {
    put_frame(out, FrameKind::Body, channel, part);
}

#[cfg(test)]
mod tests {
    use super::{put_content, put_delivery};
    use crate::protocol::field_table::TableRef;
    use crate::protocol::field_value::arbitrary;
    use crate::protocol::frame::{FrameKind, take_frame};
    use crate::protocol::method::{Method, basic};
    use crate::protocol::properties::Properties;
    use crate::protocol::properties::content_header;
    use proptest::prelude::*;

    /// Puts a body of so many octets and takes the frames apart again; returns the sizes of the body frames.
    fn check(body_octets: usize, frame_max: usize, body_frames: &[usize]) {
        let body: Vec<u8> = (0..=u8::MAX).cycle().take(body_octets).collect();
        let properties = [0x10, 0, 2];
        let mut out = Vec::new();
        put_content(&mut out, 3, &properties, &body, frame_max);
        let (frame, mut position) = take_frame(&out, frame_max).unwrap().unwrap();
        assert_eq!((frame.kind, frame.channel), (FrameKind::Header, 3));
        let header = content_header(frame.payload).unwrap();
        assert_eq!((header.class_id, header.body_size), (60, body_octets as u64));
        assert_eq!(header.properties, properties);
        let (mut sizes, mut received) = (Vec::new(), Vec::<u8>::new());
        while position < out.len() {
            let (frame, used) = take_frame(&out[position..], frame_max).unwrap().unwrap();
            assert_eq!((frame.kind, frame.channel), (FrameKind::Body, 3));
            assert!(used <= frame_max);
            received.extend(frame.payload);
            sizes.push(frame.payload.len());
            position += used;
        }
        assert_eq!(received, body);
        assert_eq!(sizes, body_frames);
    }

    /// Goal: a body is split so that no frame is longer than frame-max; an empty one has no frame (section 4.2.6.2).
    /// Method: both sides of one frame and of two frames.
    #[test]
    fn bodies_are_split_at_frame_max() {
        check(0, 4096, &[]);
        check(1, 4096, &[1]);
        check(4087, 4096, &[4087]);
        check(4088, 4096, &[4088]);
        check(4089, 4096, &[4088, 1]);
        check(8176, 4096, &[4088, 4088]);
        check(8177, 4096, &[4088, 4088, 1]);
        check(300_000, 131_072, &[131_064, 131_064, 37_872]);
    }

    proptest! {
        /// Goal: a delivery that is put at once is octet for octet what its parts are.
        /// Method: random deliveries, put both ways, behind what is in the buffer already.
        #[test]
        fn delivery_at_once_equals_its_parts(
            strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..=255), 3),
            delivery_tag: u64, redelivered: bool, channel: u16, table in arbitrary::table(),
            body in prop::collection::vec(any::<u8>(), 0..300), frame_max in 100_usize..200,
        ) {
            let (mut properties, headers) = (Vec::new(), table.to_octets());
            Properties { headers: TableRef::new(&headers).ok(), ..Default::default() }.encode(&mut properties);
            let (consumer_tag, exchange, routing_key) = (&strings[0][..], &strings[1][..], &strings[2][..]);
            let deliver = basic::Deliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key };
            let (mut parts, mut at_once) = (b"before".to_vec(), b"before".to_vec());
            Method::from(deliver).put(&mut parts, channel);
            put_content(&mut parts, channel, &properties, &body, frame_max);
            put_delivery(&mut at_once, channel, &deliver, &properties, &body, frame_max);
            prop_assert_eq!(parts, at_once);
        }
    }
}
