//! The journal of one shard, without its disk: gathers records into batches and says when each is to be written where.
//!
//! One batch is being written at most; whatever comes meanwhile gathers for the next (group commit). Who waits for its record
//! remembers the [`gathering`](Journal::gathering) batch and is served when [`durable`](Journal::durable) has reached that.
//! It knows no queues, and neither disk nor clock. When it holds a batch back for more to share it is `hold.rs`'s affair.

use super::aligned::AlignedBuffer;
use super::batch::{self, BATCH_HEAD_OCTETS, BatchHead};
use super::disk::DiskRequest;
use super::hold::Hold;
use super::record::{self, Checkpoint, Entry, LastMessage};
use crate::limits::{
    CHECKPOINT_RANGES_MAX, JOURNAL_BATCH_OCTETS_MAX, JOURNAL_COMMIT_OCTETS, JOURNAL_PENDING_OCTETS_MAX,
    JOURNAL_SPARE_OCTETS_MAX,
};
use crate::message::MessageView;
use std::collections::VecDeque;

/// The number of a shard's first journal segment in each epoch.
pub const FIRST_SEGMENT: u64 = 1;
/// The number of a shard's first batch in each epoch.
pub const FIRST_SEQUENCE: u64 = 1;

/// What a journal is made with.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// The start of the broker, counted.
    pub epoch: u64,
    /// Whose it is.
    pub shard: u16,
    /// The length of a segment: whole pages.
    pub segment_octets: u64,
    /// The oldest segment is to be recycled when more than so many are in use.
    pub segments_target: usize,
}

/// What a journal has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounters {
    /// Batches that are durable.
    pub commits: u64,
    /// What was written to the disk, in octets, padding counted.
    pub octets: u64,
    /// Records that were put in.
    pub records: u64,
    /// Batches that were held back for more to share them.
    pub holds: u64,
}

/// A batch that is full and waits for its turn.
#[derive(Debug)]
struct Cut {
    octets: AlignedBuffer,
    is_mark: bool,
}

/// A Settled record that is the last one of the gathering batch.
#[derive(Clone, Copy, Debug)]
struct LastSettled {
    offset: usize,
    queue: u64,
    first: u64,
    count: u64,
}

/// The commit under way.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    sequence: u64,
    octets: u64,
    is_mark: bool,
    began_micros: u64,
}

/// The journal of one shard.
#[derive(Debug)]
pub struct Journal {
    options: JournalOptions,
    /// A batch that has got so long is cut, in octets.
    cut_octets: usize,
    /// The batch that records go into, header included.
    gathering: AlignedBuffer,
    gathering_sequence: u64,
    last_settled: Option<LastSettled>,
    /// The last message in the gathering batch.
    last_message: Option<LastMessage>,
    /// Whether nothing but marks is in it.
    is_mark: bool,
    cut: VecDeque<Cut>,
    cut_octets_held: usize,
    /// Buffers to be used again.
    spare: Vec<AlignedBuffer>,
    in_flight: Option<InFlight>,
    durable: u64,
    /// Batches up to this one are waited for.
    demanded: u64,
    /// Batches up to this one are waited for by somebody who is not to be held back.
    urgent: u64,
    hold: Hold,
    /// Whether the last batch that was taken for writing was a mark; true while there was none.
    rests: bool,
    /// The batch that was gathering at the last tick.
    ticked_at: u64,
    oldest: u64,
    current: u64,
    /// Where in the current segment the next batch goes, in octets.
    offset: u64,
    /// The last segment that can be written.
    prepared: u64,
    is_preparing: bool,
    /// Whether the last segment that was asked for was refused ...
    is_starved: bool,
    /// ... and it is not to be asked for again yet.
    is_patient: bool,
    /// Segments that may be in use besides those that were aimed at.
    segments_more: u64,
    counters: JournalCounters,
}

