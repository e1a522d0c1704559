//! One channel that publishes: what it has sent, what it may send now, and when the next message is due.

use std::sync::Arc;

use lepus::protocol::method::{Method, tx};

use crate::engine::Shared;
use crate::engine::batch::Batch;
use crate::engine::check::under_way;
use crate::engine::clock::Schedule;
use crate::engine::confirms::{ConfirmWindow, Settled};
use crate::engine::recorder::Recorder;
use crate::engine::sequence::NotTaken;
use crate::engine::stamp::Stamp;
use crate::options::Workload;
use crate::options::arrivals::Arrivals;

/// How long a broker may take nothing, and confirm nothing, once the run is over, in nanoseconds.
pub const STALL_NANOS: u64 = 10_000_000_000;
/// How long to rest where too many messages are in flight, unless this thread receives some before.
const IN_FLIGHT_REST_NANOS: u64 = 200_000;
/// A producer that was held up by the broker, and is late, is late because of it for so long.
const HELD_UP_NANOS: u64 = 100_000_000;

/// What a channel wants to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Publish as many messages.
    Publish(usize),
    /// Nothing before this time.
    Wait(u64),
    /// Nothing before the broker has answered.
    Answer,
    /// Nothing before messages were received, and to be asked again at this time, as another thread may have received them.
    Room(u64),
    /// Nothing any more.
    Nothing,
}

impl Want {
    /// This, or something at a time: whatever comes first.
    pub fn or_at(self, at: u64) -> Self {
        match self {
            Self::Wait(other) => Self::Wait(at.min(other)),
            _ => Self::Wait(at),
        }
    }
}

/// See the module's documentation.
pub struct Source {
    /// Its channel.
    pub channel: u16,
    /// Its number among all of the run.
    pub index: u16,
    /// Its messages.
    pub batch: Batch,
    /// Confirms that it waits for.
    pub window: Option<ConfirmWindow>,
    /// Messages written whole.
    pub published: u64,
    /// Messages that were refused or returned.
    pub not_taken: NotTaken,
    /// Messages that should have been sent and were not.
    pub unsent: u64,
    /// Requests without a reply.
    pub requests: u64,
    /// Octets of a returned message that are still to come, and whether none has come.
    returning: Option<(u64, bool)>,
    /// The transaction is being committed, since then.
    pub committing_since: Option<u64>,
    requests_max: u64,
    in_transaction: u64,
    transaction_max: Option<u64>,
    count_max: u64,
    arrivals: Option<Arrivals>,
    in_flight_max: Option<u64>,
    /// The broker holds it up.
    is_held_up: bool,
    /// When the broker held it up last; 0 where it has caught up since.
    held_up_at: u64,
    intended: Vec<u64>,
    has_started: bool,
    has_given_up: bool,
}

impl Source {
    /// Nothing has been sent yet.
    pub fn new(shared: &Shared, index: u16, channel: u16, frame_octets_max: usize, reply_to: Option<String>) -> Self {
        let options = &shared.options;
        let sources = options.sources() as u64;
        let number = u64::from(index);
        let (share, rest) = match options.count {
            Some(count) => (count / sources, count % sources),
            None => (u64::MAX, 0),
        };
        let trace = shared.trace.as_ref().map(|trace| {
            let mine = trace.iter().skip(usize::from(index)).step_by(options.sources());
            mine.cloned().collect::<Vec<_>>()
        });
        let arrivals = match (&trace, options.profile()) {
            (Some(trace), _) => Some(Arrivals::of_trace(trace.iter().map(|line| line.offset).collect())),
            (None, Some(profile)) => Some(Arrivals::new(profile, options.arrivals, sources, number, options.seed)),
            (None, None) => None,
        };
        let is_rpc = options.workload == Workload::Rpc;
        let seed = options.seed.wrapping_add(number << 32);
        Self {
            channel,
            index,
            batch: Batch::new(Arc::clone(&shared.content), (index, channel), frame_octets_max, seed, reply_to, trace),
            window: options.confirm.map(|window| ConfirmWindow::new(window, options.is_open_loop())),
            published: 0,
            not_taken: NotTaken::default(),
            unsent: 0,
            requests: 0,
            returning: None,
            committing_since: None,
            requests_max: if is_rpc && arrivals.is_none() { options.in_flight.unwrap_or(1) } else { u64::MAX },
            in_transaction: 0,
            transaction_max: options.tx_size,
            count_max: share.saturating_add(u64::from(number < rest)),
            arrivals,
            in_flight_max: options.messages_in_flight_max(),
            is_held_up: false,
            held_up_at: 0,
            intended: Vec::new(),
            has_started: false,
            has_given_up: false,
        }
    }

