//! One channel that receives: from consumers, by `basic.get`, as a server or a client of RPC.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use lepus::protocol::content::put_content;
use lepus::protocol::method::{Method, basic};
use lepus::protocol::properties::{ContentHeader, Properties};

use crate::engine::Shared;
use crate::engine::client::ClientError;
use crate::engine::clock::nanos;
use crate::engine::delivery::Delivery;
use crate::engine::receiving::{Received, Receiving};
use crate::engine::recorder::Recorder;
use crate::engine::sequence::{Lane, Progression, Readers};
use crate::engine::stamp::Stamp;
use crate::engine::topology::NO_ARGUMENTS;
use crate::options::{RunOptions, Workload};

/// How long acknowledgements may wait for others, in nanoseconds.
const ACKNOWLEDGE_AFTER_NANOS: u64 = 50_000_000;
/// A consumer that works at messages takes so many beforehand at most.
const WORK_MAX: usize = 65_536;
/// Where nothing is acknowledged, one that works at messages takes so much of them beforehand, in nanoseconds.
const WORK_AHEAD_NANOS: u64 = 20_000_000;
/// Producers of an earlier run whose messages are found without a search.
const EARLIER_PRODUCERS: usize = 64;

/// How it comes to its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Consumers.
    Consume,
    /// `basic.get`, one after the other.
    Get,
    /// Consumers, and each message is answered.
    Serve,
    /// Replies to requests, on this queue.
    Replies(String),
}

/// See the module's documentation.
pub struct Sink {
    /// Its channel.
    pub channel: u16,
    /// How it comes to messages.
    pub mode: Mode,
    /// Consumers that the broker has started.
    pub consumers_started: usize,
    /// Messages that came and were none of this run's, or not as they were sent.
    pub corrupted: u64,
    /// Messages that the run's end came before in the row of those to be worked at.
    pub unworked: u64,
    /// Numbers of its queues in the run.
    pub queues: Vec<usize>,
    names: Vec<String>,
    no_ack: bool,
    ack_every: u64,
    nack_share: f64,
    requeue: bool,
    processing: Option<u64>,
    measures_response: bool,
    measures_service: bool,
    random: Rng,
    receiving: Receiving,
    /// Index of the queue of the message that is being received.
    queue: usize,
    delivery_tag: u64,
    is_redelivered: bool,
    reply_to: Vec<u8>,
    /// By queue, then by producer.
    lanes: Vec<Option<Box<Lane>>>,
    /// Those of further producers of an earlier run, by queue and producer.
    earlier_lanes: BTreeMap<(usize, usize), Lane>,
    is_earlier: bool,
    /// Producers in `lanes`, from this on.
    first_producer: usize,
    producers: usize,
    readers: Vec<(Progression, Readers)>,
    unacknowledged: u64,
    unacknowledged_since: u64,
    last_tag: u64,
    /// Messages that are worked at: when that is done, and their tags.
    work: VecDeque<(u64, u64)>,
    work_done_at: u64,
    get_sent_at: Option<u64>,
    get_next_at: u64,
    /// Index of the queue that is asked next.
    get_next: usize,
    /// Queues that were empty, one after the other.
    get_empty_count: usize,
    polling_nanos: u64,
    pub(super) has_begun: bool,
}

