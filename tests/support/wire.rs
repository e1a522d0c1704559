//! A raw client: sends any octets, reads frames, knows the handshake, and fails the test on anything unexpected.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::broker::Broker;
use super::methods::{self, basic, channel, connection, queue};
use super::octets::frame;
use super::octets::{BODY, FRAME_END, HEADER, HEARTBEAT, METHOD, MethodId, Octets, PROTOCOL_HEADER, Reading, Table};

/// How long an expected answer may take.
pub const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long nothing must come for the test to believe that nothing comes.
pub const QUIET: Duration = Duration::from_millis(150);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn method_id(&self) -> Option<MethodId> {
        if self.kind != METHOD || self.payload.len() < 4 {
            return None;
        }
        let mut reading = Reading::new(&self.payload);
        Some((reading.u16(), reading.u16()))
    }

    /// The arguments of the method.
    pub fn arguments(&self) -> Reading {
        Reading::new(&self.payload[4..])
    }
}

/// What may come next from the broker.
#[derive(Debug)]
pub enum Event {
    Frame(Frame),
    /// End of stream, or a reset.
    Closed,
    /// Nothing within the time given.
    Silence,
}

/// How to shake hands. The default is guest on `/`, PLAIN, no heartbeats, all that the broker offers.
#[derive(Clone)]
pub struct Handshake {
    pub user: String,
    pub password: String,
    pub vhost: String,
    pub mechanism: &'static str,
    pub channel_max: Option<u16>,
    pub frame_max: Option<u32>,
    pub heartbeat_seconds: u16,
    /// Names of the client's capabilities. The default has no `connection.blocked`, which may come between any two
    /// frames.
    pub capabilities: Vec<&'static str>,
}

impl Default for Handshake {
    fn default() -> Handshake {
        Handshake {
            user: "guest".into(),
            password: "guest".into(),
            vhost: "/".into(),
            mechanism: "PLAIN",
            channel_max: None,
            frame_max: None,
            heartbeat_seconds: 0,
            capabilities: vec![
                "authentication_failure_close",
                "consumer_cancel_notify",
                "basic.nack",
                "publisher_confirms",
            ],
        }
    }
}

impl Handshake {
    pub fn login(user: &str, password: &str, vhost: &str) -> Handshake {
        Handshake { user: user.into(), password: password.into(), vhost: vhost.into(), ..Handshake::default() }
    }

    pub fn properties(&self) -> Table {
        let capabilities = self.capabilities.iter().fold(Table::new(), |table, name| table.boolean(name, true));
        Table::new().text("product", "lepus tests").table("capabilities", &capabilities)
    }

    pub fn start_ok(&self) -> Vec<u8> {
        let response = match self.mechanism {
            "AMQPLAIN" => Table::new().text("LOGIN", &self.user).text("PASSWORD", &self.password).0,
            _ => format!("\0{}\0{}", self.user, self.password).into_bytes(),
        };
        methods::start_ok(&self.properties(), self.mechanism, &response, "en_US")
    }
}

/// Why a handshake failed.
#[derive(Debug)]
pub struct Refusal {
    /// `None`: the socket was closed without a word.
    pub code: Option<u16>,
    pub text: String,
}

#[derive(Debug)]
pub struct Tune {
    pub channel_max: u16,
    pub frame_max: u32,
    pub heartbeat_seconds: u16,
}

#[allow(clippy::struct_field_names, reason = "delivery-tag is the name of the specification")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub consumer_tag: String,
    pub delivery_tag: u64,
    pub redelivered: bool,
    pub exchange: String,
    pub routing_key: String,
    /// Flags and list, raw.
    pub properties: Vec<u8>,
    pub body: Vec<u8>,
    /// Only of `basic.get-ok`.
    pub message_count: Option<u32>,
}

impl Delivery {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("tests send text")
    }
}

pub struct Wire {
    pub stream: TcpStream,
    input: Vec<u8>,
    consumed: usize,
    pub frame_max: usize,
    pub channel_max: u16,
    /// Of `connection.start`, raw.
    pub server_properties: Vec<u8>,
    pub mechanisms: String,
}