    /// The broker holds it up: it takes nothing, or has to answer first, and there is nothing from it to be read.
    pub fn hold_up(&mut self) {
        self.is_held_up = true;
    }

    /// What it wants to do now.
    pub fn want(&mut self, shared: &Shared, schedule: Schedule, now: u64) -> Want {
        if now < schedule.start {
            return Want::Wait(schedule.start);
        }
        if let Some(arrivals) = &mut self.arrivals
            && !self.has_started
        {
            arrivals.start_at(schedule.start);
        }
        self.has_started = true;
        if self.is_done(shared, schedule, now) {
            return Want::Nothing;
        }
        if self.committing_since.is_some() {
            return Want::Answer;
        }
        if let Some(arrivals) = &self.arrivals
            && arrivals.next() > now
        {
            (self.is_held_up, self.held_up_at) = (false, 0);
            return Want::Wait(arrivals.next());
        }
        let room = self.room(shared);
        match room {
            Want::Publish(count) => Want::Publish(self.due(count, now.min(schedule.end - 1))),
            other => other,
        }
    }

    /// Whether it has nothing more to send: all is sent, or the time is over. What was due before the end is sent all the same,
    /// until it is too late, or the run is stopped: then it is counted as unsent.
    pub fn is_done(&mut self, shared: &Shared, schedule: Schedule, now: u64) -> bool {
        if self.has_given_up || self.published + self.unsent >= self.count_max || self.batch.room() == 0 {
            return true;
        }
        let Some(arrivals) = &self.arrivals else { return shared.is_producing_over() || now >= schedule.end };
        if arrivals.next() >= schedule.end {
            return true;
        }
        if shared.is_stopped() || now > schedule.catch_up_until() {
            self.give_up(now.min(schedule.end));
        }
        self.has_given_up
    }

    /// How many messages may be sent at most.
    fn room(&self, shared: &Shared) -> Want {
        let mut room = (self.batch.room() as u64).min(self.count_max - self.published);
        room = room.min(self.requests_max.saturating_sub(self.requests));
        if let Some(transaction_max) = self.transaction_max {
            room = room.min(transaction_max - self.in_transaction);
        }
        if let Some(window) = &self.window {
            if window.is_nearly_full() {
                return Want::Answer;
            }
            room = room.min(window.room());
        }
        if let Some(in_flight_max) = self.in_flight_max {
            let totals = shared.totals();
            let in_flight = under_way(totals, &shared.options, &shared.topology).div_ceil(shared.topology.copies);
            room = room.min(in_flight_max.saturating_sub(in_flight));
            if room == 0 {
                return Want::Room(shared.clock.nanos() + IN_FLIGHT_REST_NANOS);
            }
        }
        if room == 0 { Want::Answer } else { Want::Publish(usize::try_from(room).expect("bounded by the batch")) }
    }

    /// How many of so many messages are due; keeps when each was to be sent.
    fn due(&mut self, count: usize, now: u64) -> usize {
        let Some(arrivals) = &mut self.arrivals else { return count };
        self.intended.clear();
        while self.intended.len() < count && arrivals.next() <= now {
            self.intended.push(arrivals.next());
            arrivals.advance();
        }
        self.intended.len()
    }

