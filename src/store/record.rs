//! The records of the journal: what happened to durable queues, as octets and back.
//!
//! Little-endian; `v` is a number in as few octets as it needs (LEB128).
//!
//! ```text
//! 1 Message    flags 1, queue v, position v, exchange octets 1, key octets 1, properties octets v, body octets v,
//!              [priority 1], [expires at, unix milliseconds 8], exchange, key, properties, body
//! 2 Same       flags 1, queue v, position v, [priority 1], [expires at 8]
//! 3 Settled    queue v, first v, count v
//! 4 Delivering queue v, below v
//! 5 Checkpoint flags 1, queue v, delivered below v, next position v, levels v × (priority 1, front v),
//!              ranges v × (positions since the end of the range before v, count v)
//! 6 ColdFile   queue v, file v, octets v
//! 7 ColdGone   queue v, file v
//! 8 Mark
//! 9 Oldest     segment v
//! 10 Next      body octets v, body
//! ```
//!
//! Each begins with the octet of its kind. `Next` is a message that came into the same queue right behind the last `Message` or
//! `Next`, with the same flags, priority, exchange, key and properties, and without an expiration: of most streams of messages all
//! but the first are so. It takes 2 octets besides the body, instead of 18 or more.
//!
//! It knows nothing of batches: that `Same` and `Next` refer to what is before them holds within what was given to one [`Records`].

use super::aligned::AlignedBuffer;
use super::varint::{self, VARINT_OCTETS_MAX};
use crate::message::{BodyView, MessageView};
use crate::short_octets::{self, are_equal};

const MESSAGE: u8 = 1;
const SAME: u8 = 2;
const SETTLED: u8 = 3;
const DELIVERING: u8 = 4;
const CHECKPOINT: u8 = 5;
const COLD_FILE: u8 = 6;
const COLD_GONE: u8 = 7;
const MARK: u8 = 8;
const OLDEST: u8 = 9;
const NEXT: u8 = 10;

const DELIVERED: u8 = 1;
const HAS_EXPIRY: u8 = 1 << 1;
const HAS_PRIORITY: u8 = 1 << 2;
const FORWARDED: u8 = 1 << 3;
/// All flags that a message may have.
const MESSAGE_FLAGS: u8 = DELIVERED | HAS_EXPIRY | HAS_PRIORITY | FORWARDED;
/// Of a checkpoint: the next one of the same queue belongs to it.
const CONTINUED: u8 = 1;

/// Everything of a record but the octets of a message, or the lists of a checkpoint; at most so many octets.
pub(super) const RECORD_HEAD_OCTETS_MAX: usize = 64;
const _: () = assert!(RECORD_HEAD_OCTETS_MAX >= 2 + 4 * VARINT_OCTETS_MAX + 2 + 1 + 8);
const _: () = assert!(RECORD_HEAD_OCTETS_MAX >= 2 + 5 * VARINT_OCTETS_MAX);

/// What the journal keeps of a message in a queue, besides the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The queue's number, never used again.
    pub queue: u64,
    /// Where in the queue: rises with each message, below `u64::MAX`.
    pub position: u64,
    /// Zero in queues without priorities.
    pub priority: u8,
    /// When it expires, in milliseconds since 1970.
    pub expires_unix_millis: Option<u64>,
    /// Whether a consumer may have seen it.
    pub delivered: bool,
    /// Whether it is a copy from an older segment, behind messages that came after it.
    pub forwarded: bool,
}

impl Entry {
    fn flags(&self) -> u8 {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        flag(self.delivered, DELIVERED)
            | flag(self.expires_unix_millis.is_some(), HAS_EXPIRY)
            | flag(self.priority != 0, HAS_PRIORITY)
            | flag(self.forwarded, FORWARDED)
    }
}

/// Which messages of a queue live: exactly those that are known and stand at or behind the front of their priority, or in
/// one of the ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The queue's number.
    pub queue: u64,
    /// Messages below this position may have been delivered.
    pub delivered_below: u64,
    /// The position of the next message to come. No smaller one is ever given out again.
    pub position_next: u64,
    /// Priorities and their fronts. Where a priority is not among them, its front is 0: all of its messages live.
    pub levels: Vec<(u8, u64)>,
    /// Live positions before the fronts: first and count, rising, not overlapping, counts above 0.
    pub ranges: Vec<(u64, u64)>,
}

