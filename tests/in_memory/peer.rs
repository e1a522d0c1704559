//! What the broker sends, read as a strict client would: every departure from the protocol is a panic.

use lepus::protocol::{
    frame::{FrameKind, SUPPORTED_HEADER, take_frame},
    method::{Method, basic, channel, connection},
    properties::content_header,
};
use std::collections::HashMap;

const INTERNAL_ERROR: u16 = 541;

/// What a client may want to react to.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The broker closed a channel.
    ChannelClosed(u16, u16),
    /// The broker closed the connection.
    ConnectionClosed(u16),
    /// A message, to a consumer or as an answer to `basic.get`.
    Message { channel: u16, tag: u64, body: Vec<u8> },
    /// Any other method: its name.
    Method(u16, &'static str),
}

#[derive(Default)]
struct Channel {
    is_closed: bool,
    tag: u64,
    /// A message of which not all has arrived: its tag (0 for a returned one), the octets that are missing, the body.
    content: Option<(u64, Option<u64>, Vec<u8>)>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Peer {
    /// The frame-max that was negotiated, in octets.
    pub frame_octets_max: usize,
    channels: HashMap<u16, Channel>,
    is_closed: bool,
}

impl Peer {
    pub fn new(frame_octets_max: usize) -> Self {
        Self { frame_octets_max, ..Self::default() }
    }

    /// Takes whole frames.
    pub fn take(&mut self, mut octets: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        if octets == SUPPORTED_HEADER {
            self.is_closed = true;
            return events;
        }
        while !octets.is_empty() {
            let taken = take_frame(octets, self.frame_octets_max).expect("the broker sends frames");
            let (frame, used) = taken.expect("the broker writes whole frames");
            octets = &octets[used..];
            match frame.kind {
                FrameKind::Heartbeat => assert_eq!((frame.channel, frame.payload), (0, &[][..])),
                FrameKind::Method => {
                    let method = Method::decode(frame.payload).expect("the broker sends methods that are known");
                    events.extend(self.take_method(frame.channel, &method));
                }
                FrameKind::Header | FrameKind::Body => events.extend(self.take_content(frame.channel, &frame)),
            }
        }
        for channel in self.channels.values() {
            assert!(channel.content.is_none(), "the broker sends whole messages");
        }
        events
    }

    fn take_method(&mut self, number: u16, method: &Method<'_>) -> Option<Event> {
        let name = method.name();
        assert!(
            !self.is_closed || matches!(method, Method::ConnectionCloseOk(_)),
            "{name} after the end of the connection"
        );
        if number == 0 {
            return Some(self.take_connection_method(method));
        }
        let channel = self.channels.entry(number).or_default();
        assert!(channel.content.is_none(), "{name} within a message");
        let ends = matches!(method, Method::ChannelCloseOk(_) | Method::ChannelOpenOk(_));
        assert!(!channel.is_closed || ends, "{name} on channel {number}, which is closed");
        match *method {
            Method::ChannelClose(channel::Close { reply_code, reply_text, .. }) => {
                assert!(reply_code != INTERNAL_ERROR, "{}", String::from_utf8_lossy(reply_text));
                std::str::from_utf8(reply_text).expect("a text is UTF-8");
                channel.is_closed = true;
                Some(Event::ChannelClosed(number, reply_code))
            }
            Method::ChannelOpenOk(_) => {
                *channel = Channel::default();
                Some(Event::Method(number, name))
            }
            Method::BasicDeliver(basic::Deliver { delivery_tag, .. })
            | Method::BasicGetOk(basic::GetOk { delivery_tag, .. }) => {
                assert_eq!(delivery_tag, channel.tag + 1, "delivery tags count");
                channel.tag = delivery_tag;
                channel.content = Some((delivery_tag, None, Vec::new()));
                None
            }
            Method::BasicReturn(_) => {
                channel.content = Some((0, None, Vec::new()));
                None
            }
            _ => Some(Event::Method(number, name)),
        }
    }

    fn take_connection_method(&mut self, method: &Method<'_>) -> Event {
        let Method::ConnectionClose(connection::Close { reply_code, reply_text, .. }) = *method else {
            return Event::Method(0, method.name());
        };
        assert!(reply_code != INTERNAL_ERROR, "{}", String::from_utf8_lossy(reply_text));
        std::str::from_utf8(reply_text).expect("a text is UTF-8");
        self.is_closed = true;
        Event::ConnectionClosed(reply_code)
    }

    fn take_content(&mut self, number: u16, frame: &lepus::protocol::frame::Frame<'_>) -> Option<Event> {
        let channel = self.channels.entry(number).or_default();
        let (tag, missing, body) = channel.content.as_mut().expect("content follows its method");
        let left = match (missing.as_mut(), frame.kind) {
            (None, FrameKind::Header) => {
                let header = content_header(frame.payload).expect("a header is well-formed");
                assert_eq!(header.class_id, basic::Deliver::IDS.0);
                *missing.insert(header.body_size)
            }
            (Some(left), FrameKind::Body) => {
                assert!(!frame.payload.is_empty(), "a body frame carries something");
                body.extend_from_slice(frame.payload);
                *left = left.checked_sub(frame.payload.len() as u64).expect("a body is as long as its header says");
                *left
            }
            (_, kind) => panic!("{kind:?} is not due within a message"),
        };
        if left > 0 {
            return None;
        }
        let (tag, body) = (*tag, std::mem::take(body));
        channel.content = None;
        Some(if tag == 0 {
            Event::Method(number, "basic.return")
        } else {
            Event::Message { channel: number, tag, body }
        })
    }
}