    /// Stamps the next messages, which [`Source::want`] has told.
    pub fn stamp(&mut self, count: usize, now: u64, recorder: &mut Recorder) {
        let (producer, mut sequence) = (self.index, low_half(self.published));
        let mut next = || {
            sequence = sequence.wrapping_add(1);
            sequence.wrapping_sub(1)
        };
        if self.arrivals.is_none() {
            self.batch.stamp(count, || Stamp { producer, sequence: next(), intended: now, lag: 0 });
        } else {
            if std::mem::take(&mut self.is_held_up) {
                self.held_up_at = now;
            }
            let is_own = now.saturating_sub(self.held_up_at) > HELD_UP_NANOS;
            let mut intended = self.intended.iter();
            self.batch.stamp(count, || {
                let intended = *intended.next().expect("as many as are due");
                let lag = now.saturating_sub(intended);
                recorder.send_lag(lag, is_own);
                Stamp { producer, sequence: next(), intended, lag }
            });
        }
        if let Some(window) = &mut self.window {
            window.publish(count as u64, now, &self.intended);
        }
    }

    /// So many of the stamped messages were written whole, and the others never will be.
    pub fn written(&mut self, stamped: usize, whole: usize, recorder: &mut Recorder) {
        if whole < stamped {
            self.unsent += (stamped - whole) as u64;
            if let Some(window) = &mut self.window {
                window.take_back((stamped - whole) as u64);
            }
        }
        recorder.counts.published_octets += self.batch.body_octets(whole);
        self.batch.advance(whole);
        self.published += whole as u64;
        self.in_transaction += whole as u64;
        self.requests += if self.requests_max == u64::MAX { 0 } else { whole as u64 };
        recorder.counts.published += whole as u64;
    }

    /// Ends the transaction where it is full, or `is_last`.
    pub fn commit(&mut self, is_last: bool, now: u64, output: &mut Vec<u8>) {
        let Some(transaction_max) = self.transaction_max else { return };
        let is_due = self.in_transaction == transaction_max || is_last && self.in_transaction > 0;
        if is_due && self.committing_since.is_none() {
            Method::TxCommit(tx::Commit {}).put(output, self.channel);
            self.in_transaction = 0;
            self.committing_since = Some(now);
        }
    }

    /// Confirms have come.
    #[inline]
    pub fn settle(&mut self, settled: Settled, now: u64, recorder: &mut Recorder) {
        if let Some(window) = &mut self.window {
            window.settle(settled, now, &mut self.not_taken, recorder);
        }
    }

    /// `basic.return`: header and body of the message are to follow.
    pub fn handle_return(&mut self) {
        self.returning = Some((0, true));
    }

    /// A content header. Whether it was that of a returned message.
    pub fn handle_header(&mut self, body_octets: u64) -> bool {
        let is_returning = self.returning.is_some();
        if is_returning {
            self.returning = Some((body_octets, true)).filter(|_| body_octets > 0);
        }
        is_returning
    }

    /// Some of a body. Whether it was that of a returned message; its number stands at the front.
    pub fn handle_body(&mut self, part: &[u8], now: u64) -> bool {
        let Some((left, is_first)) = self.returning else { return false };
        if is_first && let Some(read) = Stamp::read(part, now) {
            let ahead = read.stamp.sequence.wrapping_sub(low_half(self.published)).cast_signed();
            let number = self.published.wrapping_add_signed(i64::from(ahead));
            self.not_taken.insert(number..number.saturating_add(1));
        }
        let left = left.saturating_sub(part.len() as u64);
        self.returning = (left > 0).then_some((left, false));
        true
    }

    /// What has to be answered before the channel has finished: confirms, a commit.
    pub fn unanswered(&self) -> u64 {
        let unconfirmed = self.window.as_ref().map_or(0, ConfirmWindow::outstanding);
        unconfirmed + u64::from(self.committing_since.is_some())
    }

    /// Counts what is due before `end` and is not sent any more.
    pub fn give_up(&mut self, end: u64) {
        if std::mem::replace(&mut self.has_given_up, true) {
            return;
        }
        let Some(arrivals) = &mut self.arrivals else { return };
        while arrivals.next() < end && self.published + self.unsent < self.count_max {
            self.unsent += 1;
            arrivals.advance();
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a stamp holds the low half")]
#[inline]
fn low_half(number: u64) -> u32 {
    number as u32
}