/// One record, as it was read.
#[derive(Clone, Debug)]
pub enum Record<'a> {
    /// A message came into a queue.
    Message {
        /// Where.
        entry: Entry,
        /// What; also where the record refers to the message before it.
        message: MessageView<'a>,
    },
    /// These positions are gone: acknowledged, expired, dropped, rejected.
    Settled {
        /// The queue's number.
        queue: u64,
        /// The first position.
        first: u64,
        /// How many; above 0.
        count: u64,
    },
    /// Messages below a position may have been delivered.
    Delivering {
        /// The queue's number.
        queue: u64,
        /// The position.
        below: u64,
    },
    /// What lives in a queue; or a part of that.
    Checkpoint {
        /// Everything but the ranges stands in each part, and the ranges add up.
        checkpoint: Checkpoint,
        /// The next checkpoint record of this queue belongs to it. It is of no effect before the last has come.
        is_continued: bool,
    },
    /// A queue segment file must be there.
    ColdFile {
        /// The queue's number.
        queue: u64,
        /// The file's number.
        file: u32,
        /// It has sound extents up to this offset at least.
        octets: u64,
    },
    /// A queue segment file is not needed any more, and may be missing.
    ColdGone {
        /// The queue's number.
        queue: u64,
        /// The file's number.
        file: u32,
    },
    /// Nothing. What is before it is known to have been written.
    Mark,
    /// Segments of this journal before this one are not needed any more, and may be missing. This one may not.
    Oldest {
        /// The segment's number.
        segment: u64,
    },
}

/// The octets are no record. Where their checksum is right, they were written by something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFault;

/// The last message that was appended: the next one may refer to it.
#[derive(Debug)]
pub(super) struct LastMessage {
    queue: u64,
    position: u64,
    priority: u8,
    flags: u8,
    exchange_octets: u8,
    key_octets: u8,
    properties_octets: usize,
    /// Where its exchange, key and properties lie, one behind the other, in octets from the front.
    texts_at: usize,
}

impl LastMessage {
    /// Whether a message only differs from this one, which lies in `octets`, by its body, and came in right behind it.
    #[inline]
    fn is_followed_by(&self, octets: &[u8], entry: &Entry, message: &MessageView<'_>) -> bool {
        let MessageView { exchange, routing_key, properties, .. } = message;
        entry.position == self.position + 1
            && entry.queue == self.queue
            && (entry.priority, entry.flags()) == (self.priority, self.flags)
            && entry.expires_unix_millis.is_none()
            && exchange.len() == usize::from(self.exchange_octets)
            && routing_key.len() == usize::from(self.key_octets)
            && properties.len() == self.properties_octets
            && {
                let (exchange_now, rest) = octets[self.texts_at..].split_at(exchange.len());
                let (key_now, rest) = rest.split_at(routing_key.len());
                are_equal(routing_key, key_now)
                    && are_equal(exchange, exchange_now)
                    && are_equal(properties, &rest[..properties.len()])
            }
    }
}

/// Appends a message. What it costs is one look at the room, and copies.
#[inline]
pub(super) fn put_message(out: &mut AlignedBuffer, entry: &Entry, message: &MessageView<'_>) -> LastMessage {
    let body = message.body.octets();
    let octets = message.exchange.len() + message.routing_key.len() + message.properties.len() + body.len();
    let texts_base = out.len();
    let room = out.spare(RECORD_HEAD_OCTETS_MAX + octets);
    let (head, _) = room.split_first_chunk_mut::<RECORD_HEAD_OCTETS_MAX>().expect("room was made");
    let mut at = put_place(head, MESSAGE, entry);
    head[at] = short_count(message.exchange);
    head[at + 1] = short_count(message.routing_key);
    at = varint::put(head, at + 2, message.properties.len() as u64);
    at = varint::put(head, at, body.len() as u64);
    at = put_optional(head, at, entry);
    let mut rest = &mut room[at..];
    for part in [message.exchange, message.routing_key, message.properties, body] {
        rest = short_octets::put(rest, part);
    }
    out.advance(at + octets);
    LastMessage {
        queue: entry.queue,
        position: entry.position,
        priority: entry.priority,
        flags: entry.flags(),
        exchange_octets: short_count(message.exchange),
        key_octets: short_count(message.routing_key),
        properties_octets: message.properties.len(),
        texts_at: texts_base + at,
    }
}

/// Appends a message behind `last`, the last one of what is in `out`: as one that refers to that, where it can.
#[inline]
pub(super) fn put_message_behind(
    out: &mut AlignedBuffer,
    last: &mut LastMessage,
    entry: &Entry,
    message: &MessageView<'_>,
) {
    if !last.is_followed_by(out.as_slice(), entry, message) {
        *last = put_message(out, entry, message);
        return;
    }
    last.position += 1;
    let body = message.body.octets();
    let room = out.spare(1 + VARINT_OCTETS_MAX + body.len());
    room[0] = NEXT;
    let at = varint::put(room, 1, body.len() as u64);
    short_octets::put(&mut room[at..], body);
    out.advance(at + body.len());
}

