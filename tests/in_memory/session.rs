//! Whole connections, played and replayed, and what must hold of every one of them:
//!
//! * nothing panics, and the broker comes to rest;
//! * what it sends is what [`Peer`] takes;
//! * how the octets are cut into pieces changes nothing in what is sent back;
//! * memory stays below a bound that grows with what was sent ([`memory_bound`]), and once the connection and the queues
//!   that outlive it are gone, nothing is held;
//! * another connection on the same shard publishes and consumes as if nothing were the matter.

use super::{
    broker::Broker,
    peer::{Event, Peer},
    tape::{Tape, View, framed},
};
use lepus::{
    limits::{OUTPUT_OCTETS_MAX, SHARDS_MAX},
    protocol::{
        content::put_content,
        field_table::{FieldTable, FieldValue, TableRef},
        frame::SUPPORTED_HEADER,
        method::{Method, basic, channel, confirm, connection, exchange, queue},
        properties::NO_PROPERTIES,
        reply_code::ReplyCode,
    },
};

const FRAME_OCTETS_MAX: [u32; 3] = [4096, 5000, 131_072];
/// Connections that one tape may use up.
const CONNECTIONS_MAX: usize = 8;
const HEALTHY_QUEUE: &[u8] = b"healthy";
/// What may be held however little was sent: outputs, and memory that is kept for reuse.
const HELD_OCTETS: u64 = 2 * OUTPUT_OCTETS_MAX as u64;
/// Capacity grows by doubling, small messages carry a header each, and a dead letter has `x-death` on top.
const HELD_FACTOR: u64 = 16;

const _: () = assert!(SHARDS_MAX >= 2);

/// What may be held when so many octets were sent and so many queues each may hold a copy of them.
fn memory_bound(sent: u64, queues: u64) -> u64 {
    HELD_OCTETS + HELD_FACTOR * (sent + 1024) * (queues + 1)
}

/// Everything that a client sends until its connection is open.
pub fn handshake(frame_max: u32, is_capable: bool) -> Vec<u8> {
    let mut capabilities = FieldTable::new();
    for name in ["authentication_failure_close", "connection.blocked", "consumer_cancel_notify", "basic.nack"] {
        capabilities.insert(name, FieldValue::Bool(is_capable));
    }
    let mut properties = FieldTable::new();
    properties.insert("capabilities", FieldValue::Table(capabilities));
    let properties = properties.to_octets();
    let client_properties = TableRef::new(&properties).expect("an own table is well-formed");
    let mut octets = SUPPORTED_HEADER.to_vec();
    let (mechanism, response, locale) = (b"PLAIN", b"\0guest\0guest", b"en_US");
    let start_ok = connection::StartOk { client_properties, mechanism, response, locale };
    Method::from(start_ok).put(&mut octets, 0);
    Method::from(connection::TuneOk { channel_max: 3, frame_max, heartbeat: 0 }).put(&mut octets, 0);
    Method::from(connection::Open { virtual_host: b"/" }).put(&mut octets, 0);
    octets
}

/// A connection that does everything right.
struct Healthy {
    client: usize,
    peer: Peer,
    published: u64,
}

impl Healthy {
    fn new(broker: &mut Broker) -> Self {
        let frame_max = 4096;
        let client = broker.connect(0);
        let mut octets = handshake(frame_max, true);
        Method::from(channel::Open {}).put(&mut octets, 1);
        Method::from(confirm::Select { no_wait: false }).put(&mut octets, 1);
        let declare = queue::Declare { queue: HEALTHY_QUEUE, exclusive: true, ..Default::default() };
        Method::from(declare).put(&mut octets, 1);
        Method::from(basic::Consume { queue: HEALTHY_QUEUE, ..Default::default() }).put(&mut octets, 1);
        let mut healthy = Self { client, peer: Peer::new(frame_max as usize), published: 0 };
        let events = healthy.exchange(broker, &octets);
        assert_eq!(events.last(), Some(&Event::Method(1, "basic.consume-ok")), "{events:?}");
        healthy
    }

    fn exchange(&mut self, broker: &mut Broker, octets: &[u8]) -> Vec<Event> {
        broker.send(self.client, octets);
        broker.settle();
        self.peer.take(&broker.take_output(self.client))
    }

    /// Publishes; the message comes, and its confirm.
    fn check(&mut self, broker: &mut Broker) {
        self.published += 1;
        let body = self.published.to_be_bytes();
        let mut octets = framed(1, &basic::Publish { routing_key: HEALTHY_QUEUE, ..Default::default() }.into());
        put_content(&mut octets, 1, NO_PROPERTIES, &body, 4096);
        let events = self.exchange(broker, &octets);
        let is_mine = |event: &Event| matches!(event, Event::Message { body: got, .. } if *got == body);
        assert!(events.iter().any(is_mine), "its message comes: {events:?}");
        assert!(events.contains(&Event::Method(1, "basic.ack")), "its publish is confirmed: {events:?}");
        let ack = basic::Ack { delivery_tag: 0, multiple: true };
        assert_eq!(self.exchange(broker, &framed(1, &ack.into())), []);
    }