impl Journal {
    /// An empty journal, of a new epoch. Its first segment has yet to be prepared.
    pub fn new(options: JournalOptions) -> Journal {
        assert!(options.segment_octets.is_multiple_of(super::aligned::PAGE_OCTETS as u64), "segments are whole pages");
        let eighth = usize::try_from(options.segment_octets / 8).expect("a segment fits into memory");
        let mut gathering = AlignedBuffer::new();
        batch::begin(&mut gathering);
        Journal {
            options,
            cut_octets: eighth.min(JOURNAL_BATCH_OCTETS_MAX),
            gathering,
            gathering_sequence: FIRST_SEQUENCE,
            last_settled: None,
            last_message: None,
            is_mark: true,
            cut: VecDeque::new(),
            cut_octets_held: 0,
            spare: Vec::new(),
            in_flight: None,
            durable: FIRST_SEQUENCE - 1,
            demanded: 0,
            urgent: 0,
            hold: Hold::default(),
            rests: true,
            ticked_at: 0,
            oldest: FIRST_SEGMENT,
            current: FIRST_SEGMENT,
            offset: 0,
            prepared: FIRST_SEGMENT - 1,
            is_preparing: false,
            is_starved: false,
            is_patient: false,
            segments_more: 0,
            counters: JournalCounters::default(),
        }
    }

    /// Puts in that a message came into a queue.
    #[inline]
    pub fn put_message(&mut self, entry: &Entry, message: &MessageView<'_>) {
        match &mut self.last_message {
            Some(last) => record::put_message_behind(&mut self.gathering, last, entry, message),
            None => self.last_message = Some(record::put_message(&mut self.gathering, entry, message)),
        }
        self.after_put();
    }

    /// Puts in that the message that was put last came into another queue too. To be called only where
    /// [`can_repeat`](Self::can_repeat) says so, after no other message.
    #[inline]
    pub fn put_same(&mut self, entry: &Entry) {
        assert!(self.last_message.is_some(), "repeated a message that is not in this batch");
        record::put_same(&mut self.gathering, entry);
        self.after_put();
    }

    /// Whether the message that was put last is in the batch that the next record goes into.
    #[inline]
    pub fn can_repeat(&self) -> bool {
        self.last_message.is_some()
    }

    /// Puts in that positions are gone. What follows the positions of the record before is taken into that.
    ///
    /// `count` is above 0. Positions may be among them that never were in the journal (transient messages): that makes no
    /// difference, and longer runs.
    #[inline]
    pub fn put_settled(&mut self, queue: u64, first: u64, count: u64) {
        let mut settled = LastSettled { offset: self.gathering.len(), queue, first, count };
        if let Some(last) = self.last_settled
            && last.queue == queue
            && last.first + last.count == first
        {
            self.gathering.resize(last.offset);
            self.counters.records -= 1;
            settled = LastSettled { count: last.count + count, ..last };
        }
        record::put_settled(&mut self.gathering, queue, settled.first, settled.count);
        self.after_put();
        // Where the batch was cut it is not the last record of the next.
        self.last_settled = (settled.offset < self.gathering.len()).then_some(settled);
    }

    /// Puts in that messages below a position may have been delivered.
    pub fn put_delivering(&mut self, queue: u64, below: u64) {
        record::put_delivering(&mut self.gathering, queue, below);
        self.after_put();
    }

    /// Puts in what lives in a queue. Several records, in several batches even, where it has very many ranges: it is durable
    /// with all that was put in ([`appended`](Self::appended)).
    pub fn put_checkpoint(&mut self, checkpoint: &Checkpoint) {
        let mut ranges = checkpoint.ranges.as_slice();
        loop {
            let (part, rest) = ranges.split_at(ranges.len().min(CHECKPOINT_RANGES_MAX));
            record::put_checkpoint(&mut self.gathering, checkpoint, part, !rest.is_empty());
            self.after_put();
            ranges = rest;
            if ranges.is_empty() {
                break;
            }
        }
    }

