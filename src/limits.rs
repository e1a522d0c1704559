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
/// What a connection may have waiting to be written before its consumers have to wait, in octets.
pub const OUTPUT_OCTETS_MAX: usize = 256 << 10;
/// What a connection may have waiting to be written before it is not read any more, in octets. No delivery reaches it, so a
/// client that does not read while it publishes is not stopped by what is delivered to it.
pub const OUTPUT_PAUSE_OCTETS: usize = 17 << 20;
/// Publishes that may be under way from one shard to another, in octets.
pub const OUTBOX_OCTETS_MAX: u64 = 4 << 20;
/// Credit for publishes is given back in steps of so many octets when there is nothing else to tell.
pub const CREDIT_OCTETS_STEP: u64 = OUTBOX_OCTETS_MAX / 8;
/// Deliveries that may be under way to one consumer on another shard, in octets.
pub const CONSUMER_WINDOW_OCTETS: u32 = 256 << 10;
/// A consumer's window is given back in steps of so many octets.
pub const WINDOW_OCTETS_STEP: u32 = CONSUMER_WINDOW_OCTETS / 4;
/// Batches that may wait in the ring from one shard to another.
pub const RING_BATCHES_MAX: usize = 256;
/// Octets that are read from a socket at once.
pub const READ_OCTETS: usize = 128 << 10;
/// A message up to this size, in octets with its frames, may wait in the input until all of it is there.
pub const WHOLE_MESSAGE_OCTETS_MAX: usize = 16 << 10;
/// Routes that a shard remembers.
pub const ROUTES_MAX: usize = 65_536;
/// Expired messages that may wait at once for being published to their dead letter exchange; the rest stays where it is.
pub const DEAD_LETTERS_MAX: usize = 1024;
/// What is written to a queue's segment file before another one is begun, in octets.
pub const QUEUE_SEGMENT_OCTETS: u64 = 32 << 20;
/// Memory that messages of durable queues may hold in all before they are moved to disk, in octets.
pub const QUEUE_MEMORY_OCTETS_DEFAULT: u64 = 64 << 20;
/// The same for one shard at the least, in octets.
pub const QUEUE_MEMORY_OCTETS_MIN: u64 = 4 << 20;
/// Journal segments that a shard uses before the oldest is used again.
pub const JOURNAL_SEGMENTS_TARGET: usize = 4;
/// What a queue moves to disk at once, in octets, but one block at the least.
pub const PAGE_OUT_OCTETS_MAX: usize = 1 << 20;
/// What a shard may have on its way to queues' segment files, in octets.
pub const PAGE_OUT_UNDER_WAY_OCTETS_MAX: usize = 6 << 20;
/// How long the broker waits for `connection.close-ok`, in milliseconds.
pub const CLOSE_MILLIS_MAX: u64 = 3_000;
/// Shards that a broker may have.
pub const SHARDS_MAX: usize = 256;
/// Octets that are dealt out to one message's bookkeeping when its cost is estimated.
pub const MESSAGE_OVERHEAD_OCTETS: u64 = 64;

const _: () =
    assert!(OUTPUT_PAUSE_OCTETS as u64 > OUTPUT_OCTETS_MAX as u64 + MESSAGE_OCTETS_MAX + FRAME_OCTETS_MAX as u64);
const _: () = assert!(CREDIT_OCTETS_STEP < OUTBOX_OCTETS_MAX);
const _: () = assert!(WINDOW_OCTETS_STEP < CONSUMER_WINDOW_OCTETS);
const _: () = assert!(RING_BATCHES_MAX.is_power_of_two());
const _: () = assert!(WHOLE_MESSAGE_OCTETS_MAX <= READ_OCTETS);
/// The length of a journal segment file, in octets. The shortest in which the longest batch fits: 16, 32 and 64 MiB are
/// written equally fast, and filling a new one with zeros takes 20 ms for 32 MiB.
pub const JOURNAL_SEGMENT_OCTETS: u64 = 32 << 20;
/// A batch of the journal that has got so long is ended, in octets. One more message may be in it.
pub const JOURNAL_BATCH_OCTETS_MAX: usize = 4 << 20;
/// A commit from so many octets on is long: it is not worth while to wait for it awake, but to make it on another core. In octets.
pub const JOURNAL_LONG_COMMIT_OCTETS: usize = 128 << 10;
/// A batch of the journal that has got so long is written also if nobody waits for it, in octets.
pub const JOURNAL_COMMIT_OCTETS: usize = 256 << 10;
/// What may wait to be written to a shard's journal before publishers have to wait, in octets.
pub const JOURNAL_PENDING_OCTETS_MAX: usize = 8 << 20;
/// A buffer of the journal that has grown longer is not kept, in octets.
pub const JOURNAL_SPARE_OCTETS_MAX: usize = 2 * JOURNAL_BATCH_OCTETS_MAX;
/// How long a batch may be held back for more publishers to share it, in microseconds.
pub const JOURNAL_HOLD_MICROS_MAX: u64 = 3_000;
/// Publishers that are remembered without asking whether they are gone.
pub const JOURNAL_WAITERS_MIN: usize = 1024;
/// Prewritten journal segments that are kept for each shard, in files.
pub const JOURNAL_POOL_FILES_MAX: usize = 4;
/// Of these, those that only the first segments of a start may be, for each shard, in files: so that a broker starts, and its
/// consumers drain, where the disk has no room.
pub const JOURNAL_RESERVE_FILES: usize = 1;
/// Ranges of positions in one record of a checkpoint.
pub const CHECKPOINT_RANGES_MAX: usize = 65_536;

const _: () = assert!(JOURNAL_COMMIT_OCTETS < JOURNAL_BATCH_OCTETS_MAX);
const _: () = assert!(JOURNAL_BATCH_OCTETS_MAX < JOURNAL_PENDING_OCTETS_MAX);
// A batch fits into a segment with its longest last record: a message with properties as long as a frame, or a checkpoint
// with 20 octets a range and 11 a priority.
const _: () = assert!(
    JOURNAL_BATCH_OCTETS_MAX as u64 + MESSAGE_OCTETS_MAX + FRAME_OCTETS_MAX as u64 + (64 << 10)
        < JOURNAL_SEGMENT_OCTETS
);
const _: () = assert!(
    ((JOURNAL_BATCH_OCTETS_MAX + CHECKPOINT_RANGES_MAX * 20 + 256 * 11 + (64 << 10)) as u64) < JOURNAL_SEGMENT_OCTETS
);
