//! A client that may lose its broker at any moment.

use crate::support::broker::Broker;
use crate::support::methods::{self, basic, confirm, connection, queue};
use crate::support::octets::{BODY, HEADER, METHOD, Octets, Table, frame};
use crate::support::wire::{Delivery, Event, Frame, Handshake, Wire};
use std::collections::BTreeSet;
use std::time::Duration;

/// Bit of `queue.declare`.
pub use crate::support::methods::DURABLE;

/// What comes next.
#[derive(Debug)]
pub enum Incoming {
    /// To a publisher: these publishes, from the first that waits to the last if `multiple`.
    Confirm {
        tag: u64,
        multiple: bool,
        is_ack: bool,
    },
    Delivery(Delivery),
    /// What was delivered and not acknowledged has gone back (`basic.recover-ok`).
    Recovered,
    /// The prefetch count is set (`basic.qos-ok`).
    Limited,
    Blocked,
    Unblocked,
    /// The connection is gone, or is being closed.
    Closed,
    /// Nothing within the time given.
    Silence,
}

/// Properties of a message.
#[derive(Clone, Copy, Default)]
pub struct Properties<'a> {
    pub is_transient: bool,
    pub priority: Option<u8>,
    pub expiration: Option<&'a str>,
}

impl Properties<'_> {
    fn octets(&self) -> Vec<u8> {
        let mut flags = 1 << 12;
        let mut list = Octets::new().u8(if self.is_transient { 1 } else { 2 });
        if let Some(priority) = self.priority {
            flags |= 1 << 11;
            list = list.u8(priority);
        }
        if let Some(expiration) = self.expiration {
            flags |= 1 << 8;
            list = list.short(expiration);
        }
        Octets::new().u16(flags).raw(&list.0).0
    }
}

/// The frames of one message.
pub fn message(exchange: &str, key: &str, properties: Properties<'_>, body: &[u8]) -> Vec<u8> {
    let mut out = frame(METHOD, 1, &methods::publish(exchange, key, 0));
    out.extend(frame(HEADER, 1, &methods::content_header(body.len() as u64, &properties.octets())));
    for part in body.chunks(100 << 10) {
        out.extend(frame(BODY, 1, part));
    }
    out
}

/// See the module's documentation. All is on channel 1.
pub struct Client {
    pub wire: Wire,
    /// Of the last publish, where there are confirms.
    published: u64,
    /// Publishes that were not answered.
    unconfirmed: BTreeSet<u64>,
}

impl Client {
    /// Connects while the broker is there.
    #[track_caller]
    pub fn open(broker: &Broker) -> Client {
        let mut handshake = Handshake::default();
        handshake.capabilities.push("connection.blocked");
        let mut wire = Wire::open_with(broker, &handshake);
        wire.open_channel(1);
        Client { wire, published: 0, unconfirmed: BTreeSet::new() }
    }

    /// As [`Client::open`], with confirms.
    #[track_caller]
    pub fn publisher(broker: &Broker) -> Client {
        let mut client = Client::open(broker);
        client.wire.call(1, &methods::confirm_select(), confirm::SELECT_OK);
        client
    }

    /// Declares a durable queue.
    #[track_caller]
    pub fn declare(&mut self, name: &str, arguments: &Table) {
        self.wire.call(1, &methods::queue_declare(name, DURABLE, arguments), queue::DECLARE_OK);
    }

    /// How many messages of a queue are ready.
    #[track_caller]
    pub fn ready(&mut self, name: &str) -> u64 {
        u64::from(self.wire.counts(1, name).0)
    }

    /// Publishes through the default exchange.
    #[track_caller]
    pub fn publish(&mut self, queue: &str, properties: Properties<'_>, body: &[u8]) {
        self.note_published(1);
        self.wire.send(&message("", queue, properties, body));
    }

    /// So many messages are sent by the caller.
    pub fn note_published(&mut self, count: u64) {
        self.unconfirmed.extend(self.published + 1..=self.published + count);
        self.published += count;
    }

    pub fn unconfirmed_count(&self) -> usize {
        self.unconfirmed.len()
    }

