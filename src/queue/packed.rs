//! How the messages of a block lie on disk: as in memory, but what a message shares with the one before it is left out.
//!
//! ```text
//! flags 1, [position, less the one after the one before v], [expires at v], body octets v (none where the body lies beside),
//! [exchange octets 1, routing key octets 1, properties octets v, exchange, routing key, properties], [body]
//! ```
//!
//! `v` is a number in as few octets as it needs. In brackets is what the flags tell of. All messages of a block have one priority,
//! which stands elsewhere. So a message of 100 octets in a stream of its like takes 102, in memory some 127: room that each message
//! takes in memory is room that is found at once, on disk it is read from front to end.
//!
//! Octets that were not written by [`Packer`] are told from those that were as far as they can be, and do no harm.

use super::record::{Labels, Record, StoredBody};
use crate::message::{BodyView, MessageView};
use crate::short_octets;
use crate::store::{AlignedBuffer, VARINT_OCTETS_MAX, put_varint, take_varint};

/// It has a position.
const HAS_POSITION: u8 = 1;
/// That is not the one after the one before.
const HAS_GAP: u8 = 1 << 1;
const HAS_EXPIRY: u8 = 1 << 2;
const PERSISTENT: u8 = 1 << 3;
const BODY_BESIDE: u8 = 1 << 4;
const REDELIVERED: u8 = 1 << 5;
/// Exchange, routing key and properties are not those of the one before.
const HAS_TEXTS: u8 = 1 << 6;
const ALL_FLAGS: u8 = HAS_POSITION | HAS_GAP | HAS_EXPIRY | PERSISTENT | BODY_BESIDE | REDELIVERED | HAS_TEXTS;

/// Everything but texts and body, at most, in octets.
const HEAD_OCTETS_MAX: usize = 3 + 4 * VARINT_OCTETS_MAX;

/// Writes the records of one block, from its front to its end.
#[derive(Default)]
pub(super) struct Packer<'a> {
    /// The position after that of the record before.
    position_next: u64,
    /// Exchange, routing key and properties of the record before, one behind the other, and their lengths.
    texts: &'a [u8],
    text_lengths: [usize; 3],
}

impl<'a> Packer<'a> {
    /// Appends a record; of a body that lies beside, that it does.
    #[inline]
    pub fn put(&mut self, out: &mut AlignedBuffer, record: &Record<'a>) {
        let (texts, text_lengths) = record.texts();
        let labels = record.labels();
        let body = match record.body() {
            StoredBody::Inside(_) => Some(record.parts().body),
            StoredBody::Beside(_) => None,
        };
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let has_gap = labels.position.is_some_and(|position| position != self.position_next);
        let has_texts = text_lengths != self.text_lengths || !short_octets::are_equal(texts, self.texts);
        let body_octets = body.map_or(0, <[u8]>::len);
        let room = out.spare(HEAD_OCTETS_MAX + texts.len() + body_octets);
        room[0] = flag(labels.position.is_some(), HAS_POSITION)
            | flag(has_gap, HAS_GAP)
            | flag(labels.expires_at.is_some(), HAS_EXPIRY)
            | flag(labels.persistent, PERSISTENT)
            | flag(body.is_none(), BODY_BESIDE)
            | flag(labels.redelivered, REDELIVERED)
            | flag(has_texts, HAS_TEXTS);
        let mut at = 1;
        if let Some(position) = labels.position {
            if has_gap {
                at = put_varint(room, at, position.wrapping_sub(self.position_next));
            }
            self.position_next = position.wrapping_add(1);
        }
        if let Some(expires_at) = labels.expires_at {
            at = put_varint(room, at, expires_at);
        }
        if body.is_some() {
            at = put_varint(room, at, body_octets as u64);
        }
        if has_texts {
            let [exchange_octets, key_octets, properties_octets] = text_lengths;
            room[at] = u8::try_from(exchange_octets).expect("a short string is at most 255 octets");
            room[at + 1] = u8::try_from(key_octets).expect("a short string is at most 255 octets");
            at = put_varint(room, at + 2, properties_octets as u64);
            room[at..at + texts.len()].copy_from_slice(texts);
            at += texts.len();
            (self.texts, self.text_lengths) = (texts, text_lengths);
        }
        room[at..at + body_octets].copy_from_slice(body.unwrap_or_default());
        out.advance(at + body_octets);
    }
}

