//! Content as it comes in: a publish with its header and body frames.
//!
//! The common case is that all of a message lies in the read buffer, its body in one frame: then it is published from there.
//! Otherwise its frames are gathered in the channel.

use super::{
    Shard,
    input::Progress,
    publish::{Origin, Published},
};
use crate::{
    connection::{Incoming, Pause, Phase},
    limits::{MESSAGE_OCTETS_MAX, WHOLE_MESSAGE_OCTETS_MAX},
    message::BodyView,
    protocol::{
        exception::{ChannelException, ConnectionException},
        frame::{Frame, FrameKind, take_frame},
        method::{basic::Publish, peek_publish},
        properties::content_header,
        reply_code::ReplyCode,
    },
};
use bytes::Bytes;

/// RabbitMQ's words for a frame that is not the one that is due.
const HEADER_DUE: &str = "expected content header for class 60, got non content header frame instead";
const BODY_DUE: &str = "expected content body, got non content body frame instead";

/// What a method frame is answered that comes within a message.
pub(super) fn method_instead(incoming: &Incoming) -> &'static str {
    if incoming.header.is_some() { BODY_DUE } else { HEADER_DUE }
}

/// What lies behind a `basic.publish` in the input.
enum Behind<'a> {
    /// The whole content, in so many octets.
    Whole { properties: &'a [u8], body: &'a [u8], octets: usize },
    /// Not all of it, but little is missing.
    Soon,
    /// It has to be gathered frame by frame (or is wrong).
    Gather,
}

fn look_behind(input: &[u8], channel: u16, frame_max: usize) -> Behind<'_> {
    let wait = if input.len() < WHOLE_MESSAGE_OCTETS_MAX { Behind::Soon } else { Behind::Gather };
    let (header, header_size) = match take_frame(input, frame_max) {
        Ok(Some(taken)) => taken,
        Ok(None) => return wait,
        Err(_) => return Behind::Gather,
    };
    if header.kind != FrameKind::Header || header.channel != channel {
        return Behind::Gather;
    }
    let Ok(content) = content_header(header.payload) else { return Behind::Gather };
    if content.class_id != Publish::IDS.0 {
        return Behind::Gather;
    }
    if content.body_size == 0 {
        return Behind::Whole { properties: content.properties, body: &[], octets: header_size };
    }
    let (body, body_size) = match take_frame(&input[header_size..], frame_max) {
        Ok(Some(taken)) => taken,
        Ok(None) if content.body_size < WHOLE_MESSAGE_OCTETS_MAX as u64 => return wait,
        _ => return Behind::Gather,
    };
    let is_all = body.kind == FrameKind::Body && body.channel == channel;
    if !is_all || body.payload.len() as u64 != content.body_size {
        return Behind::Gather;
    }
    Behind::Whole { properties: content.properties, body: body.payload, octets: header_size + body_size }
}

impl Shard {
    /// `basic.publish`, with what lies behind it.
    #[inline]
    pub(super) fn handle_publish(
        &mut self,
        slot: u32,
        frame: &Frame<'_>,
        publish: &Publish<'_>,
        size: usize,
        input: &[u8],
    ) -> Progress {
        let number = frame.channel;
        let (waits, is_behind) = (self.publishers_wait, self.is_disk_behind());
        let connection = self.connections.get_mut(slot).expect("the connection that a frame came on is there");
        let frame_max = connection.frame_octets_max;
        let Some(channel) = connection.channel(number) else { return self.handle_publish_astray(slot, frame, size) };
        if let Some(incoming) = &channel.incoming {
            let text = method_instead(incoming);
            self.unexpected_frame(slot, text);
            return Progress::Used(size);
        }
        if waits {
            self.block_publisher(slot);
            return Progress::Paused;
        }
        if is_behind {
            self.pause_for_disk(slot);
            return Progress::Paused;
        }
        match look_behind(&input[size..], number, frame_max) {
            Behind::Whole { properties, body, octets } => {
                let origin = Origin { slot, number, payload: frame.payload, may_wait: true };
                match self.publish(&origin, publish, properties, BodyView::Slice(body)) {
                    Ok(Published::Done) => Progress::Used(size + octets),
                    Ok(Published::PeerIsFull(peer)) => {
                        self.pause(slot, Pause::Peer(peer));
                        Progress::Paused
                    }
                    Err(exception) => {
                        self.fail(slot, number, exception, Publish::IDS);
                        Progress::Used(size + octets)
                    }
                }
            }
            Behind::Soon => Progress::NeedsMore,
            Behind::Gather => {
                channel.incoming = Some(Incoming { publish: frame.payload.into(), header: None, body: Vec::new() });
                Progress::Used(size)
            }
        }
    }

