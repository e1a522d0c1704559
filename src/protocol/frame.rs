//! The envelope of everything that follows the protocol header, and the protocol header itself.
//!
//! Knows kinds and lengths of frames, not what is in them.
//!
//! Source: AMQP 0-9-1, sections 4.2.2 and 4.2.3.

use crate::protocol::exception::ConnectionException;
use crate::protocol::reply_code::ReplyCode;
use std::fmt::Write as _;

/// Octets in front of a payload: kind, channel, length.
pub const FRAME_HEADER_OCTETS: usize = 7;
/// The octet behind a payload.
pub const FRAME_END: u8 = 0xCE;
/// Octets of a frame that are not payload.
pub const FRAME_OVERHEAD_OCTETS: usize = FRAME_HEADER_OCTETS + 1;
/// A heartbeat frame, whole.
pub const HEARTBEAT_FRAME: [u8; FRAME_OVERHEAD_OCTETS] = [FrameKind::Heartbeat as u8, 0, 0, 0, 0, 0, 0, FRAME_END];
/// The protocol header of AMQP 0-9-1: what a refused client is answered.
pub const SUPPORTED_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
/// The protocol header of AMQP 0-9, whose clients are content with 0-9-1.
const HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// What a frame's payload is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A method and its arguments.
    Method = 1,
    /// A content header.
    Header = 2,
    /// A part of a content's body.
    Body = 3,
    /// Nothing: the peer is alive.
    Heartbeat = 8,
}

/// One frame in somebody else's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: FrameKind,
    /// The channel that it belongs to; 0 is the connection itself.
    pub channel: u16,
    /// All between the frame's header and its end.
    pub payload: &'a [u8],
}

/// Takes one whole frame from the front of `input`: the frame, and how many octets it used.
///
/// Returns `None`, consuming nothing, until all of it has arrived. As in RabbitMQ, `frame_max` (octets) bounds the
/// *payload*, though in the specification it counts header and end too: quite a few clients get that wrong. So the
/// longest frame that is taken has `frame_max` + [`FRAME_OVERHEAD_OCTETS`] octets, and a read buffer must hold that much.
///
/// # Errors
/// `FRAME_ERROR` (501) where the declared payload is longer than `frame_max` or the kind is unknown, as soon as the
/// frame's header is there; or where the frame is not ended by [`FRAME_END`].
///
/// Source: AMQP 0-9-1, section 4.2.3.
#[inline]
pub fn take_frame(input: &[u8], frame_max: usize) -> Result<Option<(Frame<'_>, usize)>, ConnectionException> {
    let Some((&[kind, channel_high, channel_low, s0, s1, s2, s3], rest)) =
        input.split_first_chunk::<FRAME_HEADER_OCTETS>()
    else {
        return Ok(None);
    };
    let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    let frame_kind = match kind {
        1 => FrameKind::Method,
        2 => FrameKind::Header,
        3 => FrameKind::Body,
        8 => FrameKind::Heartbeat,
        _ => return Err(unknown_kind(kind)),
    };
    if size > frame_max {
        return Err(too_large(kind, size, frame_max));
    }
    if rest.len() <= size {
        return Ok(None);
    }
    let (payload, rest) = rest.split_at(size);
    if rest[0] != FRAME_END {
        return Err(wrong_end(kind, payload, rest[0]));
    }
    let channel = u16::from_be_bytes([channel_high, channel_low]);
    Ok(Some((Frame { kind: frame_kind, channel, payload }, size + FRAME_OVERHEAD_OCTETS)))
}