    /// Takes note of a confirm; answers the numbers of the publishes, from 1, that it answers.
    #[track_caller]
    pub fn note_confirm(&mut self, tag: u64, multiple: bool) -> Vec<u64> {
        let first = if multiple { 0 } else { tag };
        let answered: Vec<u64> = self.unconfirmed.range(first..=tag).copied().collect();
        assert!(!answered.is_empty(), "a confirm for nothing: {tag}");
        for tag in &answered {
            self.unconfirmed.remove(tag);
        }
        answered
    }

    /// Waits until all that was published is confirmed.
    #[track_caller]
    pub fn wait_confirmed(&mut self) {
        while !self.unconfirmed.is_empty() {
            match self.next(crate::support::wire::ANSWER_MAX) {
                Incoming::Confirm { tag, multiple, is_ack } => {
                    self.note_confirm(tag, multiple);
                    assert!(is_ack, "publish {tag} was refused");
                }
                Incoming::Blocked | Incoming::Unblocked => {}
                other => panic!("{} publishes wait: {other:?}", self.unconfirmed.len()),
            }
        }
    }

    /// Takes what a queue has, `count` messages, acknowledged at the end if `acknowledges`.
    #[track_caller]
    pub fn take(&mut self, queue: &str, count: usize, acknowledges: bool) -> Vec<Delivery> {
        // No more than that, so that nothing is on its way at the end.
        let prefetch = u16::try_from(count).unwrap_or(0);
        self.wire.call(1, &methods::qos(prefetch, false), basic::QOS_OK);
        self.wire.consume(1, queue, "taker", 0);
        let taken: Vec<_> = (0..count).map(|_| self.wire.expect_delivery(1)).collect();
        self.wire.call(1, &methods::cancel("taker"), basic::CANCEL_OK);
        if acknowledges && let Some(last) = taken.last() {
            self.wire.send_method(1, &methods::ack(last.delivery_tag, true));
        }
        self.wire.synchronise(1);
        taken
    }

    /// The next thing that comes.
    pub fn next(&mut self, limit: Duration) -> Incoming {
        let frame = match self.wire.next_event(limit) {
            Event::Frame(frame) => frame,
            Event::Closed => return Incoming::Closed,
            Event::Silence => return Incoming::Silence,
        };
        match frame.method_id() {
            Some(id @ (basic::ACK | basic::NACK)) => {
                let mut arguments = frame.arguments();
                let (tag, multiple) = (arguments.u64(), arguments.u8() & 1 != 0);
                Incoming::Confirm { tag, multiple, is_ack: id == basic::ACK }
            }
            Some(basic::DELIVER) => self.content_of(&frame),
            Some(basic::QOS_OK) => Incoming::Limited,
            Some(basic::RECOVER_OK) => Incoming::Recovered,
            Some(connection::BLOCKED) => Incoming::Blocked,
            Some(connection::UNBLOCKED) => Incoming::Unblocked,
            Some(connection::CLOSE) => Incoming::Closed,
            _ => panic!("unexpected: {}", crate::support::wire::describe(&frame)),
        }
    }

    fn content_of(&mut self, deliver: &Frame) -> Incoming {
        let mut arguments = deliver.arguments();
        let consumer_tag = arguments.short();
        let (delivery_tag, redelivered) = (arguments.u64(), arguments.u8() != 0);
        let (exchange, routing_key) = (arguments.short(), arguments.short());
        let Some(header) = self.content_frame() else { return Incoming::Closed };
        assert_eq!(header.kind, HEADER, "a header follows");
        let mut reading = crate::support::octets::Reading::new(&header.payload[4..]);
        let size = usize::try_from(reading.u64()).expect("bodies fit into memory");
        let properties = reading.rest();
        let mut body = Vec::with_capacity(size);
        while body.len() < size {
            let Some(part) = self.content_frame() else { return Incoming::Closed };
            assert_eq!(part.kind, BODY, "a body follows");
            body.extend(part.payload);
        }
        Incoming::Delivery(Delivery {
            consumer_tag,
            delivery_tag,
            redelivered,
            exchange,
            routing_key,
            properties,
            body,
            message_count: None,
        })
    }

    fn content_frame(&mut self) -> Option<Frame> {
        match self.wire.next_event(crate::support::wire::ANSWER_MAX) {
            Event::Frame(frame) => Some(frame),
            Event::Closed => None,
            Event::Silence => panic!("a message stops in the middle"),
        }
    }
}
