//! Every bound of the broker, with its unit. Nothing that a peer can send allocates without one of these.

/// The smallest frame-max that a peer may negotiate, in octets (AMQP 0-9-1, section 4.2.3: frame-min-size).
pub const FRAME_OCTETS_MIN: usize = 4096;
/// The frame-max that the broker proposes and the largest that it accepts, in octets, header and frame-end counted.
pub const FRAME_OCTETS_MAX: usize = 131_072;
/// The highest channel number that may be open on one connection.
pub const CHANNELS_MAX: u16 = 2047;
/// The heartbeat interval that the broker proposes, in seconds.
pub const HEARTBEAT_SECONDS_DEFAULT: u16 = 60;
/// How long a peer may take from its connection to `connection.open`, in milliseconds.
pub const HANDSHAKE_MILLIS_MAX: u64 = 10_000;
/// The largest message body, in octets.
pub const MESSAGE_OCTETS_MAX: u64 = 16 << 20;
/// How deep field tables and arrays may nest within each other.
pub const FIELD_TABLE_DEPTH_MAX: usize = 64;
/// The longest short string, in octets: its length is one octet on the wire.
pub const SHORT_STRING_OCTETS_MAX: usize = 255;
/// Bodies from this size on, in octets, are reference-counted slices; smaller ones are copied.
pub const SHARED_BODY_OCTETS_MIN: usize = 8192;
/// The highest `x-max-priority` of a queue (RabbitMQ's bound).
pub const PRIORITY_MAX: u8 = 255;
/// The most consumers that one channel may have.
pub const CONSUMERS_PER_CHANNEL_MAX: usize = 16_384;
/// How many exchanges one message may pass on its way through exchange-to-exchange bindings.
pub const EXCHANGE_HOPS_MAX: usize = 4096;

const _: () = assert!(FRAME_OCTETS_MIN < FRAME_OCTETS_MAX);
const _: () = assert!(SHARED_BODY_OCTETS_MIN < FRAME_OCTETS_MAX);
