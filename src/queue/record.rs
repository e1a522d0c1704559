//! How one stored message lies in a block: a fixed head, two fields that not every message has, then the octets.
//!
//! ```text
//! flags, exchange octets, routing key octets, priority: 1 each
//! properties octets: 4    body octets, or the number of a body that lies beside: 4
//! [position: 8]  [expires at: 8]  exchange  routing key  properties  [body]
//! ```
//!
//! Little-endian, not aligned. Knows no blocks and no queue.

use super::Position;
use crate::message::MessageView;
use crate::short_octets::put;

/// The fixed part, in octets.
const HEAD_OCTETS: usize = 12;

const HAS_POSITION: u8 = 1;
const HAS_EXPIRY: u8 = 1 << 1;
const PERSISTENT: u8 = 1 << 2;
const BODY_BESIDE: u8 = 1 << 3;
const REDELIVERED: u8 = 1 << 4;

/// Where the body of a message to be written goes.
#[derive(Clone, Copy)]
pub(super) enum BodyPlace {
    /// Behind the properties, in the record.
    Inside,
    /// In the store of large bodies, under this number.
    Beside(u32),
}

/// What is stored of a message besides its octets.
#[derive(Clone, Copy)]
pub(super) struct Labels {
    /// Written only where positions cannot be derived: in queues with priorities, and in those that outlive the process.
    pub position: Option<Position>,
    pub priority: u8,
    pub expires_at: Option<u64>,
    pub persistent: bool,
    /// Whether it may have been delivered before it came here: by a process that has ended.
    pub redelivered: bool,
}

/// How many octets [`write()`] will write.
#[inline]
pub(super) fn octets_needed(message: &MessageView<'_>, labels: &Labels, body_inside: bool) -> usize {
    let optional = 8 * (usize::from(labels.position.is_some()) + usize::from(labels.expires_at.is_some()));
    let body = if body_inside { message.body.len() } else { 0 };
    HEAD_OCTETS + optional + message.exchange.len() + message.routing_key.len() + message.properties.len() + body
}

/// Writes the record into `out`, which is as long as [`octets_needed`] says.
#[inline]
pub(super) fn write(out: &mut [u8], message: &MessageView<'_>, labels: &Labels, body: BodyPlace) {
    let octets = message.body.octets();
    let (beside, body_field, body_octets) = match body {
        BodyPlace::Inside => (0, count(octets.len()), octets),
        BodyPlace::Beside(number) => (BODY_BESIDE, number, &[][..]),
    };
    let flags = beside
        | if labels.position.is_some() { HAS_POSITION } else { 0 }
        | if labels.expires_at.is_some() { HAS_EXPIRY } else { 0 }
        | if labels.persistent { PERSISTENT } else { 0 }
        | if labels.redelivered { REDELIVERED } else { 0 };
    let (head, mut rest) = out.split_first_chunk_mut::<HEAD_OCTETS>().expect("a record has a head");
    head[0] = flags;
    head[1] = short_count(message.exchange);
    head[2] = short_count(message.routing_key);
    head[3] = labels.priority;
    head[4..8].copy_from_slice(&count(message.properties.len()).to_le_bytes());
    head[8..12].copy_from_slice(&body_field.to_le_bytes());
    if let Some(position) = labels.position {
        rest = put(rest, &position.to_le_bytes());
    }
    if let Some(expires_at) = labels.expires_at {
        rest = put(rest, &expires_at.to_le_bytes());
    }
    rest = put(rest, message.exchange);
    rest = put(rest, message.routing_key);
    rest = put(rest, message.properties);
    rest = put(rest, body_octets);
    debug_assert!(rest.is_empty(), "the record is as long as was said");
}

fn count(octets: usize) -> u32 {
    u32::try_from(octets).expect("a message's part is shorter than 4 GiB")
}

fn short_count(short_string: &[u8]) -> u8 {
    u8::try_from(short_string.len()).expect("a short string is at most 255 octets")
}

