//! Publishes, encoded once: a row of whole messages whose stamps alone are written anew before each use.

use lepus::protocol::content::put_content;
use lepus::protocol::field_table::TableRef;
use lepus::protocol::frame::{FRAME_HEADER_OCTETS, FRAME_OVERHEAD_OCTETS};
use lepus::protocol::method::{Method, basic};
use lepus::protocol::properties::{CONTENT_HEADER_FIXED_OCTETS, NO_PROPERTIES, Properties};

use crate::client::CHANNEL;
use crate::options::RunOptions;
use crate::stamp::{STAMP_OCTETS, Stamp};

/// Octets that are handed to the socket at once, about.
const WRITE_OCTETS: usize = 32 << 10;

/// The row. Messages have the routing keys in turn.
pub struct Batch {
    octets: Vec<u8>,
    slots: Vec<Slot>,
    stamp_octets: usize,
    /// The slot that comes next.
    next: usize,
    /// As many slots as make one write.
    write_slots_max: usize,
}

/// One message in the row.
struct Slot {
    start: usize,
    body: usize,
    end: usize,
}

impl Batch {
    /// A row of all keys in turn, again and again, until it is long enough for one write.
    pub fn new(options: &RunOptions, routing_keys: &[String], frame_octets_max: usize) -> Self {
        let mut properties = Vec::new();
        if options.is_persistent() {
            Properties { delivery_mode: Some(2), ..Properties::default() }.encode(&mut properties);
        } else {
            properties.extend_from_slice(NO_PROPERTIES);
        }
        let body = vec![b'x'; options.size];
        let header_octets = FRAME_OVERHEAD_OCTETS + CONTENT_HEADER_FIXED_OCTETS + properties.len();
        let (mut octets, mut slots) = (Vec::new(), Vec::new());
        while octets.len() < WRITE_OCTETS {
            for routing_key in routing_keys {
                let start = octets.len();
                let (exchange, routing_key) = (options.exchange.as_bytes(), routing_key.as_bytes());
                let publish = basic::Publish { exchange, routing_key, mandatory: false, immediate: false };
                Method::BasicPublish(publish).put(&mut octets, CHANNEL);
                let body_start = octets.len() + header_octets + FRAME_HEADER_OCTETS;
                put_content(&mut octets, CHANNEL, &properties, &body, frame_octets_max);
                slots.push(Slot { start, body: body_start, end: octets.len() });
            }
        }
        let write_slots_max = (WRITE_OCTETS * slots.len() / octets.len()).clamp(1, slots.len());
        Self { octets, slots, stamp_octets: options.size.min(STAMP_OCTETS), next: 0, write_slots_max }
    }

    /// How many messages may be written at once now.
    #[inline]
    pub fn room(&self) -> usize {
        self.write_slots_max.min(self.slots.len() - self.next)
    }

    /// Stamps the next `count` messages, at most [`Batch::room`], each with what `stamp` says of the how-manieth it is.
    #[inline]
    pub fn stamp(&mut self, count: usize, mut stamp: impl FnMut(u32) -> Stamp) {
        for (slot, index) in self.slots[self.next..self.next + count].iter().zip(0..) {
            stamp(index).write(&mut self.octets[slot.body..slot.body + self.stamp_octets]);
        }
    }

    /// The next `count` messages.
    #[inline]
    pub fn octets(&self, count: usize) -> &[u8] {
        &self.octets[self.slots[self.next].start..self.slots[self.next + count - 1].end]
    }

    /// How many messages are whole within so many octets from the next one on.
    pub fn whole_messages(&self, octets: usize) -> usize {
        let start = self.slots[self.next].start;
        self.slots[self.next..].iter().take_while(|slot| slot.end - start <= octets).count()
    }

    /// The next `count` messages are on their way.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.next += count;
        if self.next == self.slots.len() {
            self.next = 0;
        }
    }
}

/// No arguments.
pub const NO_ARGUMENTS: TableRef<'static> = TableRef::EMPTY;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Command, CommandLine};
    use crate::stamp::Times;
    use clap::Parser;
    use lepus::protocol::frame::{FrameKind, take_frame};
    use lepus::protocol::properties::content_header;

    fn options(line: &str) -> RunOptions {
        match CommandLine::parse_from(["lepus-perf", "run"].into_iter().chain(line.split_whitespace())).command {
            Command::Run(options) => options,
            Command::Compare(_) | Command::Export(_) => unreachable!("'run' was given"),
        }
    }

    /// Goal: what is written are whole publishes with the keys in turn and the right stamps, across the row's end.
    /// Method: the broker's own decoder reads three rows' worth, for small bodies, short ones and split ones.
    fn check(line: &str, frame_octets_max: usize) {
        let options = options(line);
        let keys = ["a".to_owned(), "bb".to_owned(), "c.c".to_owned()];
        let mut batch = Batch::new(&options, &keys, frame_octets_max);
        let mut sequence = 0_u32;
        for _ in 0..3 * batch.slots.len() {
            let count = batch.room().min(5);
            batch.stamp(count, |index| Stamp {
                producer: 3,
                sequence: sequence + index,
                times: Some(Times { intended: 1000, sent: 1000 }),
            });
            assert_eq!(batch.whole_messages(batch.octets(count).len()), count);
            assert_eq!(batch.whole_messages(batch.octets(count).len() - 1), count - 1);
            let mut rest = batch.octets(count);
            while !rest.is_empty() {
                let mut next = || {
                    let (frame, used) = take_frame(rest, frame_octets_max).expect("well-formed").expect("whole");
                    rest = &rest[used..];
                    frame
                };
                let Ok(Method::BasicPublish(publish)) = Method::decode(next().payload) else { panic!("no publish") };
                assert_eq!(publish.routing_key, keys[sequence as usize % 3].as_bytes());
                let header = content_header(next().payload).expect("well-formed");
                let mut body = Vec::new();
                while (body.len() as u64) < header.body_size {
                    let frame = next();
                    assert_eq!(frame.kind, FrameKind::Body);
                    body.extend_from_slice(frame.payload);
                }
                assert_eq!(body.len(), options.size);
                let stamp = Stamp::read(&body).expect("stamped");
                assert_eq!((stamp.producer, stamp.sequence), (3, sequence));
                sequence += 1;
            }
            batch.advance(count);
        }
    }

    #[test]
    fn batches_are_whole_publishes() {
        check("-s 16", 131_072);
        check("-s 6 -f persistent", 131_072);
        check("-s 10000 -e somewhere", 4096);
        check("-s 100000", 131_072);
    }
}