impl Wire {
    /// Connects and sends nothing.
    pub fn connect(broker: &Broker) -> Wire {
        Wire::try_connect(broker.address).expect("the broker accepts")
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Wire {
            stream,
            input: Vec::new(),
            consumed: 0,
            frame_max: 131_072,
            channel_max: 0,
            server_properties: Vec::new(),
            mechanisms: String::new(),
        })
    }

    /// An open connection with channel 1 open.
    #[track_caller]
    pub fn open(broker: &Broker) -> Wire {
        let mut wire = Wire::open_with(broker, &Handshake::default());
        wire.open_channel(1);
        wire
    }

    /// An open connection without channels.
    #[track_caller]
    pub fn open_with(broker: &Broker, handshake: &Handshake) -> Wire {
        match Wire::try_open(broker, handshake) {
            Ok(wire) => wire,
            Err(refusal) => panic!("the broker refused: {refusal:?}"),
        }
    }

    /// # Errors
    /// What the broker said, or that it closed the socket, anywhere in the handshake.
    pub fn try_open(broker: &Broker, handshake: &Handshake) -> Result<Wire, Refusal> {
        Wire::connect(broker).shake_hands(handshake)
    }

    /// The whole handshake on a fresh socket.
    pub fn shake_hands(mut self, handshake: &Handshake) -> Result<Wire, Refusal> {
        let _ = self.try_send(&PROTOCOL_HEADER);
        let mut start = self.handshake_answer(connection::START)?;
        assert_eq!((start.u8(), start.u8()), (0, 9), "version of connection.start");
        self.server_properties = start.long();
        self.mechanisms = String::from_utf8(start.long()).expect("mechanisms are text");
        let _ = self.try_send_method(0, &handshake.start_ok());
        let mut tune = self.handshake_answer(connection::TUNE)?;
        let tune = Tune { channel_max: tune.u16(), frame_max: tune.u32(), heartbeat_seconds: tune.u16() };
        self.channel_max = handshake.channel_max.unwrap_or(tune.channel_max);
        let frame_max = handshake.frame_max.unwrap_or(tune.frame_max);
        self.frame_max = frame_max as usize;
        let _ = self.try_send_method(0, &methods::tune_ok(self.channel_max, frame_max, handshake.heartbeat_seconds));
        let _ = self.try_send_method(0, &methods::connection_open(&handshake.vhost));
        self.handshake_answer(connection::OPEN_OK)?;
        Ok(self)
    }

    fn handshake_answer(&mut self, expected: MethodId) -> Result<Reading, Refusal> {
        match self.next_event(ANSWER_MAX) {
            Event::Frame(frame) if frame.method_id() == Some(expected) => Ok(frame.arguments()),
            Event::Frame(frame) if frame.method_id() == Some(connection::CLOSE) => {
                let mut close = frame.arguments();
                let refusal = Refusal { code: Some(close.u16()), text: close.short() };
                let _ = self.try_send_method(0, &Octets::method(connection::CLOSE_OK).0);
                Err(refusal)
            }
            Event::Closed => Err(Refusal { code: None, text: String::new() }),
            other => panic!("expected {expected:?} in the handshake, got {other:?}"),
        }
    }

    #[track_caller]
    pub fn open_channel(&mut self, number: u16) {
        self.call(number, &methods::channel_open(), channel::OPEN_OK);
    }

    #[track_caller]
    pub fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("the broker reads what is sent");
    }

    /// For octets after which the broker may have closed the socket already.
    pub fn try_send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    #[track_caller]
    pub fn send_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        self.send(&frame(kind, channel, payload));
    }

    #[track_caller]
    pub fn send_method(&mut self, channel: u16, payload: &[u8]) {
        self.send_frame(METHOD, channel, payload);
    }

    pub fn try_send_method(&mut self, channel: u16, payload: &[u8]) -> io::Result<()> {
        self.try_send(&frame(METHOD, channel, payload))
    }

    /// No more octets from us; the broker's can still be read.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    #[track_caller]
    pub fn call(&mut self, channel: u16, payload: &[u8], answer: MethodId) -> Reading {
        self.send_method(channel, payload);
        self.expect_method(channel, answer)
    }

    /// What comes next within `limit`; heartbeats are not skipped.
    pub fn next_event_or_heartbeat(&mut self, limit: Duration) -> Event {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(frame) = self.take_frame() {
                return Event::Frame(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Silence;
            }
            match self.read_some(left) {
                Ok(0) => return Event::Closed,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Event::Closed,
            }
        }
    }

    /// What comes next within `limit`, heartbeats apart.
    pub fn next_event(&mut self, limit: Duration) -> Event {
        let deadline = Instant::now() + limit;
        loop {
            match self.next_event_or_heartbeat(deadline.saturating_duration_since(Instant::now())) {
                Event::Frame(frame) if frame.kind == HEARTBEAT => {}
                other => return other,
            }
        }
    }

    fn read_some(&mut self, limit: Duration) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut chunk = [0; 65_536];
        let count = self.stream.read(&mut chunk)?;
        self.input.drain(..self.consumed);
        self.consumed = 0;
        self.input.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let input = &self.input[self.consumed..];
        if input.len() < 7 {
            return None;
        }
        let mut reading = Reading::new(&input[..7]);
        let (kind, channel, size) = (reading.u8(), reading.u16(), reading.u32() as usize);
        assert!(matches!(kind, METHOD | HEADER | BODY | HEARTBEAT), "the broker sent a frame of type {kind}");
        assert!(
            self.frame_max < 4096 || size + 8 <= self.frame_max,
            "the broker sent a frame of {size} + 8 octets, above frame-max"
        );
        if input.len() < size + 8 {
            return None;
        }
        assert_eq!(input[size + 7], FRAME_END, "the broker's frame has a bad end");
        let payload = input[7..size + 7].to_vec();
        self.consumed += size + 8;
        Some(Frame { kind, channel, payload })
    }

    #[track_caller]
    pub fn read_frame(&mut self) -> Frame {
        match self.next_event(ANSWER_MAX) {
            Event::Frame(frame) => frame,
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// The next frame must be this method; answers its arguments.
    #[track_caller]
    pub fn expect_method(&mut self, channel: u16, id: MethodId) -> Reading {
        let frame = self.read_frame();
        let is_it = frame.method_id() == Some(id) && frame.channel == channel;
        assert!(is_it, "expected method {id:?} on channel {channel}, got {}", describe(&frame));
        frame.arguments()
    }

    /// Nothing comes for a while.
    #[track_caller]
    pub fn expect_quiet(&mut self) {
        match self.next_event(QUIET) {
            Event::Silence => {}
            Event::Frame(frame) => panic!("expected nothing, got {}", describe(&frame)),
            Event::Closed => panic!("expected nothing, the broker closed"),
        }
    }

    /// `connection.close` with this code and text, answered; then the end of the stream. Deliveries and the like
    /// that were on their way may come first.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16, text_part: &str) {
        loop {
            let frame = self.read_frame();
            if frame.method_id() == Some(connection::CLOSE) {
                check_close(&frame, code, text_part);
                let _ = self.try_send_method(0, &Octets::method(connection::CLOSE_OK).0);
                return self.expect_end();
            }
            let was_underway = frame.kind != METHOD || frame.method_id().is_some_and(|id| id.0 == 60);
            assert!(was_underway, "expected connection.close {code}, got {}", describe(&frame));
        }
    }

    /// `channel.close` with this code and text, answered.
    #[track_caller]
    pub fn expect_channel_close(&mut self, number: u16, code: u16, text_part: &str) {
        let frame = self.read_frame();
        let is_it = frame.method_id() == Some(channel::CLOSE) && frame.channel == number;
        assert!(is_it, "expected channel.close {code} on channel {number}, got {}", describe(&frame));
        check_close(&frame, code, text_part);
        self.send_method(number, &Octets::method(channel::CLOSE_OK).0);
    }

    /// The broker closes the socket; nothing else comes.
    #[track_caller]
    pub fn expect_end(&mut self) {
        match self.next_event(ANSWER_MAX) {
            Event::Closed => {}
            Event::Frame(frame) => panic!("expected the end of the stream, got {}", describe(&frame)),
            Event::Silence => panic!("expected the end of the stream, got nothing"),
        }
    }

    /// Reads whatever comes until the broker closes the socket; answers the code of a `connection.close` in it.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Option<u16> {
        let mut code = None;
        loop {
            match self.next_event(ANSWER_MAX) {
                Event::Closed => return code,
                Event::Frame(frame) if frame.method_id() == Some(connection::CLOSE) => {
                    code = Some(frame.arguments().u16());
                    let _ = self.try_send_method(0, &Octets::method(connection::CLOSE_OK).0);
                    self.finish_sending();
                }
                Event::Frame(_) => {}
                Event::Silence => panic!("the broker keeps the socket open"),
            }
        }
    }

    /// Closes in the proper way.
    #[track_caller]
    pub fn close(mut self) {
        self.send_method(0, &methods::close(connection::CLOSE, 200, "goodbye"));
        loop {
            let frame = self.read_frame();
            if frame.method_id() == Some(connection::CLOSE_OK) {
                // RabbitMQ leaves it to the client to close the socket first.
                self.finish_sending();
                return self.expect_end();
            }
        }
    }

    /// Method, header and body frames of one message, split at frame-max.
    pub fn publish(&mut self, channel: u16, exchange: &str, routing_key: &str, bits: u8, body: &[u8]) {
        let octets = message(channel, exchange, routing_key, bits, body, self.frame_max);
        self.send(&octets);
    }

    /// The next frames must be a delivery.
    #[track_caller]
    pub fn expect_delivery(&mut self, channel: u16) -> Delivery {
        let mut deliver = self.expect_method(channel, basic::DELIVER);
        let consumer_tag = deliver.short();
        let (delivery_tag, redelivered) = (deliver.u64(), deliver.u8() != 0);
        let (exchange, routing_key) = (deliver.short(), deliver.short());
        let (properties, body) = self.expect_content(channel);
        Delivery {
            consumer_tag,
            delivery_tag,
            redelivered,
            exchange,
            routing_key,
            properties,
            body,
            message_count: None,
        }
    }

    /// Header and body frames: properties and body.
    #[track_caller]
    pub fn expect_content(&mut self, channel: u16) -> (Vec<u8>, Vec<u8>) {
        let header = self.read_frame();
        assert_eq!((header.kind, header.channel), (HEADER, channel), "expected a header, got {}", describe(&header));
        let mut reading = Reading::new(&header.payload);
        assert_eq!((reading.u16(), reading.u16()), (60, 0), "class and weight of the header");
        let size = usize::try_from(reading.u64()).expect("bodies fit memory");
        let properties = reading.rest();
        let mut body = Vec::new();
        while body.len() < size {
            let part = self.read_frame();
            assert_eq!((part.kind, part.channel), (BODY, channel), "expected a body, got {}", describe(&part));
            assert!(!part.payload.is_empty(), "an empty body frame");
            body.extend(part.payload);
        }
        assert_eq!(body.len(), size, "body frames are longer than the header said");
        (properties, body)
    }

    /// `basic.get`: the message, or `None` when the queue is empty.
    #[track_caller]
    pub fn get(&mut self, channel: u16, queue: &str, no_ack: bool) -> Option<Delivery> {
        self.send_method(channel, &methods::get(queue, no_ack));
        let frame = self.read_frame();
        if frame.method_id() == Some(basic::GET_EMPTY) {
            return None;
        }
        assert_eq!(frame.method_id(), Some(basic::GET_OK), "expected basic.get-ok, got {}", describe(&frame));
        let mut got = frame.arguments();
        let (delivery_tag, redelivered) = (got.u64(), got.u8() != 0);
        let (exchange, routing_key, message_count) = (got.short(), got.short(), Some(got.u32()));
        let (properties, body) = self.expect_content(channel);
        let consumer_tag = String::new();
        Some(Delivery {
            consumer_tag,
            delivery_tag,
            redelivered,
            exchange,
            routing_key,
            properties,
            body,
            message_count,
        })
    }

    /// Declares and answers the name (the broker's, if `name` is empty).
    #[track_caller]
    pub fn declare(&mut self, channel: u16, name: &str, bits: u8) -> String {
        self.call(channel, &methods::queue_declare(name, bits, &Table::new()), queue::DECLARE_OK).short()
    }

    /// Messages ready and consumers, by a passive declare.
    #[track_caller]
    pub fn counts(&mut self, channel: u16, name: &str) -> (u32, u32) {
        let declare = methods::queue_declare(name, methods::PASSIVE, &Table::new());
        let mut answer = self.call(channel, &declare, queue::DECLARE_OK);
        answer.short();
        (answer.u32(), answer.u32())
    }

    #[track_caller]
    pub fn consume(&mut self, channel: u16, queue: &str, tag: &str, bits: u8) -> String {
        self.call(channel, &methods::consume(queue, tag, bits), basic::CONSUME_OK).short()
    }

    /// Brings a round trip to its end: all that was sent before on this channel has been handled.
    #[track_caller]
    pub fn synchronise(&mut self, channel: u16) {
        self.call(channel, &methods::qos(0, false), basic::QOS_OK);
    }
}

