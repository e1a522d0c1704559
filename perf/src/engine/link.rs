//! One connection while it runs: reads, hands frames to its channels, writes what they have.
//!
//! A driver: one task, which rests on the executor's timer where the socket would never let it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use lepus::protocol::frame::{FrameKind, HEARTBEAT_FRAME, take_frame};
use lepus::protocol::method::{Method, basic};
use lepus::protocol::properties::content_header;

use crate::engine::Context;
use crate::engine::client::{Client, ClientError, check_close, close_method};
use crate::engine::clock::Schedule;
use crate::engine::confirms::{Settled, Verdict};
use crate::engine::delivery::{peek_deliver, peek_delivery};
use crate::engine::recorder::Recorder;
use crate::engine::sink::{Mode, Sink};
use crate::engine::source::{STALL_NANOS, Source, Want};

/// Octets that are asked of the socket at once.
pub const READ_OCTETS: usize = 128 << 10;
/// Reads that fill the buffer, or writes, one after the other, before a connection rests: the executor polls for I/O only
/// when no task can run.
const FULL_READS_MAX: u32 = 16;
const WRITES_MAX: u32 = 64;
/// How long it rests then.
const REST_NANOS: u64 = 20_000;
/// How long it rests where the broker has told publishers to stop: its next word wakes it.
const BLOCKED_REST_NANOS: u64 = 10_000_000;
/// While more than this waits to be written, nothing is read.
const OUTPUT_OCTETS_MAX: usize = 1 << 20;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// `connection.close` is sent, since then.
    Closing(u64),
    Closed,
}

/// Messages of one source that are being written.
struct Writing {
    source: usize,
    count: usize,
    written: usize,
    since: u64,
}

/// See the module's documentation.
pub struct Link {
    context: Rc<Context>,
    socket: TcpStream,
    frame_octets_max: usize,
    /// What was read and is not used yet: a frame that is not whole.
    input: Vec<u8>,
    /// Methods that wait to be written.
    output: Vec<u8>,
    output_written: usize,
    writing: Option<Writing>,
    sources: Vec<Source>,
    sinks: Vec<Sink>,
    next_source: usize,
    phase: Phase,
    is_blocked: bool,
    /// In this turn nothing has come.
    has_read_all: bool,
    waiting_since: Option<u64>,
    have_sources_finished: bool,
    are_sinks_ready: bool,
    answered: (u64, u64),
    timer: Option<(u64, Timer)>,
}

impl Link {
    /// A connection that is open. Sources and sinks have the channels from 1 on, in order; those of RPC clients share them.
    pub fn new(context: Rc<Context>, client: Client, sources: Vec<Source>, sinks: Vec<Sink>) -> Self {
        Self {
            context,
            socket: client.socket,
            frame_octets_max: client.frame_octets_max,
            input: client.input,
            output: Vec::new(),
            output_written: 0,
            writing: None,
            sources,
            sinks,
            next_source: 0,
            phase: Phase::Running,
            is_blocked: false,
            has_read_all: false,
            waiting_since: None,
            have_sources_finished: false,
            are_sinks_ready: false,
            answered: (u64::MAX, 0),
            timer: None,
        }
    }

    /// Runs until it is over; returns its channels.
    ///
    /// # Errors
    /// Where the connection fails before the end.
    pub async fn run(mut self) -> Result<(Vec<Source>, Vec<Sink>), ClientError> {
        let context = Rc::clone(&self.context);
        poll_fn(|task| {
            context.keep_waker(task.waker().clone());
            Poll::Ready(())
        })
        .await;
        let result = poll_fn(|task| self.poll(task)).await;
        if !self.have_sources_finished {
            self.give_up();
            self.count_sources_finished();
        }
        result.map(|()| (self.sources, self.sinks))
    }

