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
            put_frame(out, FrameKind::Body, channel, body);
        }
        return;
    }
    for part in body.chunks(payload_octets_max) {
        put_frame(out, FrameKind::Body, channel, part);
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

#[cfg(test)]
mod tests {
    use super::put_content;
    use crate::protocol::frame::{FrameKind, take_frame};
    use crate::protocol::properties::content_header;

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
}
