//! A client's connection on the executor's socket: the handshake, requests and their answers, the end.
//!
//! What happens between, publishing and consuming, is done on the socket by `link`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use lepus::protocol::exception::ConnectionException;
use lepus::protocol::field_table::{TableRef, ValueRef};
use lepus::protocol::field_value::{FieldTable, FieldValue};
use lepus::protocol::frame::{FrameKind, SUPPORTED_HEADER, take_frame};
use lepus::protocol::method::{Method, MethodFault, channel, connection};

use crate::interrupt;
use crate::options::uri::AmqpUri;

/// The first channel.
pub const CHANNEL: u16 = 1;
/// Octets that are asked of the socket at once while there is little to come.
const READ_OCTETS: usize = 8 << 10;
/// The longest frame that is agreed to.
pub const FRAME_OCTETS_MAX: u32 = 131_072;
/// The reply code where something is not there.
const NOT_FOUND: u16 = 404;
/// How long an answer may take.
pub const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long it may take once the user wants the end.
const INTERRUPTED_ANSWER_MAX: Duration = Duration::from_secs(2);
/// How often who awaits one looks whether the user wants the end.
const LOOK_UP: Duration = Duration::from_millis(100);
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
            Self::Ended => write!(f, "the broker has closed the connection without a word"),
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

/// Where to connect, and as whom: a URI whose host's name is resolved.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// As it was given.
    pub uri: AmqpUri,
    /// The host's first address.
    pub address: SocketAddr,
}

impl Endpoint {
    /// Asks for the host's address.
    ///
    /// # Errors
    /// A sentence, where there is none.
    pub fn resolve(uri: &AmqpUri) -> Result<Self, String> {
        let place = (uri.host.as_str(), uri.port);
        let mut addresses =
            place.to_socket_addrs().map_err(|error| format!("cannot find the host {}: {error}", uri.host))?;
        let address = addresses.next().ok_or_else(|| format!("cannot find the host {}", uri.host))?;
        Ok(Self { uri: uri.clone(), address })
    }

    /// An error, with where it happened.
    pub fn sentence(&self, error: &ClientError) -> String {
        format!("{}:{}: {error}", self.uri.host, self.uri.port)
    }
}

/// An open connection with an open channel.
pub struct Client {
    /// Its socket.
    pub socket: TcpStream,
    /// What was read and not yet used.
    pub input: Vec<u8>,
    /// The longest frame, in octets, as negotiated.
    pub frame_octets_max: usize,
    /// What is at the other end.
    pub product: Product,
    answer_max: Duration,
}

impl Client {
    /// Connects, logs in, opens the first channel.
    ///
    /// # Errors
    /// Where any of that fails.
    pub async fn open(endpoint: &Endpoint, name: &str) -> Result<Self, ClientError> {
        Self::open_within(endpoint, name, ANSWER_MAX).await
    }

