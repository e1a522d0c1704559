//! One consumer: its connection, its loop, what it tells in the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lepus::protocol::frame::{FrameKind, take_frame};
use lepus::protocol::method::{Method, basic};
use lepus::protocol::properties::content_header;

use crate::batch::NO_ARGUMENTS;
use crate::client::{CHANNEL, Client, ClientError, check_close, is_timeout};
use crate::clock::Clock;
use crate::options::RunOptions;
use crate::progress::{Latencies, Progress};
use crate::sequence::{Lane, Progression, Readers};
use crate::stamp::Stamp;
use crate::topology::Topology;

/// How often one looks up from waiting for messages.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Producers of an earlier run whose messages are told apart.
const EARLIER_PRODUCERS_MAX: usize = 64;

/// What a consumer tells in the end.
pub struct ConsumerReport {
    /// Its lanes: by queue, then by producer.
    pub lanes: Vec<((usize, usize), Lane)>,
    /// Messages whose stamp is none of this run's.
    pub foreign: u64,
}

/// A consumer that is connected and has yet to begin.
pub struct Consumer<'r> {
    client: Client,
    index: usize,
    /// Its queues. The consumer tag is the index in here.
    queues: Vec<usize>,
    queue_names: Vec<String>,
    auto_ack: bool,
    multi_ack_every: u64,
    clock: Clock,
    progress: &'r Progress,
    state: Receiving,
}

/// What changes with each frame.
struct Receiving {
    /// Index of the queue of the message that is being received.
    queue: usize,
    delivery_tag: u64,
    body_left: u64,
    is_body_begun: bool,
    received: u64,
    unacknowledged: u64,
    lanes: Vec<Lane>,
    lanes_per_queue: usize,
    foreign: u64,
    /// Acknowledgements that wait to be written.
    output: Vec<u8>,
    measures_response: bool,
    measures_service: bool,
    consumers_started: usize,
    is_closed: bool,
}