impl Sink {
    /// Nothing has come yet. `number` is its own among all of the run.
    pub fn new(shared: &Shared, number: usize, channel: u16, mode: Mode) -> Self {
        let (options, topology) = (&shared.options, &shared.topology);
        let (queues, names) = if let Mode::Replies(queue) = &mode {
            (vec![0], vec![queue.clone()])
        } else {
            let queues = topology.queues_of(number, options.sinks());
            let names = queues.iter().map(|&queue| topology.queues[queue].clone()).collect();
            (queues, names)
        };
        let is_reply = matches!(mode, Mode::Replies(_));
        let (first_producer, producers) = match options.sources() {
            // The number is that of its client.
            _ if is_reply => (number, 1),
            0 => (0, EARLIER_PRODUCERS),
            sources => (0, sources),
        };
        let has_keys = topology.copies == 1 && shared.trace.iter().flatten().any(|line| line.routing_key.is_some());
        let readers = |&queue: &usize| match topology.readers_of(queue, options.sinks()) {
            _ if is_reply => (Progression::EACH, Readers::One),
            _ if options.producers == 0 => (Progression::EACH, Readers::Unknown),
            // Which queue a key leads to is the user's affair.
            _ if has_keys => (Progression::EACH, Readers::Several),
            1 => (topology.progression(queue), Readers::One),
            _ => (topology.progression(queue), Readers::Several),
        };
        Self {
            channel,
            consumers_started: 0,
            corrupted: 0,
            unworked: 0,
            readers: queues.iter().map(readers).collect(),
            lanes: vec![None; queues.len() * producers],
            earlier_lanes: BTreeMap::new(),
            is_earlier: options.producers == 0,
            first_producer,
            producers,
            queues,
            names,
            no_ack: options.auto_ack || matches!(mode, Mode::Replies(_)),
            ack_every: options.multi_ack_every,
            nack_share: options.nack_share,
            requeue: options.requeue,
            processing: options.processing().map(nanos),
            measures_response: options.is_open_loop(),
            measures_service: measures_service(options),
            random: Rng::with_seed(options.seed ^ ((number as u64 + 1) << 20)),
            receiving: Receiving::new(mode == Mode::Serve),
            mode,
            queue: 0,
            delivery_tag: 0,
            is_redelivered: false,
            reply_to: Vec::new(),
            unacknowledged: 0,
            unacknowledged_since: 0,
            last_tag: 0,
            work: VecDeque::new(),
            work_done_at: 0,
            get_sent_at: None,
            get_next_at: 0,
            get_next: 0,
            get_empty_count: 0,
            polling_nanos: options.polling_interval * 1000,
            has_begun: false,
        }
    }

    /// Starts its consumers, where it has any.
    pub fn begin(&mut self, output: &mut Vec<u8>) {
        self.has_begun = true;
        if self.mode == Mode::Get {
            return;
        }
        for (tag, queue) in self.names.iter().enumerate() {
            let tag = tag.to_string();
            let consume = basic::Consume {
                queue: queue.as_bytes(),
                consumer_tag: tag.as_bytes(),
                no_local: false,
                no_ack: self.no_ack,
                exclusive: false,
                no_wait: false,
                arguments: NO_ARGUMENTS,
            };
            Method::BasicConsume(consume).put(output, self.channel);
        }
    }

    /// Whether all of its consumers are started.
    pub fn is_ready(&self) -> bool {
        self.mode == Mode::Get || self.consumers_started >= self.names.len()
    }

    /// `basic.deliver`.
    #[inline]
    pub fn handle_deliver(&mut self, consumer_tag: &[u8], delivery_tag: u64, is_redelivered: bool) {
        self.queue = if self.queues.len() == 1 { 0 } else { queue_of(consumer_tag) };
        self.delivery_tag = delivery_tag;
        self.is_redelivered = is_redelivered;
    }

    /// A delivery that is there whole; [`Sink::finish_message`] is to follow.
    #[inline]
    pub fn handle_delivery(&mut self, delivery: &Delivery<'_>, now: u64, recorder: &mut Recorder) {
        self.handle_deliver(delivery.consumer_tag, delivery.delivery_tag, delivery.is_redelivered);
        match Receiving::received_whole(delivery.body, now) {
            Received::Message(stamp) => self.handle_stamp(stamp, delivery.body.len(), now, recorder),
            Received::Corrupted => self.corrupted += 1,
        }
    }

    /// `basic.get-ok`.
    pub fn handle_get_ok(&mut self, get_ok: &basic::GetOk<'_>, now: u64, recorder: &mut Recorder) {
        self.delivery_tag = get_ok.delivery_tag;
        self.is_redelivered = get_ok.redelivered;
        self.get_empty_count = 0;
        if let Some(sent_at) = self.get_sent_at.take() {
            recorder.answered += 1;
            recorder.round_trip(now - sent_at);
        }
    }