/// A record that lies at the front of some octets.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    head: &'a [u8; HEAD_OCTETS],
    rest: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record that begins with the first of `octets`; behind it may lie others.
    #[inline]
    pub fn at_front(octets: &'a [u8]) -> Record<'a> {
        let (head, rest) = octets.split_first_chunk().expect("a whole record was written");
        Record { head, rest }
    }

    #[inline]
    pub fn priority(&self) -> u8 {
        self.head[3]
    }

    #[inline]
    pub fn is_persistent(&self) -> bool {
        self.head[0] & PERSISTENT != 0
    }

    /// Whether it may have been delivered before it was stored.
    #[inline]
    pub fn is_redelivered(&self) -> bool {
        self.head[0] & REDELIVERED != 0
    }

    /// All that was stored with it besides its octets.
    pub fn labels(&self) -> Labels {
        Labels {
            position: self.position(),
            priority: self.priority(),
            expires_at: self.expires_at(),
            persistent: self.is_persistent(),
            redelivered: self.is_redelivered(),
        }
    }

    /// The position, where it was written.
    #[inline]
    pub fn position(&self) -> Option<Position> {
        (self.head[0] & HAS_POSITION != 0).then(|| self.optional_field(0))
    }

    #[inline]
    pub fn expires_at(&self) -> Option<u64> {
        (self.head[0] & HAS_EXPIRY != 0).then(|| self.optional_field(usize::from(self.head[0] & HAS_POSITION != 0)))
    }

    #[inline]
    fn optional_field(&self, index: usize) -> u64 {
        let field = &self.rest[8 * index..8 * index + 8];
        u64::from_le_bytes(field.try_into().expect("the slice is 8 octets long"))
    }

    #[inline]
    fn optional_octets(&self) -> usize {
        8 * (self.head[0] & (HAS_POSITION | HAS_EXPIRY)).count_ones() as usize
    }

    /// Where the body is, and how long if it is inside.
    #[inline]
    pub fn body(&self) -> StoredBody {
        let field = u32::from_le_bytes([self.head[8], self.head[9], self.head[10], self.head[11]]);
        if self.head[0] & BODY_BESIDE == 0 { StoredBody::Inside(field as usize) } else { StoredBody::Beside(field) }
    }

    #[inline]
    fn properties_octets(&self) -> usize {
        u32::from_le_bytes([self.head[4], self.head[5], self.head[6], self.head[7]]) as usize
    }

    /// The length of the whole record: where the next one begins.
    #[inline]
    pub fn octets(&self) -> usize {
        let body = match self.body() {
            StoredBody::Inside(octets) => octets,
            StoredBody::Beside(_) => 0,
        };
        let strings = usize::from(self.head[1]) + usize::from(self.head[2]);
        HEAD_OCTETS + self.optional_octets() + strings + self.properties_octets() + body
    }

    /// Exchange, routing key and properties, one behind the other, and the length of each.
    #[inline]
    pub fn texts(&self) -> (&'a [u8], [usize; 3]) {
        let lengths = [usize::from(self.head[1]), usize::from(self.head[2]), self.properties_octets()];
        let from = self.optional_octets();
        (&self.rest[from..from + lengths.iter().sum::<usize>()], lengths)
    }

    /// The stored parts in order; the body is empty where it lies beside.
    #[inline]
    pub fn parts(&self) -> Parts<'a> {
        let rest = &self.rest[self.optional_octets()..];
        let (exchange, rest) = rest.split_at(usize::from(self.head[1]));
        let (routing_key, rest) = rest.split_at(usize::from(self.head[2]));
        let (properties, rest) = rest.split_at(self.properties_octets());
        let body = match self.body() {
            StoredBody::Inside(octets) => &rest[..octets],
            StoredBody::Beside(_) => &[],
        };
        Parts { exchange, routing_key, properties, body }
    }
}

/// Where a stored body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredBody {
    /// In the record, that many octets.
    Inside(usize),
    /// In the store of large bodies, under this number.
    Beside(u32),
}

/// The octets of a record.
pub(super) struct Parts<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub properties: &'a [u8],
    pub body: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::BodyView;

    fn check(labels: Labels, body: BodyPlace) {
        let message = MessageView {
            exchange: b"amq.topic",
            routing_key: b"a.b",
            properties: &[0x10, 0, 2],
            body: BodyView::Slice(b"octets"),
        };
        let inside = matches!(body, BodyPlace::Inside);
        let mut out = vec![0; octets_needed(&message, &labels, inside)];
        write(&mut out, &message, &labels, body);
        out.extend_from_slice(b"the next record");
        let record = Record::at_front(&out);
        assert_eq!(record.octets(), octets_needed(&message, &labels, inside));
        assert_eq!((record.position(), record.expires_at()), (labels.position, labels.expires_at));
        assert_eq!((record.priority(), record.is_persistent()), (labels.priority, labels.persistent));
        assert_eq!(record.is_redelivered(), labels.redelivered);
        let parts = record.parts();
        assert_eq!(parts.exchange, message.exchange);
        assert_eq!(parts.routing_key, message.routing_key);
        assert_eq!(parts.properties, message.properties);
        assert_eq!(parts.body, if inside { &b"octets"[..] } else { &[][..] });
        match body {
            BodyPlace::Inside => assert_eq!(record.body(), StoredBody::Inside(6)),
            BodyPlace::Beside(number) => assert_eq!(record.body(), StoredBody::Beside(number)),
        }
    }

    /// Goal: what is written is what is read.
    /// Method: every combination of the optional fields, with the body inside and beside, other octets behind it.
    #[test]
    fn a_record_is_read_as_it_was_written() {
        for position in [None, Some(0), Some(u64::MAX)] {
            for expires_at in [None, Some(7), Some(u64::MAX)] {
                for persistent in [false, true] {
                    let labels = Labels { position, priority: 9, expires_at, persistent, redelivered: !persistent };
                    check(labels, BodyPlace::Inside);
                    check(labels, BodyPlace::Beside(u32::MAX));
                }
            }
        }
    }
}