impl<'r> Consumer<'r> {
    /// Connects, and sets the prefetch.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub fn connect(
        options: &RunOptions,
        topology: &Topology,
        index: usize,
        clock: Clock,
        progress: &'r Progress,
    ) -> Result<Self, ClientError> {
        let mut client = Client::open(&options.uri, &format!("lepus-perf consumer {index}"))?;
        if options.prefetch > 0 {
            let qos = basic::Qos { prefetch_size: 0, prefetch_count: options.prefetch, global: false };
            client.request(&Method::BasicQos(qos), "basic.qos-ok", |method| {
                matches!(method, Method::BasicQosOk(_)).then_some(())
            })?;
        }
        let queues = topology.queues_of(index, options.consumers);
        let lanes_per_queue = if options.producers > 0 { options.producers } else { EARLIER_PRODUCERS_MAX };
        let mut lanes = Vec::with_capacity(queues.len() * lanes_per_queue);
        for &queue in &queues {
            let (progression, readers) = match topology.readers_of(queue, options.consumers) {
                _ if options.producers == 0 => (Progression { first: 0, stride: 1 }, Readers::Unknown),
                1 => (topology.progression(queue), Readers::One),
                _ => (topology.progression(queue), Readers::Several),
            };
            lanes.resize(lanes.len() + lanes_per_queue, Lane::new(progression, readers));
        }
        let state = Receiving {
            queue: 0,
            delivery_tag: 0,
            body_left: 0,
            is_body_begun: false,
            received: 0,
            unacknowledged: 0,
            lanes,
            lanes_per_queue,
            foreign: 0,
            output: Vec::with_capacity(64 << 10),
            measures_response: options.rate.is_some(),
            measures_service: options.producers > 0,
            consumers_started: 0,
            is_closed: false,
        };
        Ok(Self {
            client,
            index,
            queue_names: queues.iter().map(|&queue| topology.queues[queue].clone()).collect(),
            queues,
            auto_ack: options.auto_ack,
            multi_ack_every: options.multi_ack_every,
            clock,
            progress,
            state,
        })
    }

    /// Consumes until it is told to stop; then closes the connection in good order.
    ///
    /// # Errors
    /// Where the connection fails before the end.
    pub fn run(mut self) -> Result<ConsumerReport, ClientError> {
        for (tag, queue) in self.queue_names.iter().enumerate() {
            let tag = tag.to_string();
            let consume = basic::Consume {
                queue: queue.as_bytes(),
                consumer_tag: tag.as_bytes(),
                no_local: false,
                no_ack: self.auto_ack,
                exclusive: false,
                no_wait: false,
                arguments: NO_ARGUMENTS,
            };
            // The answer comes with the first messages.
            self.client.send(CHANNEL, &Method::BasicConsume(consume))?;
        }
        let failed = |error| ClientError::Io("setting a time limit".to_owned(), error);
        self.client.socket.set_read_timeout(Some(LOOK_UP)).map_err(failed)?;
        while !self.progress.consumers_stopped() {
            self.turn()?;
        }
        self.acknowledge_rest()?;
        self.client.ask_to_close()?;
        while !self.state.is_closed && self.turn()? {}
        Ok(self.into_report())
    }

    /// Reads once and handles all that came. `false` where nothing came in time, or ever will.
    fn turn(&mut self) -> Result<bool, ClientError> {
        match self.client.input.read(&mut self.client.socket) {
            Ok(0) if self.state.is_closed || self.progress.consumers_stopped() => {
                self.state.is_closed = true;
                return Ok(false);
            }
            Ok(0) => return Err(ClientError::Ended),
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {
                self.acknowledge_rest()?;
                return Ok(false);
            }
            Err(error) => return Err(ClientError::Io("receiving".to_owned(), error)),
        }
        self.handle_input()?;
        self.progress.received[self.index].set(self.state.received);
        if !self.state.output.is_empty() {
            let output = std::mem::take(&mut self.state.output);
            self.client.write(&output)?;
            self.state.output = output;
            self.state.output.clear();
        }
        Ok(true)
    }

    fn handle_input(&mut self) -> Result<(), ClientError> {
        let now = self.clock.nanos();
        let thread = self.progress.published.len() + self.index;
        let mut latencies = self.progress.latencies[thread].lock().expect("nobody panics with it");
        let state = &mut self.state;
        let ack_every = if self.auto_ack { u64::MAX } else { self.multi_ack_every };
        let mut input = self.client.input.unread();
        let unread_octets = input.len();
        let mut heartbeats = 0;
        while let Some((frame, used)) = take_frame(input, self.client.frame_octets_max)? {
            input = &input[used..];
            let is_whole = match frame.kind {
                FrameKind::Method => {
                    state.handle_method(frame.payload)?;
                    false
                }
                FrameKind::Header => state.handle_header(frame.payload)?,
                FrameKind::Body => state.handle_body(frame.payload, now, &mut latencies),
                FrameKind::Heartbeat => {
                    heartbeats += 1;
                    false
                }
            };
            if is_whole {
                state.finish_message(ack_every);
            }
        }
        drop(latencies);
        let used = unread_octets - input.len();
        self.client.input.consume(used);
        if state.consumers_started == self.queues.len() {
            state.consumers_started = 0;
            self.progress.consumers_ready.fetch_add(1, Ordering::Relaxed);
        }
        for _ in 0..heartbeats {
            self.client.send_heartbeat()?;
        }
        Ok(())
    }

    /// Acknowledges what is left of a row shorter than `--multi-ack-every`.
    fn acknowledge_rest(&mut self) -> Result<(), ClientError> {
        if self.auto_ack || self.state.unacknowledged == 0 {
            return Ok(());
        }
        self.state.unacknowledged = 0;
        let ack = basic::Ack { delivery_tag: self.state.delivery_tag, multiple: true };
        self.client.send(CHANNEL, &Method::BasicAck(ack))
    }

    fn into_report(self) -> ConsumerReport {
        let Receiving { lanes, lanes_per_queue, foreign, .. } = self.state;
        let names = self.queues.iter().flat_map(|&queue| (0..lanes_per_queue).map(move |producer| (queue, producer)));
        ConsumerReport { lanes: names.zip(lanes).collect(), foreign }
    }
}