    /// `basic.get-empty`: where no queue has had anything, they are asked again after a while.
    pub fn handle_get_empty(&mut self, now: u64) {
        self.get_sent_at = None;
        self.get_empty_count += 1;
        if self.get_empty_count >= self.names.len() {
            self.get_empty_count = 0;
            self.get_next_at = now + self.polling_nanos;
        }
    }

    /// A content header. Returns whether that was the whole message.
    ///
    /// # Errors
    /// Where a request cannot be read.
    #[inline]
    pub fn handle_header(&mut self, header: &ContentHeader<'_>) -> Result<bool, ClientError> {
        if self.mode == Mode::Serve {
            let properties =
                Properties::decode(header.properties).map_err(|fault| ClientError::Malformed(fault.into()))?;
            self.reply_to.clear();
            self.reply_to.extend_from_slice(properties.reply_to.unwrap_or_default());
        }
        let is_whole = self.receiving.begin(header.body_size);
        self.corrupted += u64::from(is_whole);
        Ok(is_whole)
    }

    /// Some of a body. Returns whether the message is whole.
    #[inline]
    pub fn handle_body(&mut self, part: &[u8], now: u64, recorder: &mut Recorder) -> bool {
        match self.receiving.push(part, now) {
            None => return false,
            Some(Received::Message(stamp)) => self.handle_stamp(stamp, part.len(), now, recorder),
            Some(Received::Corrupted) => self.corrupted += 1,
        }
        true
    }

    #[inline]
    fn handle_stamp(&mut self, stamp: Stamp, part_octets: usize, now: u64, recorder: &mut Recorder) {
        if self.is_redelivered {
            recorder.redelivered += 1;
            return;
        }
        let producer = usize::from(stamp.producer).wrapping_sub(self.first_producer);
        let (progression, readers) = self.readers[self.queue];
        if producer < self.producers {
            let lane = &mut self.lanes[self.queue * self.producers + producer];
            let new = || Box::new(Lane::new(progression.of_producer(usize::from(stamp.producer)), readers));
            lane.get_or_insert_with(new).receive(stamp.sequence);
        } else if self.is_earlier {
            let lane = self.earlier_lanes.entry((self.queue, producer));
            lane.or_insert_with(|| Lane::new(progression, readers)).receive(stamp.sequence);
        } else {
            self.corrupted += 1;
            return;
        }
        if let Mode::Replies(_) = self.mode {
            let since = if self.measures_response { stamp.intended } else { stamp.sent() };
            recorder.round_trip(now.saturating_sub(since));
            return;
        }
        // A message that waits for its turn is not there yet for whoever works at it.
        let now = if self.processing.is_some() { self.work_done_at.max(now) } else { now };
        if self.measures_service && (stamp.intended > 0 || part_octets >= crate::engine::stamp::STAMP_OCTETS) {
            let response = self.measures_response.then(|| now.saturating_sub(stamp.intended));
            recorder.received(response, now.saturating_sub(stamp.sent()));
        }
    }

    /// A message is whole: it is answered, counted, and settled now or when the work at it is done.
    #[inline]
    pub fn finish_message(&mut self, now: u64, recorder: &mut Recorder, output: &mut Vec<u8>, frame_octets_max: usize) {
        match self.mode {
            Mode::Replies(_) => {
                recorder.counts.operations += 1;
                return;
            }
            Mode::Serve => {
                let (exchange, routing_key) = (&b""[..], &self.reply_to[..]);
                let reply = basic::Publish { exchange, routing_key, mandatory: false, immediate: false };
                Method::BasicPublish(reply).put(output, self.channel);
                put_content(output, self.channel, &[0, 0], &self.receiving.body, frame_octets_max);
            }
            Mode::Consume | Mode::Get => {}
        }
        recorder.counts.received += 1;
        if let Some(processing) = self.processing {
            self.work_done_at = self.work_done_at.max(now) + processing;
            self.work.push_back((self.work_done_at, self.delivery_tag));
        } else if !self.no_ack {
            self.settle(self.delivery_tag, now, recorder, output);
        }
    }