    /// As [`Client::open`], of a client to which no answer may take longer than `answer_max`.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open_within(endpoint: &Endpoint, name: &str, answer_max: Duration) -> Result<Self, ClientError> {
        let failed = |error: io::Error| ClientError::Io("cannot connect".to_owned(), error);
        let socket = async { TcpStream::connect(endpoint.address).await.map_err(|error| failed(error.into())) };
        let socket = within(answer_max, "an answer to the connection", socket).await?;
        socket.set_nodelay(true).map_err(|error| failed(error.into()))?;
        let (input, product) = (Vec::new(), Product::default());
        let mut client = Self { socket, input, frame_octets_max: FRAME_OCTETS_MAX as usize, product, answer_max };
        client.shake_hands(&endpoint.uri, name).await?;
        client.open_channel(CHANNEL).await?;
        Ok(client)
    }

    /// Opens a further channel.
    pub async fn open_channel(&mut self, channel: u16) -> Result<(), ClientError> {
        self.send(channel, &Method::ChannelOpen(channel::Open {})).await?;
        self.expect("channel.open-ok", |method| matches!(method, Method::ChannelOpenOk(_)).then_some(())).await
    }

    async fn shake_hands(&mut self, uri: &AmqpUri, name: &str) -> Result<(), ClientError> {
        self.write(&SUPPORTED_HEADER).await?;
        self.product = self
            .expect("connection.start", |method| match method {
                Method::ConnectionStart(start) => Some(product(&start.server_properties)),
                _ => None,
            })
            .await?;
        let properties = client_properties(name).to_octets();
        let client_properties = TableRef::new(&properties).expect("we have made the table");
        let response = format!("\0{}\0{}", uri.user, uri.password);
        let start_ok = connection::StartOk {
            client_properties,
            mechanism: b"PLAIN",
            response: response.as_bytes(),
            locale: b"en_US",
        };
        self.send(0, &Method::ConnectionStartOk(start_ok)).await?;
        let tune = self.expect("connection.tune", |method| match method {
            Method::ConnectionTune(tune) => Some((tune.channel_max, tune.frame_max)),
            _ => None,
        });
        let (channel_max, frame_max) = tune.await?;
        let frame_max = if frame_max == 0 { FRAME_OCTETS_MAX } else { frame_max.min(FRAME_OCTETS_MAX) };
        self.frame_octets_max = usize::try_from(frame_max).expect("bounded above");
        self.send(0, &Method::ConnectionTuneOk(connection::TuneOk { channel_max, frame_max, heartbeat: 0 })).await?;
        self.send(0, &Method::ConnectionOpen(connection::Open { virtual_host: uri.vhost.as_bytes() })).await?;
        self.expect("connection.open-ok", |method| matches!(method, Method::ConnectionOpenOk(_)).then_some(())).await
    }

    /// Writes all of it.
    async fn write(&mut self, octets: &[u8]) -> Result<(), ClientError> {
        let error = match self.socket.write_all(octets).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // The broker's last words, if it had any, say more than the error.
        match self.expect("connection.close", |_| None::<()>).await {
            Err(closed @ ClientError::Closed(..)) => Err(closed),
            _ => Err(ClientError::Io("writing to the broker".to_owned(), error)),
        }
    }

    /// Sends one method.
    pub async fn send(&mut self, channel: u16, method: &Method<'_>) -> Result<(), ClientError> {
        let mut output = Vec::new();
        method.put(&mut output, channel);
        Box::pin(self.write(&output)).await
    }

    /// Sends one method on the first channel and waits for its answer.
    pub async fn request<T>(
        &mut self,
        method: &Method<'_>,
        answer: &'static str,
        accept: impl FnMut(&Method<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        self.send(CHANNEL, method).await?;
        self.expect(answer, accept).await
    }

    /// Reads until a method comes that `accept` takes; passes over heartbeats and `connection.blocked`.
    pub async fn expect<T>(
        &mut self,
        answer: &'static str,
        accept: impl FnMut(&Method<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        within(self.answer_max, answer, self.read_until(answer, accept)).await
    }

    /// Whether what a passive declaration names is there. Where it is not the broker closes the first channel, which is opened
    /// anew.
    ///
    /// # Errors
    /// Where the broker refuses to tell.
    pub async fn is_there(&mut self, declaration: &Method<'_>) -> Result<bool, ClientError> {
        let accept = |method: &Method<'_>| {
            matches!(method, Method::QueueDeclareOk(_) | Method::ExchangeDeclareOk(_)).then_some(true)
        };
        match self.request(declaration, "declare-ok", accept).await {
            Err(ClientError::Closed(NOT_FOUND, _)) => {}
            other => return other,
        }
        // The closing method was read, and not yet taken away.
        if let Some((frame, used)) = take_frame(&self.input, FRAME_OCTETS_MAX as usize)? {
            let method = Method::decode(frame.payload)?;
            if !matches!(method, Method::ChannelClose(_)) {
                return Err(ClientError::Unexpected("declare-ok", method.name().to_owned()));
            }
            self.input.drain(..used);
        }
        self.send(CHANNEL, &Method::ChannelCloseOk(channel::CloseOk {})).await?;
        self.open_channel(CHANNEL).await?;
        Ok(false)
    }

    async fn read_until<T>(
        &mut self,
        answer: &'static str,
        mut accept: impl FnMut(&Method<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        loop {
            while let Some((frame, used)) = take_frame(&self.input, FRAME_OCTETS_MAX as usize)? {
                if frame.kind == FrameKind::Heartbeat {
                    self.input.drain(..used);
                    continue;
                }
                let method = Method::decode(frame.payload)?;
                check_close(&method)?;
                let found = accept(&method);
                if found.is_none() && !matches!(method, Method::ConnectionBlocked(_) | Method::ConnectionUnblocked(_)) {
                    return Err(ClientError::Unexpected(answer, method.name().to_owned()));
                }
                self.input.drain(..used);
                if let Some(found) = found {
                    return Ok(found);
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), ClientError> {
        let left = self.input.len();
        self.input.resize(left + READ_OCTETS, 0);
        let result = self.socket.read(&mut self.input[left..]).await;
        self.input.truncate(left + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => Err(ClientError::Ended),
            Ok(_) => Ok(()),
            Err(error) => Err(ClientError::Io("reading from the broker".to_owned(), error)),
        }
    }

    /// Ends the connection in good order: when this returns, the broker has handled all that was sent before.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.send(0, &close_method()).await?;
        let wait = async {
            // Everything that was on its way is read and dropped.
            loop {
                while let Some((frame, used)) = take_frame(&self.input, FRAME_OCTETS_MAX as usize)? {
                    let is_end = frame.kind == FrameKind::Method
                        && matches!(Method::decode(frame.payload), Ok(Method::ConnectionCloseOk(_)));
                    self.input.drain(..used);
                    if is_end {
                        return Ok(());
                    }
                }
                match self.read().await {
                    Err(ClientError::Ended) => return Ok(()),
                    result => result?,
                }
            }
        };
        within(CLOSE_MAX, "connection.close-ok", wait).await
    }
}

/// The end of a connection.
pub fn close_method() -> Method<'static> {
    Method::ConnectionClose(connection::Close { reply_code: 200, reply_text: b"end of run", class_id: 0, method_id: 0 })
}

/// What it comes to, or that it did not come in time.
async fn within<T>(
    time: Duration,
    awaited: &'static str,
    future: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let silence = async {
        let mut waited = Duration::ZERO;
        while waited < if interrupt::is_requested() { time.min(INTERRUPTED_ANSWER_MAX) } else { time } {
            let part = LOOK_UP.min(time.saturating_sub(waited));
            Timer::new(part).await;
            waited += part;
        }
        Err(ClientError::Silent(awaited))
    };
    future.or(silence).await
}

fn client_properties(name: &str) -> FieldTable {
    let mut capabilities = FieldTable::default();
    for capability in [
        "publisher_confirms",
        "basic.nack",
        "connection.blocked",
        "authentication_failure_close",
        "consumer_cancel_notify",
    ] {
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