    /// Puts in that a queue segment file must be there, with sound extents up to `octets`. It was synced before.
    pub fn put_cold_file(&mut self, queue: u64, file: u32, octets: u64) {
        record::put_cold_file(&mut self.gathering, queue, file, octets);
        self.after_put();
    }

    /// Puts in that a queue segment file is not needed any more. It is removed when this is durable.
    pub fn put_cold_gone(&mut self, queue: u64, file: u32) {
        record::put_cold_gone(&mut self.gathering, queue, file);
        self.after_put();
    }

    #[inline]
    fn after_put(&mut self) {
        self.counters.records += 1;
        self.last_settled = None;
        self.is_mark = false;
        if self.gathering.len() >= self.cut_octets {
            self.cut();
        }
    }

    /// Ends the gathering batch and begins the next.
    #[cold]
    fn cut(&mut self) {
        let mut next = self.spare.pop().unwrap_or_default();
        batch::begin(&mut next);
        let octets = std::mem::replace(&mut self.gathering, next);
        self.cut_octets_held += octets.len();
        self.cut.push_back(Cut { octets, is_mark: self.is_mark });
        self.gathering_sequence += 1;
        self.last_settled = None;
        self.last_message = None;
        self.is_mark = true;
        self.hold.begin_batch();
    }

    /// The number of the batch that the next record goes into.
    #[inline]
    pub fn gathering(&self) -> u64 {
        self.gathering_sequence
    }

    /// The number of the batch that the last record went into: all is durable when [`durable`](Self::durable) has reached it.
    #[inline]
    pub fn appended(&self) -> u64 {
        self.gathering_sequence - u64::from(self.gathering_is_empty())
    }

    /// A segment that is not younger than the one in which the gathering batch will lie.
    #[inline]
    pub fn gathering_segment(&self) -> u64 {
        self.current
    }

    /// All batches up to this one are on the disk for good; 0 if none is.
    #[inline]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Somebody waits for what is pending: it is to be written as soon as nothing is in flight.
    #[inline]
    pub fn demand(&mut self) {
        self.demanded = self.appended();
        self.urgent = self.demanded;
    }

    /// The publisher `waiter` waits for what is pending: it is to be written as soon as nothing is in flight and most of the
    /// publishers that are active wait too, or have not come in time.
    #[inline]
    pub fn demand_by(&mut self, waiter: u64) {
        self.demanded = self.appended();
        if !self.gathering_is_empty() {
            self.hold.add_waiter(waiter, self.gathering_sequence);
        }
    }

    /// To be called about every 100 ms: what nobody waits for is written too, if no batch has taken it along since the call before.
    /// (A commit that nobody waits for is in the way of the next one that somebody does.) Where nothing was written since then and
    /// nothing is left to do, a mark is written ([`rest`](Self::rest)). Segments that the disk had no room for are asked for again.
    pub fn handle_tick(&mut self) {
        self.is_patient = false;
        let is_same = std::mem::replace(&mut self.ticked_at, self.gathering_sequence) == self.gathering_sequence;
        if !is_same {
            return;
        }
        if self.is_idle() {
            self.rest();
        } else {
            self.demand();
        }
    }

    /// There is nothing left to do: a mark is written once, by which damage to the batch before it can be told from one that was
    /// cut off by the power.
    pub fn rest(&mut self) {
        assert!(self.is_idle(), "rested while there was something to do");
        self.spare.retain(|buffer| buffer.capacity() <= JOURNAL_COMMIT_OCTETS);
        if !self.rests {
            record::put_mark(&mut self.gathering);
            self.demand();
        }
    }

    /// What waits to be written, in octets.
    #[inline]
    pub fn pending_octets(&self) -> usize {
        self.cut_octets_held + self.gathering.len() - BATCH_HEAD_OCTETS
    }