    #[inline]
    fn settle(&mut self, tag: u64, now: u64, recorder: &mut Recorder, output: &mut Vec<u8>) {
        if self.nack_share > 0.0 && self.random.f64() < self.nack_share {
            Method::BasicNack(basic::Nack { delivery_tag: tag, multiple: false, requeue: self.requeue })
                .put(output, self.channel);
            recorder.counts.requeued += u64::from(self.requeue);
            recorder.counts.rejected += u64::from(!self.requeue);
            return;
        }
        if self.unacknowledged == 0 {
            self.unacknowledged_since = now;
        }
        self.unacknowledged += 1;
        self.last_tag = tag;
        if self.unacknowledged >= self.ack_every {
            self.acknowledge(recorder, output);
        }
    }

    /// Acknowledges what is done and not yet acknowledged.
    fn acknowledge(&mut self, recorder: &mut Recorder, output: &mut Vec<u8>) {
        if self.unacknowledged > 0 {
            let ack = basic::Ack { delivery_tag: self.last_tag, multiple: self.unacknowledged > 1 };
            Method::BasicAck(ack).put(output, self.channel);
            recorder.counts.acknowledged += self.unacknowledged;
            self.unacknowledged = 0;
        }
    }

    /// Does what is due at `now`. `is_over`: everything. `is_draining`: work takes no time any more, though latencies count
    /// as if it did. Returns when there is more to do.
    pub fn advance(
        &mut self,
        now: u64,
        is_draining: bool,
        is_over: bool,
        recorder: &mut Recorder,
        output: &mut Vec<u8>,
    ) -> u64 {
        while let Some(&(done_at, tag)) = self.work.front()
            && (done_at <= now || is_draining || is_over)
        {
            self.work.pop_front();
            self.unworked += u64::from(done_at > now);
            if !self.no_ack {
                self.settle(tag, now, recorder, output);
            }
        }
        let mut next = self.work.front().map_or(u64::MAX, |&(done_at, _)| done_at);
        if self.unacknowledged > 0 {
            let until = self.unacknowledged_since + ACKNOWLEDGE_AFTER_NANOS;
            if until <= now || is_over {
                self.acknowledge(recorder, output);
            } else {
                next = next.min(until);
            }
        }
        if self.mode == Mode::Get && self.has_begun && self.get_sent_at.is_none() && !is_over {
            let is_busy = self.work.front().map(|&(done_at, _)| done_at);
            match is_busy {
                Some(done_at) => next = next.min(done_at),
                None if self.get_next_at > now => next = next.min(self.get_next_at),
                None => {
                    self.queue = self.get_next;
                    self.get_next = (self.get_next + 1) % self.names.len();
                    let queue = self.names[self.queue].as_bytes();
                    Method::BasicGet(basic::Get { queue, no_ack: self.no_ack }).put(output, self.channel);
                    self.get_sent_at = Some(now);
                }
            }
        }
        next
    }

    /// Whether it has so much to work at that it takes nothing more for now.
    pub fn is_busy(&self, now: u64) -> bool {
        self.work.len() > WORK_MAX || self.no_ack && self.work_done_at > now + WORK_AHEAD_NANOS && !self.work.is_empty()
    }

    /// What it has seen of each queue and producer.
    pub fn into_lanes(self) -> impl Iterator<Item = ((usize, usize), Lane)> {
        let Self { lanes, earlier_lanes, first_producer, producers, queues, .. } = self;
        let lanes = lanes.into_iter().enumerate();
        let lanes = lanes.filter_map(move |(index, lane)| Some(((index / producers, index % producers), *lane?)));
        let name = move |((queue, producer), lane)| ((queues[queue], first_producer + producer), lane);
        lanes.chain(earlier_lanes).map(name)
    }
}

fn measures_service(options: &RunOptions) -> bool {
    options.producers > 0 && options.workload != Workload::Backlog
}

/// The queue's index, which we have made the consumer tag.
#[inline]
fn queue_of(consumer_tag: &[u8]) -> usize {
    consumer_tag.iter().fold(0, |index, digit| index * 10 + usize::from(digit.wrapping_sub(b'0')))
}
