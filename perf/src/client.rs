//! A client's connection with one channel, on a blocking socket: the handshake, requests and their answers, the end.
//!
//! What happens between, publishing and consuming, is done on the socket by those who do it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lepus::protocol::exception::ConnectionException;
use lepus::protocol::field_table::{TableRef, ValueRef};
use lepus::protocol::field_value::{FieldTable, FieldValue};
use lepus::protocol::frame::{FrameKind, HEARTBEAT_FRAME, SUPPORTED_HEADER, take_frame};
use lepus::protocol::method::{Method, MethodFault, channel, connection};

use crate::uri::AmqpUri;

/// The channel of all that is done.
pub const CHANNEL: u16 = 1;
/// Octets that are asked of the socket at once.
pub const READ_OCTETS: usize = 256 << 10;
/// The longest frame that is agreed to.
const FRAME_OCTETS_MAX: u32 = 131_072;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long the answer to `connection.close` may take.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Why a connection is of no use any more.
#[derive(Debug)]
pub enum ClientError {
    /// The socket failed: what was tried, and why it failed.
    Io(String, io::Error),
    /// The broker has ended the connection or the channel: its code and text.
    Closed(u16, String),
    /// The broker has closed the socket without a word.
    Ended,
    /// The broker sent what a client cannot read.
    Malformed(ConnectionException),
    /// The broker sent something else than the answer: what was awaited, and what came.
    Unexpected(&'static str, String),
    /// No answer in time: what was awaited.
    Silent(&'static str),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(tried, error) => write!(f, "{tried}: {error}"),
            Self::Closed(code, text) => write!(f, "the broker refuses ({code}): {text}"),
            Self::Ended => write!(f, "the broker has closed the socket; are user, password and virtual host right?"),
            Self::Malformed(exception) => write!(f, "the broker sent a malformed frame: {}", exception.text),
            Self::Unexpected(awaited, came) => write!(f, "the broker sent {came} instead of {awaited}"),
            Self::Silent(awaited) => write!(f, "the broker did not send {awaited} in time"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<ConnectionException> for ClientError {
    fn from(exception: ConnectionException) -> Self {
        Self::Malformed(exception)
    }
}

impl From<MethodFault> for ClientError {
    fn from(fault: MethodFault) -> Self {
        Self::Malformed(fault.into())
    }
}

/// Where a method says that the broker has ended the channel or the connection.
pub fn check_close(method: &Method<'_>) -> Result<(), ClientError> {
    match method {
        Method::ConnectionClose(connection::Close { reply_code, reply_text, .. })
        | Method::ChannelClose(channel::Close { reply_code, reply_text, .. }) => {
            Err(ClientError::Closed(*reply_code, String::from_utf8_lossy(reply_text).into_owned()))
        }
        _ => Ok(()),
    }
}

/// What the broker calls itself.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Product {
    /// Such as `RabbitMQ`.
    pub product: String,
    /// Such as `4.0.5`.
    pub version: String,
    /// Such as `Erlang/OTP 27`.
    pub platform: String,
}

/// An open connection with an open channel.
pub struct Client {
    /// Its socket, blocking.
    pub socket: TcpStream,
    /// What was read and not yet used.
    pub input: Input,
    /// The longest frame, in octets, as negotiated.
    pub frame_octets_max: usize,
    /// What is at the other end.
    pub product: Product,
    output: Vec<u8>,
}

impl Client {
    /// Connects, logs in, opens a channel.
    ///
    /// # Errors
    /// Where any of that fails.
    pub fn open(uri: &AmqpUri, name: &str) -> Result<Self, ClientError> {
        let failed = |error| ClientError::Io(format!("cannot connect to {}:{}", uri.host, uri.port), error);
        let socket = TcpStream::connect((uri.host.as_str(), uri.port)).map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        socket.set_read_timeout(Some(ANSWER_MAX)).map_err(failed)?;
        let frame_octets_max = FRAME_OCTETS_MAX as usize;
        let (input, output) = (Input::new(frame_octets_max), Vec::new());
        let mut client = Self { socket, input, frame_octets_max, product: Product::default(), output };
        client.shake_hands(uri, name)?;
        client.request(&Method::ChannelOpen(channel::Open {}), "channel.open-ok", |method| {
            matches!(method, Method::ChannelOpenOk(_)).then_some(())
        })?;
        Ok(client)
    }

    fn shake_hands(&mut self, uri: &AmqpUri, name: &str) -> Result<(), ClientError> {
        self.write(&SUPPORTED_HEADER)?;
        self.product = self.expect("connection.start", |method| match method {
            Method::ConnectionStart(start) => Some(product(&start.server_properties)),
            _ => None,
        })?;
        let properties = client_properties(name).to_octets();
        let client_properties = TableRef::new(&properties).expect("we have made the table");
        let response = format!("\0{}\0{}", uri.user, uri.password);
        let response = response.as_bytes();
        self.send(
            0,
            &Method::ConnectionStartOk(connection::StartOk {
                client_properties,
                mechanism: b"PLAIN",
                response,
                locale: b"en_US",
            }),
        )?;
        let tune = self.expect("connection.tune", |method| match method {
            Method::ConnectionTune(tune) => Some((tune.channel_max, tune.frame_max)),
            _ => None,
        })?;
        let (channel_max, frame_max) = tune;
        let frame_max = if frame_max == 0 { FRAME_OCTETS_MAX } else { frame_max.min(FRAME_OCTETS_MAX) };
        self.frame_octets_max = usize::try_from(frame_max).expect("bounded above");
        self.send(0, &Method::ConnectionTuneOk(connection::TuneOk { channel_max, frame_max, heartbeat: 0 }))?;
        self.send(0, &Method::ConnectionOpen(connection::Open { virtual_host: uri.vhost.as_bytes() }))?;
        self.expect("connection.open-ok", |method| matches!(method, Method::ConnectionOpenOk(_)).then_some(()))
    }

    /// Writes all of it.
    pub fn write(&mut self, octets: &[u8]) -> Result<(), ClientError> {
        match self.socket.write_all(octets) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.why_broken("writing to the broker", error)),
        }
    }

    /// A write has failed: the broker's last words, if it had any, say more than the error.
    pub fn why_broken(&mut self, tried: &str, error: io::Error) -> ClientError {
        let _ = self.socket.set_read_timeout(Some(Duration::from_millis(500)));
        match self.expect("connection.close", |_| None::<()>) {
            Err(closed @ ClientError::Closed(..)) => closed,
            _ => ClientError::Io(tried.to_owned(), error),
        }
    }

    /// Sends one method.
    pub fn send(&mut self, channel: u16, method: &Method<'_>) -> Result<(), ClientError> {
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        method.put(&mut output, channel);
        let written = self.write(&output);
        self.output = output;
        written
    }

    /// Sends one method on the channel and waits for its answer.
    pub fn request<T>(
        &mut self,
        method: &Method<'_>,
        answer: &'static str,
        accept: impl FnMut(&Method<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        self.send(CHANNEL, method)?;
        self.expect(answer, accept)
    }

    /// Reads until a method comes that `accept` takes; passes over heartbeats and `connection.blocked`.
    fn expect<T>(
        &mut self,
        answer: &'static str,
        mut accept: impl FnMut(&Method<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        let until = Instant::now() + ANSWER_MAX;
        loop {
            while let Some((frame, used)) = take_frame(self.input.unread(), FRAME_OCTETS_MAX as usize)? {
                if frame.kind == FrameKind::Heartbeat {
                    self.input.consume(used);
                    continue;
                }
                let method = Method::decode(frame.payload)?;
                check_close(&method)?;
                if let Some(found) = accept(&method) {
                    self.input.consume(used);
                    return Ok(found);
                }
                if !matches!(method, Method::ConnectionBlocked(_) | Method::ConnectionUnblocked(_)) {
                    return Err(ClientError::Unexpected(answer, method.name().to_owned()));
                }
                self.input.consume(used);
            }
            match self.input.read(&mut self.socket) {
                Ok(0) => return Err(ClientError::Ended),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return Err(ClientError::Silent(answer)),
                Err(error) => return Err(ClientError::Io("reading from the broker".to_owned(), error)),
            }
            if Instant::now() > until {
                return Err(ClientError::Silent(answer));
            }
        }
    }

    /// Ends the connection in good order: when this returns, the broker has handled all that was sent before.
    pub fn close(mut self) -> Result<(), ClientError> {
        self.ask_to_close()?;
        let until = Instant::now() + CLOSE_MAX;
        // Everything that was on its way is read and dropped.
        while let Ok(1..) = self.input.read(&mut self.socket) {
            while let Some((frame, used)) = take_frame(self.input.unread(), FRAME_OCTETS_MAX as usize)? {
                let is_end = frame.kind == FrameKind::Method
                    && matches!(Method::decode(frame.payload), Ok(Method::ConnectionCloseOk(_)));
                self.input.consume(used);
                if is_end {
                    return Ok(());
                }
            }
            if Instant::now() > until {
                return Err(ClientError::Silent("connection.close-ok"));
            }
        }
        Ok(())
    }

    /// Sends `connection.close`; the answer is somebody else's.
    pub fn ask_to_close(&mut self) -> Result<(), ClientError> {
        let close = connection::Close { reply_code: 200, reply_text: b"end of run", class_id: 0, method_id: 0 };
        self.socket
            .set_read_timeout(Some(CLOSE_MAX))
            .map_err(|error| ClientError::Io("setting a time limit".to_owned(), error))?;
        self.send(0, &Method::ConnectionClose(close))
    }

    /// A heartbeat, which the broker may ask for though none was agreed to.
    pub fn send_heartbeat(&mut self) -> Result<(), ClientError> {
        self.write(&HEARTBEAT_FRAME)
    }
}

fn client_properties(name: &str) -> FieldTable {
    let mut capabilities = FieldTable::default();
    for capability in ["publisher_confirms", "basic.nack", "connection.blocked", "authentication_failure_close"] {
        capabilities.insert(capability, FieldValue::from(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("product", FieldValue::from("lepus-perf"));
    properties.insert("version", FieldValue::from(env!("CARGO_PKG_VERSION")));
    properties.insert("connection_name", FieldValue::from(name));
    properties.insert("capabilities", FieldValue::Table(capabilities));
    properties
}

fn product(server_properties: &TableRef<'_>) -> Product {
    let text = |name: &[u8]| match server_properties.get(name) {
        Some(ValueRef::LongString(octets)) => String::from_utf8_lossy(octets).into_owned(),
        _ => String::new(),
    };
    Product { product: text(b"product"), version: text(b"version"), platform: text(b"platform") }
}

/// The time limit of a read or write has passed.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What was read from a socket and not yet used, in one buffer of fixed size.
pub struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The buffer's end is not used for less than this: a whole frame always fits behind `start`.
    frame_octets_max: usize,
}

impl Input {
    fn new(frame_octets_max: usize) -> Self {
        let buffer = vec![0; READ_OCTETS + 2 * frame_octets_max];
        Self { buffer, start: 0, end: 0, frame_octets_max }
    }

    /// What was read and not yet used.
    #[inline]
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// So many octets of it are used.
    #[inline]
    pub fn consume(&mut self, octets: usize) {
        self.start += octets;
        assert!(self.start <= self.end, "used more than was read");
    }

    /// Where the next octets belong; `filled` tells how many there were.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < READ_OCTETS.min(self.frame_octets_max) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let end = (self.end + READ_OCTETS).min(self.buffer.len());
        &mut self.buffer[self.end..end]
    }

    /// So many octets were put into the room.
    pub fn filled(&mut self, octets: usize) {
        self.end += octets;
    }

    /// Reads once; how many octets came.
    pub fn read(&mut self, socket: &mut TcpStream) -> io::Result<usize> {
        loop {
            match socket.read(self.room()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    self.filled(*result.as_ref().unwrap_or(&0));
                    return result;
                }
            }
        }
    }
}
