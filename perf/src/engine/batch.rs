//! Publishes, encoded in rows of whole messages. Where all messages are alike a row is used again and again, and the stamps
//! alone are written anew; else each row is made of the next ones.

use std::sync::Arc;

use fastrand::Rng;
use lepus::protocol::content::put_content;
use lepus::protocol::field_table::TableRef;
use lepus::protocol::frame::{FRAME_HEADER_OCTETS, FRAME_OVERHEAD_OCTETS};
use lepus::protocol::method::{Method, basic};
use lepus::protocol::properties::{CONTENT_HEADER_FIXED_OCTETS, Properties};

use crate::engine::stamp::{STAMP_OCTETS, Stamp, rest_checksum};
use crate::engine::topology::{Route, Topology};
use crate::engine::trace::TraceLine;
use crate::options::sizes::Sizes;
use crate::options::{MessageFlag, RunOptions};

/// Octets that are handed to the socket at once, about; where there are many channels, less, so that their rows fit into
/// memory.
const WRITE_OCTETS: usize = 32 << 10;
const SMALL_WRITE_OCTETS: usize = 4 << 10;
/// From so many publishing channels on.
const MANY_CHANNELS: usize = 64;
/// A row that would become longer than this is not used again.
const ROW_OCTETS_MAX: usize = 256 << 10;

/// What the messages of a run are, all channels alike.
#[derive(Debug)]
pub struct Content {
    exchange: String,
    routes: Vec<Route>,
    sizes: Sizes,
    is_persistent: bool,
    is_mandatory: bool,
    write_octets: usize,
    /// Random octets, as many as a body had at most: bodies begin with them.
    filler: Vec<u8>,
}

impl Content {
    /// What the options ask for.
    pub fn new(options: &RunOptions, topology: &Topology) -> Self {
        Self {
            exchange: options.exchange.clone(),
            routes: topology.routes.clone(),
            sizes: options.size.clone(),
            is_persistent: options.is_persistent(),
            is_mandatory: options.flags.contains(&MessageFlag::Mandatory),
            write_octets: if options.sources() < MANY_CHANNELS { WRITE_OCTETS } else { SMALL_WRITE_OCTETS },
            filler: filler(64 << 10),
        }
    }
}

/// Random octets; more of them begin with the same ones.
fn filler(octets: usize) -> Vec<u8> {
    let mut filler = vec![0; octets];
    Rng::with_seed(0x001E_9005).fill(&mut filler);
    filler
}

/// The row of one channel.
pub struct Batch {
    content: Arc<Content>,
    channel: u16,
    frame_octets_max: usize,
    reply_to: Option<String>,
    /// Sizes and keys of each message, where they are given.
    trace: Option<std::vec::IntoIter<TraceLine>>,
    random: Rng,
    /// Messages in the rows up to now, and keys that come before the first one's, for the keys' turn.
    made: usize,
    /// The first one's key.
    first_key: usize,
    is_reused: bool,
    octets: Vec<u8>,
    slots: Vec<Slot>,
    /// The slot that comes next.
    next: usize,
    /// Octets of each body, where all are alike.
    body_octets: Option<u64>,
}

/// One message in the row.
#[derive(Clone, Copy)]
struct Slot {
    start: usize,
    body: usize,
    body_octets: usize,
    stamp_octets: usize,
    rest_checksum: u32,
    end: usize,
}

impl Batch {
    /// For one channel, whose first message has the key of its number in the run. `reply_to` is a property of its messages; `trace` has their sizes and keys, else they are drawn.
    pub fn new(
        content: Arc<Content>,
        (number, channel): (u16, u16),
        frame_octets_max: usize,
        seed: u64,
        reply_to: Option<String>,
        trace: Option<Vec<TraceLine>>,
    ) -> Self {
        let first_key = usize::from(number) % content.routes.len();
        let mut batch = Self {
            is_reused: content.sizes.is_fixed() && trace.is_none(),
            body_octets: (content.sizes.is_fixed() && trace.is_none()).then(|| content.sizes.least() as u64),
            content,
            channel,
            frame_octets_max,
            reply_to,
            trace: trace.map(Vec::into_iter),
            random: Rng::with_seed(seed),
            made: first_key,
            first_key,
            octets: Vec::new(),
            slots: Vec::new(),
            next: 0,
        };
        batch.make_row();
        batch
    }