/// The frames of one message.
pub fn message(channel: u16, exchange: &str, key: &str, bits: u8, body: &[u8], frame_max: usize) -> Vec<u8> {
    let mut out = frame(METHOD, channel, &methods::publish(exchange, key, bits));
    out.extend(frame(HEADER, channel, &methods::content_header(body.len() as u64, &methods::NO_PROPERTIES)));
    for part in body.chunks(frame_max - 8) {
        out.extend(frame(BODY, channel, part));
    }
    out
}

/// A frame in words, for a test's complaint.
pub fn describe(frame: &Frame) -> String {
    match frame.method_id() {
        Some(id @ (connection::CLOSE | channel::CLOSE)) => {
            let mut close = frame.arguments();
            format!("close {id:?} on channel {}: {} {}", frame.channel, close.u16(), close.short())
        }
        Some(id) => format!("method {id:?} on channel {}", frame.channel),
        None => format!("frame of type {} and {} octets on channel {}", frame.kind, frame.payload.len(), frame.channel),
    }
}

#[track_caller]
fn check_close(frame: &Frame, code: u16, text_part: &str) {
    let mut close = frame.arguments();
    let (got_code, got_text) = (close.u16(), close.short());
    assert!(
        got_code == code && got_text.contains(text_part),
        "expected a close with {code} and `{text_part}`, got {got_code} `{got_text}`"
    );
}