    /// Whether publishers must wait because the disk is slower than they are.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.pending_octets() >= JOURNAL_PENDING_OCTETS_MAX
    }

    /// What the disk is to do now, if anything. To be called until there is nothing, after each turn and after
    /// [`handle_deadline`](Self::handle_deadline).
    pub fn poll_request(&mut self, now_micros: u64) -> Option<DiskRequest> {
        self.hold.handle_now(now_micros);
        self.poll_commit(now_micros).or_else(|| self.poll_prepare())
    }

    /// When to call [`handle_deadline`](Self::handle_deadline) because a batch is held back until then, at the latest:
    /// microseconds, as they are given to [`poll_request`](Self::poll_request). To be asked after that.
    pub fn next_deadline_micros(&self) -> Option<u64> {
        (self.in_flight.is_none() && self.may_hold()).then(|| self.hold.deadline_micros()).flatten()
    }

    /// The deadline has come: it is `now_micros`, and what has arrived until then was put in. To be polled after that.
    pub fn handle_deadline(&mut self, now_micros: u64) {
        self.hold.handle_deadline(now_micros);
    }

    fn poll_commit(&mut self, now_micros: u64) -> Option<DiskRequest> {
        if !self.is_due() {
            return None;
        }
        if self.may_hold() && self.hold.holds() {
            return None;
        }
        let octets = batch::batch_octets(self.front_octets() - BATCH_HEAD_OCTETS) as u64;
        self.find_room(octets)?;
        if self.cut.is_empty() {
            self.cut();
        }
        let Cut { mut octets, is_mark } = self.cut.pop_front().expect("a batch is due");
        self.cut_octets_held -= octets.len();
        let sequence = self.gathering_sequence - 1 - self.cut.len() as u64;
        let JournalOptions { epoch, shard, .. } = self.options;
        batch::seal(&mut octets, &BatchHead { epoch, shard, segment: self.current, sequence });
        let (segment, offset, length) = (self.current, self.offset, octets.len() as u64);
        self.offset += length;
        self.rests = is_mark;
        self.in_flight = Some(InFlight { sequence, octets: length, is_mark, began_micros: now_micros });
        Some(DiskRequest::Commit { sequence, segment, offset, octets })
    }

    /// Whether there is a batch that is to be written, and none is being written.
    fn is_due(&self) -> bool {
        let front = self.gathering_sequence - self.cut.len() as u64;
        let is_long = !self.cut.is_empty() || self.gathering.len() >= JOURNAL_COMMIT_OCTETS;
        let is_demanded = self.demanded >= front && !self.gathering_is_empty();
        self.in_flight.is_none() && (is_long || is_demanded)
    }

    /// Whether the batch that is due may wait for publishers.
    fn may_hold(&self) -> bool {
        self.cut.is_empty() && self.gathering.len() < JOURNAL_COMMIT_OCTETS && self.urgent < self.gathering_sequence
    }

    fn front_octets(&self) -> usize {
        self.cut.front().map_or(self.gathering.len(), |cut| cut.octets.len())
    }

    /// Goes to a prepared segment with room for `octets`; `None` if there is none.
    fn find_room(&mut self, octets: u64) -> Option<()> {
        assert!(octets <= self.options.segment_octets, "a batch of {octets} octets fits into no segment");
        if self.current > self.prepared {
            return None;
        }
        if self.offset + octets > self.options.segment_octets {
            if self.current == self.prepared {
                return None;
            }
            self.current += 1;
            self.offset = 0;
        }
        Some(())
    }

    /// One segment is kept ahead of the one in use.
    fn poll_prepare(&mut self) -> Option<DiskRequest> {
        if self.is_preparing || self.is_patient || self.prepared > self.current {
            return None;
        }
        self.is_preparing = true;
        Some(DiskRequest::PrepareSegment { segment: self.prepared + 1 })
    }

    /// The batch is on the disk for good. `octets` are used again.
    pub fn handle_committed(&mut self, sequence: u64, octets: AlignedBuffer, now_micros: u64) {
        let in_flight = self.in_flight.take().expect("committed what was not in flight");
        assert_eq!(in_flight.sequence, sequence, "committed another batch than was in flight");
        assert_eq!(self.durable + 1, sequence, "committed out of order");
        self.durable = sequence;
        self.rests = in_flight.is_mark;
        self.counters.commits += 1;
        self.counters.octets += in_flight.octets;
        self.hold.handle_committed(now_micros.saturating_sub(in_flight.began_micros), now_micros);
        if octets.capacity() <= JOURNAL_SPARE_OCTETS_MAX {
            self.spare.push(octets);
        }
    }

    /// A segment that was asked for can be written.
    pub fn handle_segment_prepared(&mut self, segment: u64) {
        assert!(self.is_preparing, "a segment was prepared that was not asked for");
        assert_eq!(segment, self.prepared + 1, "another segment was prepared than was asked for");
        self.is_preparing = false;
        self.is_starved = false;
        self.prepared = segment;
    }

    /// There is no room for the segment that was asked for. It is asked for again after a tick, or when one was retired.
    pub fn handle_segment_refused(&mut self) {
        assert!(self.is_preparing, "a segment was refused that was not asked for");
        self.is_preparing = false;
        self.is_starved = true;
        self.is_patient = true;
    }

    /// Whether the disk had no room for the next segment: nobody should put in what need not be, until there is one.
    pub fn is_starved(&self) -> bool {
        self.is_starved
    }

    /// Has a segment that was refused asked for again at once.
    pub fn ask_again(&mut self) {
        self.is_patient = false;
    }

    /// Whether the disk has no room for the next segment, and it is not being asked for.
    pub fn is_stuck(&self) -> bool {
        self.is_starved && self.is_patient
    }

    /// The oldest segment in use, and the one that is written.
    pub fn segments(&self) -> (u64, u64) {
        (self.oldest, self.current)
    }

    /// Says how many octets are put in again on the way once through all segments. So that this is less than half of what is
    /// written, more segments may be in use; else it would go on forever where nothing else is written.
    pub fn set_carried(&mut self, octets: u64) {
        self.segments_more = (2 * octets).div_ceil(self.options.segment_octets);
    }

    /// The oldest segment, where more are in use than should be.
    pub fn wants_recycling(&self) -> Option<u64> {
        let in_use = self.current - self.oldest + 1;
        (in_use > self.options.segments_target as u64 + self.segments_more).then_some(self.oldest)
    }

    /// Gives the oldest segment back. Whatever lives in it was put in again, or is in a queue segment file, durably. Puts in
    /// that it may be missing: what is returned is for the disk once that is durable ([`appended`](Self::appended)).
    pub fn retire(&mut self, segment: u64) -> DiskRequest {
        assert_eq!(segment, self.oldest, "the oldest segment goes first");
        assert!(segment < self.current, "retired the segment that is written");
        self.oldest += 1;
        self.is_patient = false;
        record::put_oldest(&mut self.gathering, self.oldest);
        self.after_put();
        DiskRequest::RetireSegment { segment }
    }

    /// The length of a segment, in octets.
    pub fn segment_octets(&self) -> u64 {
        self.options.segment_octets
    }

    /// Whether nothing waits to be written, and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.cut.is_empty() && self.gathering_is_empty()
    }

    /// How many octets of memory it holds, what is in flight not counted.
    pub fn octets_held(&self) -> u64 {
        let cut = self.cut.iter().map(|cut| &cut.octets);
        let octets: usize = cut.chain(&self.spare).chain([&self.gathering]).map(AlignedBuffer::capacity).sum();
        octets as u64 + self.hold.octets_held()
    }

    /// What it has counted.
    pub fn counters(&self) -> JournalCounters {
        JournalCounters { holds: self.hold.holds_counted(), ..self.counters }
    }

    #[inline]
    fn gathering_is_empty(&self) -> bool {
        self.gathering.len() == BATCH_HEAD_OCTETS
    }
}