    /// The next row. Where it is to be used again, it ends with the last of the keys.
    fn make_row(&mut self) {
        self.octets.clear();
        self.slots.clear();
        self.next = 0;
        let keys = self.content.routes.len();
        loop {
            if self.octets.len() >= self.content.write_octets && (!self.is_reused || self.made % keys == self.first_key)
            {
                return;
            }
            if self.is_reused && self.octets.len() > ROW_OCTETS_MAX && !self.slots.is_empty() {
                self.is_reused = false;
                return;
            }
            let content = Arc::clone(&self.content);
            let route = &content.routes[self.made % keys];
            if let Some(trace) = &mut self.trace {
                let Some(line) = trace.next() else { return };
                let size = line.size.unwrap_or_else(|| content.sizes.draw(&mut self.random));
                self.put(&content, line.routing_key.as_ref().unwrap_or(&route.key), route, size);
            } else {
                let size = content.sizes.draw(&mut self.random);
                self.put(&content, &route.key, route, size);
            }
        }
    }

    fn put(&mut self, content: &Content, routing_key: &str, route: &Route, size: usize) {
        let start = self.octets.len();
        let headers = route.headers.to_octets();
        let properties = Properties {
            delivery_mode: content.is_persistent.then_some(2),
            headers: (!route.headers.is_empty()).then(|| TableRef::new(&headers).expect("we have made the table")),
            reply_to: self.reply_to.as_ref().map(String::as_bytes),
            ..Properties::default()
        };
        let mut property_octets = Vec::new();
        properties.encode(&mut property_octets);
        let (exchange, routing_key) = (content.exchange.as_bytes(), routing_key.as_bytes());
        let publish = basic::Publish { exchange, routing_key, mandatory: content.is_mandatory, immediate: false };
        Method::BasicPublish(publish).put(&mut self.octets, self.channel);
        let header_octets = FRAME_OVERHEAD_OCTETS + CONTENT_HEADER_FIXED_OCTETS + property_octets.len();
        let body = self.octets.len() + header_octets + FRAME_HEADER_OCTETS;
        let longer;
        let filler = if size <= content.filler.len() {
            &content.filler[..size]
        } else {
            longer = filler(size);
            &longer[..]
        };
        put_content(&mut self.octets, self.channel, &property_octets, filler, self.frame_octets_max);
        let stamp_octets = size.min(STAMP_OCTETS);
        let rest_checksum = rest_checksum(&filler[stamp_octets..]);
        let end = self.octets.len();
        self.slots.push(Slot { start, body, body_octets: size, stamp_octets, rest_checksum, end });
        self.made += 1;
    }

    /// How many messages may be written at once now; 0 where there are no more at all.
    #[inline]
    pub fn room(&self) -> usize {
        self.slots.len() - self.next
    }

    /// Stamps the next `count` messages, at most [`Batch::room`], each with what `stamp` says.
    #[inline]
    pub fn stamp(&mut self, count: usize, mut stamp: impl FnMut() -> Stamp) {
        for slot in &self.slots[self.next..self.next + count] {
            stamp().write(&mut self.octets[slot.body..slot.body + slot.stamp_octets], slot.rest_checksum);
        }
    }

    /// The next `count` messages, of which one at least is meant.
    #[inline]
    pub fn octets(&self, count: usize) -> &[u8] {
        &self.octets[self.slots[self.next].start..self.slots[self.next + count - 1].end]
    }