/// A record as it was read.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    pub labels: Labels,
    /// Without its body where that lies beside.
    pub message: MessageView<'a>,
    pub body_is_beside: bool,
}

/// The octets are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedFault;

/// Reads the records of a block, from its front to its end. Ends after the first fault.
pub(super) struct PackedRecords<'a> {
    rest: &'a [u8],
    priority: u8,
    position_next: u64,
    /// Exchange, routing key and properties of the record before.
    texts: [&'a [u8]; 3],
}

impl<'a> PackedRecords<'a> {
    /// Those of a block whose messages have that priority.
    pub fn new(octets: &'a [u8], priority: u8) -> PackedRecords<'a> {
        PackedRecords { rest: octets, priority, position_next: 0, texts: [&[]; 3] }
    }

    #[inline]
    fn take(&mut self) -> Option<Packed<'a>> {
        let flags = self.octet().filter(|flags| flags & !ALL_FLAGS == 0)?;
        let has = |flag: u8| flags & flag != 0;
        let position = if has(HAS_POSITION) {
            let gap = if has(HAS_GAP) { take_varint(&mut self.rest)? } else { 0 };
            let position = self.position_next.wrapping_add(gap);
            self.position_next = position.wrapping_add(1);
            Some(position)
        } else {
            None
        };
        let expires_at = if has(HAS_EXPIRY) { Some(take_varint(&mut self.rest)?) } else { None };
        let body_octets = if has(BODY_BESIDE) { 0 } else { usize::try_from(take_varint(&mut self.rest)?).ok()? };
        if has(HAS_TEXTS) {
            let (exchange_octets, key_octets) = (self.octet()?, self.octet()?);
            let properties_octets = usize::try_from(take_varint(&mut self.rest)?).ok()?;
            self.texts = [
                self.octets(usize::from(exchange_octets))?,
                self.octets(usize::from(key_octets))?,
                self.octets(properties_octets)?,
            ];
        }
        let [exchange, routing_key, properties] = self.texts;
        let body = BodyView::Slice(self.octets(body_octets)?);
        Some(Packed {
            labels: Labels {
                position,
                priority: self.priority,
                expires_at,
                persistent: has(PERSISTENT),
                redelivered: has(REDELIVERED),
            },
            message: MessageView { exchange, routing_key, properties, body },
            body_is_beside: has(BODY_BESIDE),
        })
    }

    fn octet(&mut self) -> Option<u8> {
        let (octet, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*octet)
    }