/// Appends one frame.
///
/// # Panics
/// Where the payload has 2^32 octets or more.
#[inline]
pub fn put_frame(out: &mut Vec<u8>, kind: FrameKind, channel: u16, payload: &[u8]) {
    out.reserve(payload.len() + FRAME_OVERHEAD_OCTETS);
    out.extend_from_slice(&frame_header(kind, channel, payload.len()));
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

/// Appends one frame whose payload is what `put` appends.
#[inline]
pub(super) fn put_frame_of(out: &mut Vec<u8>, kind: FrameKind, channel: u16, put: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&frame_header(kind, channel, 0));
    put(out);
    let payload_octets = out.len() - start - FRAME_HEADER_OCTETS;
    let payload_octets = u32::try_from(payload_octets).expect("a payload is shorter than 2^32 octets");
    out[start + 3..start + FRAME_HEADER_OCTETS].copy_from_slice(&payload_octets.to_be_bytes());
    out.push(FRAME_END);
}

/// The octets in front of a payload.
///
/// # Panics
/// Where the payload has 2^32 octets or more.
#[inline]
pub fn frame_header(kind: FrameKind, channel: u16, payload_octets: usize) -> [u8; FRAME_HEADER_OCTETS] {
    let [channel_high, channel_low] = channel.to_be_bytes();
    let size = u32::try_from(payload_octets).expect("a payload is shorter than 2^32 octets");
    let [s0, s1, s2, s3] = size.to_be_bytes();
    [kind as u8, channel_high, channel_low, s0, s1, s2, s3]
}

/// What is to be done about the first octets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderCheck {
    /// Right so far: wait for more.
    Incomplete,
    /// A version that is spoken here. The header's 8 octets are used up.
    Accepted,
    /// Anything else: answer [`SUPPORTED_HEADER`], then close.
    Unsupported,
}

/// Looks at the first octets of a connection, and refuses them at the first wrong one.
///
/// Accepts AMQP 0-9-1 and, as RabbitMQ does, AMQP 0-9.
#[inline]
pub fn protocol_header(input: &[u8]) -> HeaderCheck {
    let begins = |header: &[u8; 8]| input.iter().zip(header).all(|(a, b)| a == b);
    if !begins(&SUPPORTED_HEADER) && !begins(&HEADER_0_9) {
        HeaderCheck::Unsupported
    } else if input.len() < SUPPORTED_HEADER.len() {
        HeaderCheck::Incomplete
    } else {
        HeaderCheck::Accepted
    }
}

#[cold]
fn unknown_kind(kind: u8) -> ConnectionException {
    frame_error(kind, &[], "unknown_frame")
}

#[cold]
fn too_large(kind: u8, size: usize, frame_max: usize) -> ConnectionException {
    let payload_octets_max = frame_max.saturating_sub(FRAME_OVERHEAD_OCTETS);
    frame_error(kind, &[], &format!("{{frame_too_large,{size},{payload_octets_max}}}"))
}

#[cold]
fn wrong_end(kind: u8, payload: &[u8], end: u8) -> ConnectionException {
    frame_error(kind, payload, &format!("{{invalid_frame_end_marker,{end}}}"))
}

/// RabbitMQ's text for a bad frame: kind, the first octets as Erlang prints them, the reason.
fn frame_error(kind: u8, payload: &[u8], reason: &str) -> ConnectionException {
    const SHOWN_OCTETS_MAX: usize = 16;
    let (extent, shown) = match payload.get(..SHOWN_OCTETS_MAX) {
        Some(first) if payload.len() > SHOWN_OCTETS_MAX => ("first 16", first),
        _ => ("all", payload),
    };
    let octets = erlang_binary(shown);
    ConnectionException::new(ReplyCode::FrameError, format!("type {kind}, {extent} octets = {octets}: {reason}"))
}

/// Octets as Erlang prints a binary: a string where all are printable ASCII, else numbers.
fn erlang_binary(octets: &[u8]) -> String {
    let mut text = String::from("<<");
    if !octets.is_empty() && octets.iter().all(|octet| matches!(octet, b' '..=b'~')) {
        let quoted = String::from_utf8_lossy(octets).replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(text, "\"{quoted}\"");
    } else {
        for (place, octet) in octets.iter().enumerate() {
            let _ = write!(text, "{}{octet}", if place == 0 { "" } else { "," });
        }
    }
    text.push_str(">>");
    text
}