    fn poll(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<(), ClientError>> {
        let (mut full_reads, mut writes) = (0, 0);
        loop {
            let now = self.context.shared.clock.nanos();
            self.begin_sinks();
            let mut has_progressed = false;
            self.has_read_all = true;
            if !self.is_busy(now) {
                match self.poll_input(task)? {
                    Poll::Ready(octets) => {
                        has_progressed = true;
                        self.has_read_all = false;
                        full_reads += u32::from(octets == READ_OCTETS);
                    }
                    Poll::Pending => {}
                }
            }
            if self.phase == Phase::Closed {
                return Poll::Ready(Ok(()));
            }
            let mut next = self.advance_sinks();
            if self.close_where_over() {
                return Poll::Ready(Ok(()));
            }
            let (has_written, output_at) = self.poll_output(task)?;
            next = next.min(output_at);
            has_progressed |= has_written;
            writes += u32::from(has_written);
            if full_reads >= FULL_READS_MAX || writes >= WRITES_MAX {
                next = self.context.shared.clock.nanos() + REST_NANOS;
                (full_reads, writes) = (0, 0);
                has_progressed = false;
            }
            if !has_progressed && self.poll_timer(next, task).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Pending until `at`; ready at once where that has passed.
    fn poll_timer(&mut self, at: u64, task: &mut TaskContext<'_>) -> Poll<()> {
        if at == u64::MAX {
            self.timer = None;
            return Poll::Pending;
        }
        let now = self.context.shared.clock.nanos();
        if at <= now {
            return Poll::Ready(());
        }
        if self.timer.as_ref().is_none_or(|(timer_at, _)| *timer_at != at) {
            self.timer = Some((at, Timer::new(Duration::from_nanos(at - now))));
        }
        let (_, timer) = self.timer.as_mut().expect("set above");
        let poll = Pin::new(timer).poll(task);
        if poll.is_ready() {
            self.timer = None;
        }
        poll.map(|_| ())
    }

    fn begin_sinks(&mut self) {
        if !self.context.shared.is_consuming() {
            return;
        }
        for sink in self.sinks.iter_mut().filter(|sink| !sink.has_begun) {
            sink.begin(&mut self.output);
        }
        if !self.are_sinks_ready && !self.sinks.is_empty() && self.sinks.iter().all(Sink::is_ready) {
            self.are_sinks_ready = true;
            self.context.progress().sinks_ready.fetch_add(self.sinks.len() as u64, Ordering::Relaxed);
        }
    }

    fn is_busy(&self, now: u64) -> bool {
        self.output.len() - self.output_written > OUTPUT_OCTETS_MAX || self.sinks.iter().any(|sink| sink.is_busy(now))
    }

    /// Does what the receiving channels have to do; returns when there is more.
    fn advance_sinks(&mut self) -> u64 {
        if self.sinks.is_empty() || self.phase != Phase::Running {
            return u64::MAX;
        }
        let shared = &self.context.shared;
        let now = shared.clock.nanos();
        let (is_draining, is_over) = (shared.is_producing_over(), shared.is_over());
        let mut recorder = self.context.recorder.borrow_mut();
        let output = &mut self.output;
        let advance = |sink: &mut Sink| sink.advance(now, is_draining, is_over, &mut recorder, output);
        let next = self.sinks.iter_mut().map(advance).min().unwrap_or(u64::MAX);
        if !self.output.is_empty() {
            drop(recorder);
            self.context.tell_progress();
        }
        next
    }

    /// Reads once, behind what is left, and handles what has come; returns how many octets came.
    fn poll_input(&mut self, task: &mut TaskContext<'_>) -> Result<Poll<usize>, ClientError> {
        let context = Rc::clone(&self.context);
        let mut buffer = context.read_buffer.borrow_mut();
        let left = self.input.len();
        buffer[..left].copy_from_slice(&self.input);
        let octets = match Pin::new(&mut self.socket).poll_read(task, &mut buffer[left..left + READ_OCTETS]) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(octets @ 1..)) => octets,
            Poll::Ready(_) if self.phase != Phase::Running => {
                self.phase = Phase::Closed;
                return Ok(Poll::Ready(0));
            }
            Poll::Ready(Ok(_)) => return Err(ClientError::Ended),
            Poll::Ready(Err(error)) => return Err(ClientError::Io("reading from the broker".to_owned(), error)),
        };
        let whole = &buffer[..left + octets];
        let used = self.handle_input(whole)?;
        self.input.clear();
        self.input.extend_from_slice(&whole[used..]);
        Ok(Poll::Ready(octets))
    }

    /// Takes whole frames off the front; returns how many octets they had.
    fn handle_input(&mut self, input: &[u8]) -> Result<usize, ClientError> {
        let context = Rc::clone(&self.context);
        let now = context.shared.clock.nanos();
        let mut recorder = context.recorder.borrow_mut();
        let mut rest = input;
        loop {
            if let Some((delivery, used)) = peek_delivery(rest)
                && let Some(sink) = self.sinks.get_mut(usize::from(delivery.channel).wrapping_sub(1))
                && sink.mode == Mode::Consume
            {
                rest = &rest[used..];
                sink.handle_delivery(&delivery, now, &mut recorder);
                sink.finish_message(now, &mut recorder, &mut self.output, self.frame_octets_max);
                continue;
            }
            let Some((frame, used)) = take_frame(rest, self.frame_octets_max)? else { break };
            rest = &rest[used..];
            let index = usize::from(frame.channel).wrapping_sub(1);
            match frame.kind {
                FrameKind::Method => self.handle_method(index, frame.payload, now, &mut recorder)?,
                FrameKind::Header => {
                    let header = content_header(frame.payload).map_err(|fault| ClientError::Malformed(fault.into()))?;
                    let is_returned =
                        self.sources.get_mut(index).is_some_and(|source| source.handle_header(header.body_size));
                    if !is_returned
                        && let Some(sink) = self.sinks.get_mut(index)
                        && sink.handle_header(&header)?
                    {
                        sink.finish_message(now, &mut recorder, &mut self.output, self.frame_octets_max);
                    }
                }
                FrameKind::Body => {
                    let is_returned =
                        self.sources.get_mut(index).is_some_and(|source| source.handle_body(frame.payload, now));
                    if !is_returned
                        && let Some(sink) = self.sinks.get_mut(index)
                        && sink.handle_body(frame.payload, now, &mut recorder)
                    {
                        sink.finish_message(now, &mut recorder, &mut self.output, self.frame_octets_max);
                        if let Mode::Replies(_) = sink.mode
                            && let Some(source) = self.sources.get_mut(index)
                        {
                            source.requests = source.requests.saturating_sub(1);
                        }
                    }
                }
                FrameKind::Heartbeat => self.output.extend_from_slice(&HEARTBEAT_FRAME),
            }
        }
        recorder.counted_at = now;
        drop(recorder);
        self.context.tell_progress();
        Ok(input.len() - rest.len())
    }

    #[inline]
    fn handle_method(
        &mut self,
        index: usize,
        payload: &[u8],
        now: u64,
        recorder: &mut Recorder,
    ) -> Result<(), ClientError> {
        if let Some((consumer_tag, delivery_tag, is_redelivered)) = peek_deliver(payload)
            && let Some(sink) = self.sinks.get_mut(index)
        {
            sink.handle_deliver(consumer_tag, delivery_tag, is_redelivered);
            return Ok(());
        }
        let method = Method::decode(payload)?;
        let source = self.sources.get_mut(index);
        let settled = match method {
            Method::BasicAck(basic::Ack { delivery_tag: tag, multiple }) => {
                Some(Settled { tag, multiple, verdict: Verdict::Ack })
            }
            Method::BasicNack(basic::Nack { delivery_tag: tag, multiple, .. }) => {
                Some(Settled { tag, multiple, verdict: Verdict::Nack })
            }
            _ => None,
        };
        if let (Some(settled), Some(source)) = (settled, source) {
            source.settle(settled, now, recorder);
            return Ok(());
        }
        self.handle_rare_method(index, &method, now, recorder)
    }

    fn handle_rare_method(
        &mut self,
        index: usize,
        method: &Method<'_>,
        now: u64,
        recorder: &mut Recorder,
    ) -> Result<(), ClientError> {
        let (source, sink) = (self.sources.get_mut(index), self.sinks.get_mut(index));
        match (method, source, sink) {
            (Method::BasicReturn(_), Some(source), _) => {
                recorder.counts.returned += 1;
                source.handle_return();
            }
            (Method::TxCommitOk(_), Some(source), _) => {
                if let Some(since) = source.committing_since.take() {
                    recorder.answered += 1;
                    recorder.round_trip(now - since);
                }
            }
            (Method::BasicConsumeOk(_), _, Some(sink)) => sink.consumers_started += 1,
            (Method::BasicGetOk(get_ok), _, Some(sink)) => sink.handle_get_ok(get_ok, now, recorder),
            (Method::BasicGetEmpty(_), _, Some(sink)) => sink.handle_get_empty(now),
            (Method::BasicCancel(_), _, _) if self.phase == Phase::Running => {
                return Err(ClientError::Unexpected("messages", "basic.cancel: the queue is gone".to_owned()));
            }
            (Method::ConnectionBlocked(_), _, _) if !self.is_blocked => {
                self.is_blocked = true;
                self.context.progress().blocked.fetch_add(1, Ordering::Relaxed);
            }
            (Method::ConnectionUnblocked(_), _, _) if self.is_blocked => {
                self.is_blocked = false;
                self.context.progress().unblocked.fetch_add(1, Ordering::Relaxed);
            }
            (Method::ConnectionCloseOk(_), _, _) => self.phase = Phase::Closed,
            // Also while it is being closed: the answer to the last publish may be that there is no such exchange.
            (method, _, _) => check_close(method)?,
        }
        Ok(())
    }

    /// Writes what there is, and some new messages at most; whether it wrote all that it had begun and more may be written,
    /// and when the next message is due.
    fn poll_output(&mut self, task: &mut TaskContext<'_>) -> Result<(bool, u64), ClientError> {
        let mut has_written = false;
        let now = self.context.shared.clock.nanos();
        if self.writing.is_some() {
            match self.poll_messages(task, now)? {
                Poll::Ready(()) => has_written = true,
                Poll::Pending => return Ok((false, self.give_up_at())),
            }
        }
        if !self.output.is_empty() {
            while self.output_written < self.output.len() {
                match Pin::new(&mut self.socket).poll_write(task, &self.output[self.output_written..]) {
                    Poll::Ready(Ok(octets)) => self.output_written += octets,
                    Poll::Ready(Err(error)) => return self.write_failed(error).map(|()| (false, u64::MAX)),
                    Poll::Pending => {
                        self.hold_up();
                        return Ok((false, u64::MAX));
                    }
                }
            }
            self.output.clear();
            self.output_written = 0;
            has_written = true;
        }
        if let Phase::Closing(since) = self.phase {
            return Ok((has_written, since + STALL_NANOS + 1));
        }
        if self.sources.is_empty() || self.phase != Phase::Running {
            return Ok((has_written, u64::MAX));
        }
        let Some(&schedule) = self.context.shared.schedule.get() else { return Ok((has_written, u64::MAX)) };
        match self.choose(schedule, now) {
            Want::Publish(_) => {
                if self.poll_messages(task, now)?.is_pending() {
                    return Ok((has_written, self.give_up_at()));
                }
                Ok((true, u64::MAX))
            }
            Want::Wait(at) => Ok((has_written, at)),
            Want::Room(at) => {
                self.context.wait_for_progress(task.waker(), &mut self.waiting_since);
                Ok((has_written, at))
            }
            Want::Answer => Ok((has_written, u64::MAX)),
            Want::Nothing => {
                let at = self.finish_sources(now);
                Ok((has_written || !self.output.is_empty(), at))
            }
        }
    }

    /// Finds the next source in turn that may publish, stamps its messages and keeps them as being written. What comes of all
    /// sources where none may: the first time that one may, else that answers are awaited, else nothing.
    fn choose(&mut self, schedule: Schedule, now: u64) -> Want {
        if self.is_blocked {
            let mut are_done = true;
            for source in &mut self.sources {
                source.hold_up();
                are_done &= source.is_done(&self.context.shared, schedule, now);
            }
            return if are_done { Want::Nothing } else { Want::Wait(now + BLOCKED_REST_NANOS) };
        }
        let (mut all, mut needs_room) = (Want::Nothing, false);
        for turn in 0..self.sources.len() {
            let index = (self.next_source + turn) % self.sources.len();
            let source = &mut self.sources[index];
            let want = source.want(&self.context.shared, schedule, now);
            match want {
                Want::Publish(count) => {
                    source.stamp(count, now, &mut self.context.recorder.borrow_mut());
                    self.writing = Some(Writing { source: index, count, written: 0, since: now });
                    self.next_source = index + 1;
                    return want;
                }
                Want::Wait(at) => {
                    self.context.wait_until(at);
                    all = all.or_at(at);
                }
                Want::Room(at) => {
                    needs_room = true;
                    all = all.or_at(at);
                }
                Want::Answer => {
                    if self.has_read_all {
                        source.hold_up();
                    }
                    if all == Want::Nothing {
                        all = want;
                    }
                }
                Want::Nothing => {}
            }
        }
        match all {
            Want::Wait(at) if needs_room => Want::Room(at),
            all => all,
        }
    }

    /// The broker does not go on; unless it waits for us to read.
    fn hold_up(&mut self) {
        if self.has_read_all {
            self.sources.iter_mut().for_each(Source::hold_up);
        }
    }

    /// Goes on writing the messages that have been begun.
    fn poll_messages(&mut self, task: &mut TaskContext<'_>, now: u64) -> Result<Poll<()>, ClientError> {
        let Some(writing) = &mut self.writing else { return Ok(Poll::Ready(())) };
        let source = &mut self.sources[writing.source];
        let octets = source.batch.octets(writing.count);
        while writing.written < octets.len() {
            match Pin::new(&mut self.socket).poll_write(task, &octets[writing.written..]) {
                Poll::Ready(Ok(octets)) => {
                    writing.written += octets;
                    writing.since = now;
                }
                Poll::Ready(Err(error)) => return self.write_failed(error).map(|()| Poll::Pending),
                Poll::Pending => {
                    if now >= self.give_up_at() {
                        self.end_writing(now);
                        self.phase = Phase::Closed;
                    }
                    self.hold_up();
                    return Ok(Poll::Pending);
                }
            }
        }
        self.end_writing(now);
        Ok(Poll::Ready(()))
    }

    fn end_writing(&mut self, now: u64) {
        let Some(Writing { source, count, written, .. }) = self.writing.take() else { return };
        let source = &mut self.sources[source];
        let whole =
            if written == source.batch.octets(count).len() { count } else { source.batch.whole_messages(written) };
        let mut recorder = self.context.recorder.borrow_mut();
        source.written(count, whole, &mut recorder);
        source.commit(false, now, &mut self.output);
        recorder.counted_at = now;
        drop(recorder);
        self.context.tell_progress();
    }

    /// What is not sent now is not sent any more.
    fn give_up(&mut self) {
        let shared = &self.context.shared;
        let now = shared.clock.nanos();
        let end = shared.schedule.get().map_or(0, |schedule| schedule.end);
        if !shared.has_failed() {
            self.sources.iter_mut().for_each(|source| source.give_up(now.min(end)));
        }
        self.end_writing(now);
    }

    /// When the broker has taken nothing for so long after the end that the rest is given up.
    fn give_up_at(&self) -> u64 {
        let shared = &self.context.shared;
        let end = shared.schedule.get().map_or(u64::MAX, |schedule| schedule.end);
        let since = self.writing.as_ref().map_or(0, |writing| writing.since);
        if shared.is_producing_over() { since + STALL_NANOS } else { end.max(since).saturating_add(STALL_NANOS) }
    }

    /// A write has failed. The broker's last words say why, if there are any: they are read in the next turn.
    fn write_failed(&mut self, error: std::io::Error) -> Result<(), ClientError> {
        if self.phase != Phase::Running {
            self.phase = Phase::Closed;
            return Ok(());
        }
        let mut last_words = vec![0; READ_OCTETS];
        let waker = std::task::Waker::noop();
        let read = Pin::new(&mut self.socket).poll_read(&mut TaskContext::from_waker(waker), &mut last_words);
        if let Poll::Ready(Ok(octets)) = read {
            let whole = [&self.input[..], &last_words[..octets]].concat();
            self.handle_input(&whole)?;
        }
        Err(ClientError::Io("writing to the broker".to_owned(), error))
    }

    /// All sources have nothing more to send: once the broker has answered everything, or stays silent, they have finished.
    /// Returns when to look again.
    fn finish_sources(&mut self, now: u64) -> u64 {
        if self.have_sources_finished {
            return u64::MAX;
        }
        for source in &mut self.sources {
            source.commit(true, now, &mut self.output);
        }
        let unanswered: u64 = self.sources.iter().map(Source::unanswered).sum();
        if unanswered < self.answered.0 {
            self.answered = (unanswered, now);
        }
        if unanswered > 0 && now < self.answered.1 + STALL_NANOS {
            return self.answered.1 + STALL_NANOS;
        }
        self.count_sources_finished();
        now
    }

    fn count_sources_finished(&mut self) {
        self.have_sources_finished = true;
        self.context.progress().sources_finished.fetch_add(self.sources.len() as u64, Ordering::Relaxed);
    }

    /// Ends the connection where everything is over. Whether it has ended.
    fn close_where_over(&mut self) -> bool {
        let now = self.context.shared.clock.nanos();
        match self.phase {
            Phase::Closed => true,
            Phase::Closing(since) => now > since + STALL_NANOS,
            Phase::Running => {
                let is_over = self.context.shared.is_over();
                let has_nothing_left = self.sinks.is_empty() && self.have_sources_finished;
                if (is_over || has_nothing_left) && self.writing.is_none() {
                    close_method().put(&mut self.output, 0);
                    self.phase = Phase::Closing(now);
                }
                // Whoever is stuck within a message when all is over is cut off.
                is_over && self.writing.is_some()
            }
        }
    }
}
