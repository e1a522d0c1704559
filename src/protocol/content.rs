//! Content on its way out: one header frame, then as many body frames as the negotiated frame size asks for.
//!
//! Source: AMQP 0-9-1, section 4.2.6.

use crate::protocol::frame::{FRAME_END, FRAME_HEADER_OCTETS, FRAME_OVERHEAD_OCTETS, FrameKind, frame_header};
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

#[inline]
fn put_body_frame(out: &mut Vec<u8>, channel: u16, part: &[u8]) {
    crate::protocol::frame::put_frame(out, FrameKind::Body, channel, part);
}
