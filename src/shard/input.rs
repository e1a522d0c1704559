//! Frames as they come in from a client, one after the other.

use super::{Shard, content_input::method_instead};
use crate::{
    connection::{ChannelSlot, Pause, Phase},
    limits::OUTPUT_PAUSE_OCTETS,
    protocol::{
        exception::ConnectionException,
        frame::{Frame, FrameKind, HeaderCheck, SUPPORTED_HEADER, protocol_header, take_frame},
        method::{Method, peek_publish},
        reply_code::ReplyCode,
    },
};

/// How far one step came.
pub(super) enum Progress {
    /// So many octets of input are done with.
    Used(usize),
    /// More has to arrive first.
    NeedsMore,
    /// The connection is paused; the octets come again.
    Paused,
}

impl Shard {
    /// Handles what a client sent. Returns how many octets are done with; the rest must be given again, with what follows.
    ///
    /// Less than everything is used where a frame has not arrived whole, and where the connection is paused
    /// ([`Shard::takes_input`]): then nothing is to be given until [`Shard::poll_resumed`] names it.
    pub fn handle_input(&mut self, slot: u32, input: &[u8]) -> usize {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(slot) else { return input.len() };
        connection.received_at = now;
        self.routes.renew(self.definitions.version);
        let mut used = 0;
        while used < input.len() {
            match self.handle_step(slot, &input[used..]) {
                Progress::Used(octets) => used += octets,
                Progress::NeedsMore | Progress::Paused => break,
            }
        }
        if let Some(connection) = self.connections.get(slot)
            && connection.incoming_octets > 0
        {
            self.connections.account(slot);
        }
        used
    }

    #[inline]
    fn handle_step(&mut self, slot: u32, input: &[u8]) -> Progress {
        let Some(connection) = self.connections.get(slot) else { return Progress::Used(input.len()) };
        if !connection.takes_input() {
            return if connection.phase == Phase::Closed { Progress::Used(input.len()) } else { Progress::Paused };
        }
        if connection.phase == Phase::Header {
            return self.handle_header(slot, input);
        }
        if connection.output.len() >= OUTPUT_PAUSE_OCTETS {
            self.pause(slot, Pause::Output);
            return Progress::Paused;
        }
        let (frame, size) = match take_frame(input, connection.frame_octets_max) {
            Ok(Some(taken)) => taken,
            Ok(None) => return Progress::NeedsMore,
            Err(exception) => {
                self.fail_connection(slot, &exception, (0, 0));
                return Progress::Used(input.len());
            }
        };
        if connection.phase == Phase::Running
            && frame.kind == FrameKind::Method
            && let Some(publish) = peek_publish(frame.payload)
        {
            return self.handle_publish(slot, &frame, &publish, size, input);
        }
        self.handle_frame(slot, &frame, size)
    }

    fn handle_header(&mut self, slot: u32, input: &[u8]) -> Progress {
        let answer = match protocol_header(input) {
            HeaderCheck::Incomplete => return Progress::NeedsMore,
            HeaderCheck::Accepted => {
                self.start_connection(slot);
                return Progress::Used(SUPPORTED_HEADER.len());
            }
            HeaderCheck::Unsupported => SUPPORTED_HEADER,
        };
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.output.octets_mut().extend_from_slice(&answer);
            connection.phase = Phase::Closed;
            self.connections.mark_dirty(slot);
        }
        Progress::Used(input.len())
    }

    fn handle_frame(&mut self, slot: u32, frame: &Frame<'_>, size: usize) -> Progress {
        let done = Progress::Used(size);
        if frame.kind == FrameKind::Heartbeat {
            return done;
        }
        let connection = self.connections.get_mut(slot).expect("the connection that a frame came on is there");
        if frame.channel == 0 {
            if frame.kind == FrameKind::Method {
                self.handle_connection_frame(slot, frame.payload);
            } else {
                self.unexpected_frame(slot, "content on channel 0");
            }
            return done;
        }
        match connection.phase {
            Phase::Running => {}
            Phase::Closing => return done,
            _ => {
                self.command_invalid(slot, "a channel is used before the connection is open");
                return done;
            }
        }
        match connection.channels.get(usize::from(frame.channel)) {
            Some(ChannelSlot::Open(channel)) => match (frame.kind, &channel.incoming) {
                (FrameKind::Method, Some(incoming)) => {
                    let text = method_instead(incoming);
                    self.unexpected_frame(slot, text);
                }
                (FrameKind::Method, None) => {
                    return self.handle_channel_frame(slot, frame.channel, frame.payload, size);
                }
                _ => return self.handle_content(slot, frame, size),
            },
            Some(ChannelSlot::Closing) => self.handle_closing_channel(slot, frame),
            _ => return self.handle_unopened_channel(slot, frame, size),
        }
        done
    }

    /// A method on a channel that is open.
    fn handle_channel_frame(&mut self, slot: u32, number: u16, payload: &[u8], size: usize) -> Progress {
        match Method::decode(payload) {
            Ok(method) => {
                let ids = method.ids();
                if let Err(exception) = self.handle_channel_method(slot, number, &method) {
                    self.fail(slot, number, exception, ids);
                }
            }
            Err(fault) => {
                let ids = fault.ids();
                self.fail_connection(slot, &ConnectionException::from(fault), ids);
            }
        }
        Progress::Used(size)
    }

    /// The broker has closed the channel; all but the end of that is ignored.
    fn handle_closing_channel(&mut self, slot: u32, frame: &Frame<'_>) {
        if frame.kind != FrameKind::Method {
            return;
        }
        let is_over = match Method::decode(frame.payload) {
            Ok(Method::ChannelCloseOk(_)) => true,
            Ok(Method::ChannelClose(_)) => {
                self.send(slot, frame.channel, &Method::ChannelCloseOk(crate::protocol::method::channel::CloseOk {}));
                false
            }
            _ => false,
        };
        if is_over && let Some(connection) = self.connections.get_mut(slot) {
            *connection.channel_slot(frame.channel) = ChannelSlot::Closed;
        }
    }

    fn handle_unopened_channel(&mut self, slot: u32, frame: &Frame<'_>, size: usize) -> Progress {
        let method = (frame.kind == FrameKind::Method).then(|| Method::decode(frame.payload));
        let number = frame.channel;
        match method {
            Some(Ok(Method::ChannelOpen(_))) => self.open_channel(slot, number),
            // The broker's own close may have crossed the client's.
            Some(Ok(Method::ChannelCloseOk(_))) => {}
            Some(Err(fault)) => {
                let ids = fault.ids();
                self.fail_connection(slot, &ConnectionException::from(fault), ids);
            }
            other => {
                let ids = other.and_then(Result::ok).map_or((0, 0), |method| method.ids());
                let exception = ConnectionException::new(ReplyCode::ChannelError, "expected 'channel.open'");
                self.fail_connection(slot, &exception, ids);
            }
        }
        Progress::Used(size)
    }

    pub(super) fn unexpected_frame(&mut self, slot: u32, what: &str) {
        self.fail_connection(slot, &ConnectionException::new(ReplyCode::UnexpectedFrame, what), (0, 0));
    }

    pub(super) fn command_invalid(&mut self, slot: u32, what: &str) {
        self.fail_connection(slot, &ConnectionException::new(ReplyCode::CommandInvalid, what), (0, 0));
    }

    /// Stops handling a connection's frames.
    pub(super) fn pause(&mut self, slot: u32, pause: Pause) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.pause = Some(pause);
        }
    }
}