    /// Deletes what others have left, and goes.
    fn clean_up(mut self, broker: &mut Broker) {
        let definitions = broker.definitions();
        let vhost = definitions.vhost(b"/").expect("it is there from the start");
        let mut octets = Vec::new();
        for left in vhost.queues().filter(|queue| queue.name.as_bytes() != HEALTHY_QUEUE) {
            assert!(left.exclusive_owner.is_none(), "an exclusive queue goes with its connection");
            let delete = queue::Delete { queue: left.name.as_bytes(), no_wait: true, ..Default::default() };
            octets.extend(framed(1, &delete.into()));
        }
        let is_own = |name: &str| name.is_empty() || name.starts_with("amq.");
        for left in vhost.exchanges().filter(|exchange| !is_own(&exchange.name)) {
            let delete = exchange::Delete { exchange: left.name.as_bytes(), no_wait: true, ..Default::default() };
            octets.extend(framed(1, &delete.into()));
        }
        let events = self.exchange(broker, &octets);
        // What was left may still have dead-lettered to the healthy queue.
        assert!(events.iter().all(|event| matches!(event, Event::Message { .. })), "{events:?}");
        let close = connection::Close { reply_code: 200, ..Default::default() };
        let events = self.exchange(broker, &framed(0, &close.into()));
        assert_eq!(events, [Event::Method(0, "connection.close-ok")]);
        assert!(broker.is_gone(self.client));
    }
}

/// A connection as it was played.
pub struct Played {
    octets: Vec<u8>,
    frame_max: u32,
}

/// Plays connections that the tape makes up, then replays what they sent.
pub fn check_tape(octets: &[u8]) {
    let mut tape = Tape::new(octets);
    let shard_count = 1 + usize::from(tape.once_in(3));
    let mut broker = Broker::new(shard_count);
    let mut healthy = Healthy::new(&mut broker);
    let (mut played, mut sent, mut queues) = (Vec::new(), 0, 0);
    while !tape.is_over() && played.len() < CONNECTIONS_MAX {
        let run = play_connection(&mut tape, &mut broker, &mut healthy, &mut sent, &mut queues);
        played.push(run);
        healthy.check(&mut broker);
    }
    finish(broker, healthy, shard_count);
    let pieces = tape_pieces(octets);
    check_pieces(&played, shard_count, &pieces);
}

/// Plays one connection that sends these octets once it is open, in pieces.
pub fn check_octets(frame_max: u32, octets: &[u8], pieces: &[usize]) {
    let mut sent = handshake(frame_max, true);
    sent.extend_from_slice(octets);
    check_whole(frame_max, sent, pieces);
}

/// Plays one connection that sends these octets and nothing else, in pieces.
pub fn check_whole(frame_max: u32, octets: Vec<u8>, pieces: &[usize]) {
    let mut broker = Broker::new(1);
    let mut healthy = Healthy::new(&mut broker);
    let client = broker.connect(0);
    let mut peer = Peer::new(frame_max as usize);
    let (mut at, mut sent) = (0, 0);
    while at < octets.len() {
        let size = pieces[sent % pieces.len()].clamp(1, octets.len() - at);
        broker.send(client, &octets[at..at + size]);
        at += size;
        sent += 1;
        broker.settle();
        peer.take(&broker.take_output(client));
        let bound = memory_bound(at as u64, broker.queue_count() as u64);
        assert!(broker.octets_held() <= bound, "{} octets are held, more than {bound}", broker.octets_held());
    }
    healthy.check(&mut broker);
    broker.disconnect(client);
    broker.settle();
    healthy.check(&mut broker);
    finish(broker, healthy, 1);
    check_pieces(&[Played { octets, frame_max }], 1, pieces);
}

fn tape_pieces(octets: &[u8]) -> Vec<usize> {
    octets.iter().take(64).map(|octet| 1 + 5 * usize::from(*octet)).collect()
}

fn finish(mut broker: Broker, healthy: Healthy, shard_count: usize) {
    // Whatever expires expires now, or goes with its queue.
    broker.pass(100);
    healthy.clean_up(&mut broker);
    assert_eq!(broker.connection_count(), 0);
    assert_eq!(broker.queue_count(), 0);
    if shard_count == 1 {
        assert_eq!(broker.octets_held(), 0, "nothing is left, and nothing is held");
    }
}