    fn octets(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(octets)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for PackedRecords<'a> {
    type Item = Result<Packed<'a>, PackedFault>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.take().ok_or(PackedFault);
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::load::records;
    use crate::queue::record::{self, BodyPlace};
    use proptest::prelude::*;

    const PRIORITY: u8 = 4;

    /// A message to be packed; without a body it lies beside.
    #[derive(Clone, Debug)]
    struct Given {
        position: Option<u64>,
        expires_at: Option<u64>,
        persistent: bool,
        redelivered: bool,
        texts: [Vec<u8>; 3],
        body: Option<Vec<u8>>,
    }

    fn image(given: &[Given]) -> Vec<u8> {
        let mut image = vec![];
        for Given { position, expires_at, persistent, redelivered, texts, body } in given {
            let [exchange, routing_key, properties] = texts;
            let message = MessageView {
                exchange,
                routing_key,
                properties,
                body: BodyView::Slice(body.as_deref().unwrap_or_default()),
            };
            let labels = Labels {
                position: *position,
                priority: PRIORITY,
                expires_at: *expires_at,
                persistent: *persistent,
                redelivered: *redelivered,
            };
            let place = if body.is_some() { BodyPlace::Inside } else { BodyPlace::Beside(77) };
            let start = image.len();
            image.resize(start + record::octets_needed(&message, &labels, body.is_some()), 0);
            record::write(&mut image[start..], &message, &labels, place);
        }
        image
    }

    fn pack(given: &[Given]) -> AlignedBuffer {
        let mut out = AlignedBuffer::new();
        let image = image(given);
        let mut packer = Packer::default();
        records(&image).for_each(|record| packer.put(&mut out, &record));
        out
    }

    fn check(packed: &Packed<'_>, given: &Given) {
        let Packed { labels, message, body_is_beside } = packed;
        assert_eq!((labels.position, labels.expires_at, labels.priority), (given.position, given.expires_at, PRIORITY));
        assert_eq!((labels.persistent, labels.redelivered), (given.persistent, given.redelivered));
        assert_eq!(
            [message.exchange, message.routing_key, message.properties],
            given.texts.each_ref().map(|it| &it[..])
        );
        assert_eq!(*body_is_beside, given.body.is_none());
        assert_eq!(message.body.octets(), given.body.as_deref().unwrap_or_default());
    }

    fn any_given() -> impl Strategy<Value = Given> {
        let octets = |most: usize| prop::collection::vec(any::<u8>(), 0..=most);
        let text = prop_oneof![Just(vec![]), Just(b"same".to_vec()), octets(255)];
        let position = prop_oneof![Just(None), (0..5_u64).prop_map(Some), any::<u64>().prop_map(Some)];
        let texts = [text.clone(), text.clone(), text];
        (position, any::<Option<u64>>(), any::<[bool; 2]>(), texts, prop::option::of(octets(300))).prop_map(
            |(position, expires_at, [persistent, redelivered], texts, body)| Given {
                position,
                expires_at,
                persistent,
                redelivered,
                texts,
                body,
            },
        )
    }

    proptest! {
        /// Goal: what is read is what was packed. Method: any records, of which many share something with the one before.
        #[test]
        fn records_are_read_as_packed(given in prop::collection::vec(any_given(), 0..30)) {
            let out = pack(&given);
            let mut count = 0;
            for (packed, given) in PackedRecords::new(out.as_slice(), PRIORITY).zip(&given) {
                check(&packed.expect("it was packed"), given);
                count += 1;
            }
            prop_assert_eq!(count, given.len());
        }

        /// Goal: other octets do no harm. Method: random ones, and packed ones that were changed and cut.
        #[test]
        fn garbage_does_no_harm(
            garbage in prop::collection::vec(any::<u8>(), 0..200),
            given in prop::collection::vec(any_given(), 1..5),
            change in any::<(prop::sample::Index, u8, prop::sample::Index)>(),
        ) {
            let mut out = pack(&given);
            let (at, octet, cut) = change;
            let octets = out.len();
            out.as_mut_slice()[at.index(octets)] = octet;
            for octets in [&garbage[..], out.as_slice(), &out.as_slice()[..cut.index(octets)]] {
                let read = PackedRecords::new(octets, PRIORITY).count();
                prop_assert!(read <= octets.len());
            }
        }
    }

    /// Goal: what is cut off is no record. Method: one with everything in it, cut at each octet.
    #[test]
    fn a_cut_record_is_none() {
        let texts = [b"exchange".to_vec(), b"key".to_vec(), vec![0x10, 0, 2]];
        let body = Some(vec![7; 200]);
        let given = Given {
            position: Some(1 << 40),
            expires_at: Some(1 << 41),
            persistent: true,
            redelivered: true,
            texts,
            body,
        };
        let out = pack(&[given]);
        for cut in 1..out.len() {
            let read: Vec<_> = PackedRecords::new(&out.as_slice()[..cut], PRIORITY).collect();
            assert!(matches!(read[..], [Err(PackedFault)]), "of {cut} octets");
        }
    }

    /// Goal: messages of a stream take little more than their bodies. Method: count octets.
    #[test]
    fn a_stream_is_packed_densely() {
        let texts = [b"exchange".to_vec(), b"a.rather.long.key".to_vec(), vec![0x10, 0, 2]];
        let given = |position| Given {
            position: Some(position),
            expires_at: None,
            persistent: true,
            redelivered: false,
            texts: texts.clone(),
            body: Some(vec![7; 100]),
        };
        let one = pack(&[given(1 << 30)]).len();
        let many: Vec<Given> = (0..10).map(|number| given((1 << 30) + number)).collect();
        assert_eq!(pack(&many).len() - one, 9 * 102);
    }
}