    /// Octets of the bodies of the next `count` messages.
    #[inline]
    pub fn body_octets(&self, count: usize) -> u64 {
        match self.body_octets {
            Some(octets) => octets * count as u64,
            None => self.slots[self.next..self.next + count].iter().map(|slot| slot.body_octets as u64).sum(),
        }
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
            if self.is_reused {
                self.next = 0;
            } else {
                self.make_row();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lepus::protocol::frame::{FrameKind, take_frame};
    use lepus::protocol::properties::content_header;

    /// Goal: what is written are whole publishes with the keys in turn, right stamps and right checksums, from row to row.
    /// Method: the broker's own decoder reads some rows' worth: small bodies, short ones, split ones, of random sizes.
    fn check(line: &str, frame_octets_max: usize, sizes: std::ops::RangeInclusive<usize>) {
        [0, 2, 1001].into_iter().for_each(|number| check_channel(line, number, frame_octets_max, &sizes));
    }

    fn check_channel(line: &str, number: u16, frame_octets_max: usize, sizes: &std::ops::RangeInclusive<usize>) {
        let first_key = usize::from(number);
        let options = RunOptions::try_parse_from(line.split_whitespace()).expect("well-formed");
        let topology = Topology::plan(&options);
        let content = Arc::new(Content::new(&options, &topology));
        let mut batch = Batch::new(content, (number, 3), frame_octets_max, 1, None, None);
        let mut sequence = 0_u32;
        for _ in 0..3 * batch.slots.len() {
            let count = batch.room().min(5);
            let mut number = sequence;
            batch.stamp(count, || {
                number += 1;
                Stamp { producer: 3, sequence: number - 1, intended: 1024, lag: 8 }
            });
            assert_eq!(batch.whole_messages(batch.octets(count).len()), count);
            assert_eq!(batch.whole_messages(batch.octets(count).len() - 1), count - 1);
            let body_octets = batch.body_octets(count);
            let mut found_octets = 0;
            let mut rest = batch.octets(count);
            while !rest.is_empty() {
                let mut next = || {
                    let (frame, used) = take_frame(rest, frame_octets_max).expect("well-formed").expect("whole");
                    rest = &rest[used..];
                    assert_eq!(frame.channel, 3);
                    frame
                };
                let Ok(Method::BasicPublish(publish)) = Method::decode(next().payload) else { panic!("no publish") };
                let route = &topology.routes[(sequence as usize + first_key) % topology.routes.len()];
                assert_eq!(publish.routing_key, route.key.as_bytes());
                let header = content_header(next().payload).expect("well-formed");
                let mut body = Vec::new();
                while (body.len() as u64) < header.body_size {
                    let frame = next();
                    assert_eq!(frame.kind, FrameKind::Body);
                    body.extend_from_slice(frame.payload);
                }
                assert!(sizes.contains(&body.len()), "{}", body.len());
                found_octets += body.len() as u64;
                let found = Stamp::read(&body, 2000).expect("stamped");
                assert_eq!((found.stamp.producer, found.stamp.sequence), (3, sequence));
                if body.len() >= STAMP_OCTETS {
                    assert_eq!(found.rest_checksum, Some(rest_checksum(&body[STAMP_OCTETS..])));
                }
                sequence += 1;
            }
            assert_eq!(found_octets, body_octets);
            batch.advance(count);
        }
    }

    #[test]
    fn batches_are_whole_publishes() {
        check("-s 16 --queues 3", 131_072, 16..=16);
        check("-s 6 -f persistent", 131_072, 6..=6);
        check("-s 10000 -e somewhere --queues 3", 4096, 10_000..=10_000);
        check("-s 100000", 131_072, 100_000..=100_000);
        check("-s uniform:6-3000 --queues 3", 1000, 6..=3000);
        check("-s 16 -e x -t topic --bindings 9000", 131_072, 16..=16);
        check("-s 64 -e x -t headers --bindings 7", 131_072, 64..=64);
    }
}