/// Appends that the last message before it came into another queue too.
#[inline]
pub(super) fn put_same(out: &mut AlignedBuffer, entry: &Entry) {
    put_head(out, |head| {
        let at = put_place(head, SAME, entry);
        put_optional(head, at, entry)
    });
}

/// Appends that `count` positions from `first` on are gone.
pub(super) fn put_settled(out: &mut AlignedBuffer, queue: u64, first: u64, count: u64) {
    assert!(count > 0 && first.checked_add(count).is_some(), "settled positions that are none");
    put_numbers(out, SETTLED, [queue, first, count]);
}

/// Appends that messages below a position may have been delivered.
pub(super) fn put_delivering(out: &mut AlignedBuffer, queue: u64, below: u64) {
    put_numbers(out, DELIVERING, [queue, below]);
}

/// Appends that a queue segment file must be there.
pub(super) fn put_cold_file(out: &mut AlignedBuffer, queue: u64, file: u32, octets: u64) {
    put_numbers(out, COLD_FILE, [queue, u64::from(file), octets]);
}

/// Appends that a queue segment file may be missing.
pub(super) fn put_cold_gone(out: &mut AlignedBuffer, queue: u64, file: u32) {
    put_numbers(out, COLD_GONE, [queue, u64::from(file)]);
}

/// Appends a record that says nothing.
pub(super) fn put_mark(out: &mut AlignedBuffer) {
    put_numbers(out, MARK, []);
}

/// Appends that older segments of this journal may be missing.
pub(super) fn put_oldest(out: &mut AlignedBuffer, segment: u64) {
    put_numbers(out, OLDEST, [segment]);
}

/// Appends one part of a checkpoint, the one with these of its ranges.
pub(super) fn put_checkpoint(
    out: &mut AlignedBuffer,
    checkpoint: &Checkpoint,
    ranges: &[(u64, u64)],
    is_continued: bool,
) {
    put_head(out, |head| {
        head[0] = CHECKPOINT;
        head[1] = if is_continued { CONTINUED } else { 0 };
        let mut at = varint::put(head, 2, checkpoint.queue);
        at = varint::put(head, at, checkpoint.delivered_below);
        at = varint::put(head, at, checkpoint.position_next);
        varint::put(head, at, checkpoint.levels.len() as u64)
    });
    for (priority, front) in &checkpoint.levels {
        put_head(out, |head| {
            head[0] = *priority;
            varint::put(head, 1, *front)
        });
    }
    put_head(out, |head| varint::put(head, 0, ranges.len() as u64));
    let mut end = 0;
    for (first, count) in ranges {
        assert!(*first >= end && *count > 0, "ranges of a checkpoint rise");
        put_head(out, |head| {
            let at = varint::put(head, 0, first - end);
            varint::put(head, at, *count)
        });
        end = first.checked_add(*count).expect("positions are below the largest number");
    }
}

/// Appends what `write` writes, and returns where it ends, into a head.
#[inline]
fn put_head(out: &mut AlignedBuffer, write: impl FnOnce(&mut [u8; RECORD_HEAD_OCTETS_MAX]) -> usize) {
    let room = out.spare(RECORD_HEAD_OCTETS_MAX);
    let octets = write(room.first_chunk_mut().expect("room was made"));
    out.advance(octets);
}

fn put_numbers<const N: usize>(out: &mut AlignedBuffer, kind: u8, numbers: [u64; N]) {
    put_head(out, |head| {
        head[0] = kind;
        numbers.iter().fold(1, |at, number| varint::put(head, at, *number))
    });
}

#[inline]
fn put_place(head: &mut [u8; RECORD_HEAD_OCTETS_MAX], kind: u8, entry: &Entry) -> usize {
    head[0] = kind;
    head[1] = entry.flags();
    let at = varint::put(head, 2, entry.queue);
    varint::put(head, at, entry.position)
}

#[inline]
fn put_optional(head: &mut [u8; RECORD_HEAD_OCTETS_MAX], at: usize, entry: &Entry) -> usize {
    let mut at = at;
    if entry.priority != 0 {
        head[at] = entry.priority;
        at += 1;
    }
    if let Some(expires) = entry.expires_unix_millis {
        head[at..at + 8].copy_from_slice(&expires.to_le_bytes());
        at += 8;
    }
    at
}

fn short_count(short_string: &[u8]) -> u8 {
    u8::try_from(short_string.len()).expect("a short string is at most 255 octets")
}

/// Reads records, one after the other. Ends after the first fault.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    /// The last message, and where it came to first.
    last: Option<(Entry, MessageView<'a>)>,
}