    /// A publish on a channel that is not open.
    fn handle_publish_astray(&mut self, slot: u32, frame: &Frame<'_>, size: usize) -> Progress {
        let connection = self.connections.get_mut(slot).expect("the connection that a frame came on is there");
        let is_closing = matches!(
            connection.channels.get(usize::from(frame.channel)),
            Some(crate::connection::ChannelSlot::Closing)
        );
        if !is_closing && connection.phase == Phase::Running {
            let exception = if frame.channel == 0 {
                ConnectionException::new(ReplyCode::CommandInvalid, "basic.publish on channel 0")
            } else {
                ConnectionException::new(ReplyCode::ChannelError, "expected 'channel.open'")
            };
            self.fail_connection(slot, &exception, Publish::IDS);
        }
        Progress::Used(size)
    }

    /// A header or body frame on a channel that is open.
    pub(super) fn handle_content(&mut self, slot: u32, frame: &Frame<'_>, size: usize) -> Progress {
        let connection = self.connections.get_mut(slot).expect("the connection that a frame came on is there");
        let channel = connection.channel(frame.channel).expect("the caller found the channel open");
        let Some(incoming) = &mut channel.incoming else {
            self.unexpected_frame(slot, "expected method frame, got non method frame instead");
            return Progress::Used(size);
        };
        match (&incoming.header, frame.kind) {
            (None, FrameKind::Header) => self.handle_content_header(slot, frame),
            (Some((body_size, _)), FrameKind::Body) => {
                let left = *body_size - incoming.body.len() as u64;
                if frame.payload.len() as u64 > left {
                    self.fail_connection(
                        slot,
                        &ConnectionException::new(ReplyCode::FrameError, "the body is longer than its header says"),
                        Publish::IDS,
                    );
                    return Progress::Used(size);
                }
                let wanted = usize::try_from(*body_size).expect("bounded by MESSAGE_OCTETS_MAX");
                append_bounded(&mut incoming.body, frame.payload, wanted);
                connection.incoming_octets += frame.payload.len() as u64;
                if frame.payload.len() as u64 == left {
                    self.publish_gathered(slot, frame.channel);
                }
            }
            (None, _) => self.unexpected_frame(slot, HEADER_DUE),
            (Some(_), _) => self.unexpected_frame(slot, BODY_DUE),
        }
        Progress::Used(size)
    }

    fn handle_content_header(&mut self, slot: u32, frame: &Frame<'_>) {
        let header = match content_header(frame.payload) {
            Ok(header) => header,
            Err(fault) => {
                self.fail_connection(slot, &fault.into(), Publish::IDS);
                return;
            }
        };
        if header.class_id != Publish::IDS.0 {
            let got = header.class_id;
            let text = format!("expected content header for class 60, got one for class {got} instead");
            self.unexpected_frame(slot, &text);
            return;
        }
        if header.body_size > MESSAGE_OCTETS_MAX {
            let text =
                format!("message size {} is larger than configured max size {MESSAGE_OCTETS_MAX}", header.body_size);
            let exception = ChannelException::new(ReplyCode::PreconditionFailed, text);
            self.fail(slot, frame.channel, exception.into(), Publish::IDS);
            return;
        }
        let connection = self.connections.get_mut(slot).expect("the connection that a frame came on is there");
        let channel = connection.channel(frame.channel).expect("the caller found the channel open");
        let incoming = channel.incoming.as_mut().expect("the caller found the channel taking content");
        incoming.header = Some((header.body_size, header.properties.into()));
        if header.body_size == 0 {
            self.publish_gathered(slot, frame.channel);
        }
    }

    /// All of a message's frames are there.
    fn publish_gathered(&mut self, slot: u32, number: u16) {
        let connection = self.connections.get_mut(slot).expect("the connection that a frame came on is there");
        let channel = connection.channel(number).expect("the caller found the channel open");
        let incoming = channel.incoming.take().expect("the caller found the channel taking content");
        connection.incoming_octets -= incoming.body.len() as u64;
        let (_, properties) = incoming.header.expect("the content has its header");
        let publish = peek_publish(&incoming.publish).expect("it was read before");
        let body = Bytes::from(incoming.body);
        let origin = Origin { slot, number, payload: &incoming.publish, may_wait: false };
        match self.publish(&origin, &publish, &properties, BodyView::Shared(&body)) {
            Ok(Published::Done) => {}
            Ok(Published::PeerIsFull(peer)) => self.pause(slot, Pause::Peer(peer)),
            Err(exception) => self.fail(slot, number, exception, Publish::IDS),
        }
        self.connections.account(slot);
    }
}

/// Appends to a body that will be `wanted` octets long: grows with what has really arrived, and never beyond that.
fn append_bounded(body: &mut Vec<u8>, octets: &[u8], wanted: usize) {
    let needed = body.len() + octets.len();
    if needed > body.capacity() {
        let capacity = needed.max(2 * body.capacity()).min(wanted);
        body.reserve_exact(capacity - body.len());
    }
    body.extend_from_slice(octets);
}