impl Receiving {
    #[inline]
    fn handle_method(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        if let Some((consumer_tag, delivery_tag)) = peek_deliver(payload) {
            self.queue = if self.lanes.len() == self.lanes_per_queue { 0 } else { queue_of(consumer_tag) };
            self.delivery_tag = delivery_tag;
            return Ok(());
        }
        let method = Method::decode(payload)?;
        match method {
            Method::BasicConsumeOk(_) => self.consumers_started += 1,
            Method::BasicCancel(_) => {
                return Err(ClientError::Unexpected("messages", "basic.cancel: the queue is gone".to_owned()));
            }
            Method::ConnectionCloseOk(_) => self.is_closed = true,
            _ => check_close(&method)?,
        }
        Ok(())
    }

    /// Returns whether the message is whole: its body is empty, so it is none of ours.
    #[inline]
    fn handle_header(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
        let header = content_header(payload).map_err(|fault| ClientError::Malformed(fault.into()))?;
        self.body_left = header.body_size;
        self.is_body_begun = false;
        if self.body_left == 0 {
            self.foreign += 1;
        }
        Ok(self.body_left == 0)
    }

    /// Returns whether the message is whole.
    #[inline]
    fn handle_body(&mut self, payload: &[u8], now: u64, latencies: &mut Latencies) -> bool {
        if !self.is_body_begun {
            self.is_body_begun = true;
            self.handle_stamp(payload, now, latencies);
        }
        self.body_left = self.body_left.saturating_sub(payload.len() as u64);
        self.body_left == 0
    }

    #[inline]
    fn handle_stamp(&mut self, body: &[u8], now: u64, latencies: &mut Latencies) {
        let stamp = Stamp::read(body).filter(|stamp| usize::from(stamp.producer) < self.lanes_per_queue);
        let Some(stamp) = stamp else {
            self.foreign += 1;
            return;
        };
        let lane = self.queue * self.lanes_per_queue + usize::from(stamp.producer);
        let Some(lane) = self.lanes.get_mut(lane) else {
            self.foreign += 1;
            return;
        };
        lane.receive(stamp.sequence);
        if let Some(times) = stamp.times
            && self.measures_service
        {
            latencies.service.record(now.saturating_sub(times.sent));
            if self.measures_response {
                latencies.response.record(now.saturating_sub(times.intended));
            }
        }
    }

    #[inline]
    fn finish_message(&mut self, ack_every: u64) {
        self.received += 1;
        self.unacknowledged += 1;
        if self.unacknowledged >= ack_every {
            self.unacknowledged = 0;
            let ack = basic::Ack { delivery_tag: self.delivery_tag, multiple: ack_every > 1 };
            Method::BasicAck(ack).put(&mut self.output, CHANNEL);
        }
    }
}

/// Reads the front of `basic.deliver` without its strings: consumer tag and delivery tag.
#[inline]
fn peek_deliver(payload: &[u8]) -> Option<(&[u8], u64)> {
    let arguments = payload.strip_prefix(&[0, 60, 0, 60])?;
    let (&tag_octets, rest) = arguments.split_first()?;
    let (consumer_tag, rest) = rest.split_at_checked(usize::from(tag_octets))?;
    Some((consumer_tag, u64::from_be_bytes(*rest.first_chunk()?)))
}

/// The queue's index, which we have made the consumer tag.
#[inline]
fn queue_of(consumer_tag: &[u8]) -> usize {
    consumer_tag.iter().fold(0, |index, digit| index * 10 + usize::from(digit.wrapping_sub(b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the short way of reading a delivery agrees with the codec, and refuses what is no delivery.
    #[test]
    fn peeking_agrees_with_the_codec() {
        let deliver = basic::Deliver {
            consumer_tag: b"317",
            delivery_tag: 0x0102_0304_0506_0708,
            redelivered: true,
            exchange: b"e",
            routing_key: b"k",
        };
        let mut payload = Vec::new();
        Method::BasicDeliver(deliver).encode(&mut payload);
        assert_eq!(peek_deliver(&payload), Some((&b"317"[..], 0x0102_0304_0506_0708)));
        assert_eq!(queue_of(b"317"), 317);
        for length in 0..payload.len() - 5 {
            assert!(peek_deliver(&payload[..length]).is_none(), "{length} octets");
        }
        payload[3] = 61;
        assert!(peek_deliver(&payload).is_none());
    }
}