/// Plays one connection until it is over, or the tape is.
fn play_connection(
    tape: &mut Tape<'_>,
    broker: &mut Broker,
    healthy: &mut Healthy,
    sent: &mut u64,
    queues: &mut u64,
) -> Played {
    let frame_max = FRAME_OCTETS_MAX[tape.below(3)];
    let mut octets = handshake(frame_max, !tape.once_in(4));
    let client = broker.connect(0);
    let mut peer = Peer::new(frame_max as usize);
    let mut view = View { frame_octets_max: frame_max as usize, ..View::default() };
    if !tape.once_in(8) {
        octets.extend(tape.beginning());
    }
    let mut next = octets.clone();
    let mut reads = true;
    loop {
        broker.send(client, &next);
        *sent += next.len() as u64;
        broker.settle();
        *queues = (*queues).max(broker.queue_count() as u64);
        let (held, bound) = (broker.octets_held(), memory_bound(*sent, *queues));
        assert!(held <= bound, "{held} octets are held, more than {bound}, after {sent} octets and {queues} queues");
        let events = peer.take(&broker.take_output(client));
        next = react(&events, &mut view);
        octets.extend_from_slice(&next);
        if !next.is_empty() {
            continue;
        }
        if tape.is_over() || broker.is_gone(client) || events.iter().any(|it| matches!(it, Event::ConnectionClosed(_)))
        {
            break;
        }
        match tape.below(64) {
            0 => healthy.check(broker),
            1 => broker.pass(u64::from(tape.octet())),
            2 => {
                reads = false;
                broker.set_reads(client, reads);
            }
            4..20 if !reads => {
                reads = true;
                broker.set_reads(client, reads);
                continue;
            }
            3 => {
                broker.set_memory_is_short(true);
                let frames = tape.frames(&view).concat();
                octets.extend_from_slice(&frames);
                broker.send(client, &frames);
                *sent += frames.len() as u64;
                broker.set_memory_is_short(false);
                continue;
            }
            _ => {}
        }
        next = tape.frames(&view).concat();
        octets.extend_from_slice(&next);
    }
    broker.disconnect(client);
    broker.settle();
    Played { octets, frame_max }
}

/// What a client that understands its mistakes answers, and what it learns.
fn react(events: &[Event], view: &mut View) -> Vec<u8> {
    let mut answer = Vec::new();
    for event in events {
        match event {
            Event::ChannelClosed(number, _) => {
                view.open[usize::from(*number)] = false;
                answer.extend(framed(*number, &channel::CloseOk {}.into()));
            }
            Event::Message { channel, tag, .. } => view.tags[usize::from(*channel)] = *tag,
            Event::Method(number, name) if usize::from(*number) < view.open.len() => match *name {
                "channel.open-ok" => {
                    view.open[usize::from(*number)] = true;
                    view.tags[usize::from(*number)] = 0;
                }
                "channel.close-ok" => view.open[usize::from(*number)] = false,
                _ => {}
            },
            Event::ConnectionClosed(_) => return framed(0, &connection::CloseOk {}.into()),
            Event::Method(..) => {}
        }
    }
    answer
}

/// The same octets, cut into pieces in any way, are answered with the same octets.
fn check_pieces(played: &[Played], shard_count: usize, pieces: &[usize]) {
    let whole = replay(played, shard_count, &[usize::MAX]);
    for pieces in [&[1][..], pieces] {
        if pieces.is_empty() {
            continue;
        }
        let cut = replay(played, shard_count, pieces);
        for (run, (whole, cut)) in played.iter().zip(whole.iter().zip(&cut)) {
            if whole == cut || ends_in_frame_error(whole, cut, run.frame_max) {
                continue;
            }
            let at = whole.iter().zip(cut).take_while(|(a, b)| a == b).count();
            let near = |octets: &[u8]| {
                let octets = &octets[at.saturating_sub(200)..octets.len().min(at + 200)];
                octets.escape_ascii().to_string()
            };
            panic!(
                "pieces matter: {} octets, or {}; they differ from {at} on:\n{}\n{}",
                whole.len(),
                cut.len(),
                near(whole),
                near(cut)
            );
        }
    }
}

/// Whether one is the other, but for what comes behind `FRAME_ERROR`: after that, where the next frame starts is a guess, made
/// where the next read starts.
fn ends_in_frame_error(a: &[u8], b: &[u8], frame_max: u32) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let events = || Peer::new(frame_max as usize).take(short);
    long.starts_with(short) && events().last() == Some(&Event::ConnectionClosed(ReplyCode::FrameError.code()))
}

fn replay(played: &[Played], shard_count: usize, pieces: &[usize]) -> Vec<Vec<u8>> {
    let mut broker = Broker::new(shard_count);
    let mut outputs = Vec::new();
    for Played { octets, frame_max } in played {
        let client = broker.connect(0);
        let (mut at, mut sizes) = (0, pieces.iter().cycle());
        while at < octets.len() {
            let size = sizes.next().copied().unwrap_or(1).min(octets.len() - at);
            broker.send(client, &octets[at..at + size]);
            at += size;
        }
        broker.settle();
        let output = broker.take_output(client);
        Peer::new(*frame_max as usize).take(&output);
        outputs.push(output);
        broker.disconnect(client);
        broker.settle();
    }
    outputs
}
