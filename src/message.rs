//! One immutable message: where it was published to, its raw property octets, its body.
//!
//! Knows no frames, queues or channels. A [`MessageView`] borrows (from a read buffer, a queue's block, a batch from
//! another shard), a [`Message`] owns and may be sent between shards.

use crate::limits::SHARED_BODY_OCTETS_MIN;
use bytes::Bytes;

/// A body as somebody else holds it.
#[derive(Clone, Copy, Debug)]
pub enum BodyView<'a> {
    /// Octets in a buffer that will be reused: whoever keeps them copies them.
    Slice(&'a [u8]),
    /// Reference-counted octets: whoever keeps them clones the reference.
    Shared(&'a Bytes),
}

impl<'a> BodyView<'a> {
    /// The octets.
    #[inline]
    pub fn octets(&self) -> &'a [u8] {
        match self {
            Self::Slice(octets) => octets,
            Self::Shared(bytes) => bytes,
        }
    }

    /// How many octets.
    #[inline]
    pub fn len(&self) -> usize {
        self.octets().len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An owned body: the reference where it is shared, else a copy.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Slice(octets) => Bytes::copy_from_slice(octets),
            Self::Shared(bytes) => Bytes::clone(bytes),
        }
    }

    /// Whether a keeper should hold a reference instead of copying: the body is large.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.len() >= SHARED_BODY_OCTETS_MIN
    }
}

/// A message in memory that somebody else owns.
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    /// The exchange that it was published to; at most 255 octets.
    pub exchange: &'a [u8],
    /// The routing key that it was published with; at most 255 octets.
    pub routing_key: &'a [u8],
    /// The property flags and the property list, as they stand in the content header after the body size.
    pub properties: &'a [u8],
    /// The body.
    pub body: BodyView<'a>,
}

impl MessageView<'_> {
    /// An owned copy (a large body that is shared already is only referenced).
    pub fn to_message(&self) -> Message {
        let mut head = Vec::with_capacity(self.exchange.len() + self.routing_key.len() + self.properties.len());
        head.extend_from_slice(self.exchange);
        head.extend_from_slice(self.routing_key);
        head.extend_from_slice(self.properties);
        Message {
            head: head.into_boxed_slice(),
            exchange_octets: octet_count(self.exchange),
            routing_key_octets: octet_count(self.routing_key),
            body: self.body.to_bytes(),
        }
    }
}

fn octet_count(short_string: &[u8]) -> u8 {
    u8::try_from(short_string.len()).expect("a short string is at most 255 octets")
}

/// A message that owns its memory and may move between shards.
#[derive(Clone, Debug)]
pub struct Message {
    head: Box<[u8]>,
    exchange_octets: u8,
    routing_key_octets: u8,
    body: Bytes,
}

impl Message {
    /// The message as a view.
    pub fn view(&self) -> MessageView<'_> {
        let (exchange, rest) = self.head.split_at(usize::from(self.exchange_octets));
        let (routing_key, properties) = rest.split_at(usize::from(self.routing_key_octets));
        MessageView { exchange, routing_key, properties, body: BodyView::Shared(&self.body) }
    }

    /// How many octets of memory it holds.
    pub fn octets_held(&self) -> usize {
        size_of::<Self>() + self.head.len() + self.body.len()
    }
}