impl<'a> Records<'a> {
    /// Those of one batch.
    pub fn new(octets: &'a [u8]) -> Records<'a> {
        Records { rest: octets, last: None }
    }

    fn take(&mut self) -> Option<Record<'a>> {
        let kind = self.take_octet()?;
        Some(match kind {
            MESSAGE => self.take_message()?,
            NEXT => self.take_next()?,
            SAME => {
                let (flags, mut entry) = self.take_place()?;
                self.take_optional(flags, &mut entry)?;
                Record::Message { entry, message: self.last?.1 }
            }
            SETTLED => {
                let (queue, first, count) = (self.number()?, self.number()?, self.number()?);
                first.checked_add(count).filter(|_| count > 0)?;
                Record::Settled { queue, first, count }
            }
            DELIVERING => Record::Delivering { queue: self.number()?, below: self.number()? },
            CHECKPOINT => self.take_checkpoint()?,
            COLD_FILE => Record::ColdFile { queue: self.number()?, file: self.file()?, octets: self.number()? },
            COLD_GONE => Record::ColdGone { queue: self.number()?, file: self.file()? },
            MARK => Record::Mark,
            OLDEST => Record::Oldest { segment: self.number()? },
            _ => return None,
        })
    }

    fn take_message(&mut self) -> Option<Record<'a>> {
        let (flags, mut entry) = self.take_place()?;
        let exchange_octets = usize::from(self.take_octet()?);
        let key_octets = usize::from(self.take_octet()?);
        let properties_octets = usize::try_from(self.number()?).ok()?;
        let body_octets = usize::try_from(self.number()?).ok()?;
        self.take_optional(flags, &mut entry)?;
        let message = MessageView {
            exchange: self.take_octets(exchange_octets)?,
            routing_key: self.take_octets(key_octets)?,
            properties: self.take_octets(properties_octets)?,
            body: BodyView::Slice(self.take_octets(body_octets)?),
        };
        self.last = Some((entry, message));
        Some(Record::Message { entry, message })
    }

    fn take_next(&mut self) -> Option<Record<'a>> {
        let (last, message) = self.last.filter(|(last, _)| last.expires_unix_millis.is_none())?;
        let entry = Entry { position: last.position.checked_add(1).filter(|position| *position < u64::MAX)?, ..last };
        let body_octets = usize::try_from(self.number()?).ok()?;
        let message = MessageView { body: BodyView::Slice(self.take_octets(body_octets)?), ..message };
        self.last = Some((entry, message));
        Some(Record::Message { entry, message })
    }

    fn take_place(&mut self) -> Option<(u8, Entry)> {
        let flags = self.take_octet().filter(|flags| flags & !MESSAGE_FLAGS == 0)?;
        let (queue, position) = (self.number()?, self.number().filter(|position| *position < u64::MAX)?);
        let (delivered, forwarded) = (flags & DELIVERED != 0, flags & FORWARDED != 0);
        Some((flags, Entry { queue, position, priority: 0, expires_unix_millis: None, delivered, forwarded }))
    }

    fn take_optional(&mut self, flags: u8, entry: &mut Entry) -> Option<()> {
        if flags & HAS_PRIORITY != 0 {
            entry.priority = self.take_octet()?;
        }
        if flags & HAS_EXPIRY != 0 {
            let octets = self.take_octets(8)?;
            entry.expires_unix_millis = Some(u64::from_le_bytes(octets.try_into().ok()?));
        }
        Some(())
    }

    /// What it allocates is bounded by the octets that are there: each element takes some.
    fn take_checkpoint(&mut self) -> Option<Record<'a>> {
        let is_continued = match self.take_octet()? {
            0 => false,
            CONTINUED => true,
            _ => return None,
        };
        let mut checkpoint = Checkpoint {
            queue: self.number()?,
            delivered_below: self.number()?,
            position_next: self.number()?,
            ..Checkpoint::default()
        };
        for _ in 0..self.number()? {
            checkpoint.levels.push((self.take_octet()?, self.number()?));
        }
        let mut end = 0_u64;
        for _ in 0..self.number()? {
            let (first, count) = (end.checked_add(self.number()?)?, self.number().filter(|count| *count > 0)?);
            end = first.checked_add(count)?;
            checkpoint.ranges.push((first, count));
        }
        Some(Record::Checkpoint { checkpoint, is_continued })
    }

    fn number(&mut self) -> Option<u64> {
        varint::take(&mut self.rest)
    }

    fn file(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn take_octet(&mut self) -> Option<u8> {
        let (octet, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*octet)
    }

    fn take_octets(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(octets)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.take().ok_or(RecordFault);
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}
