//! One producer: its connection, its loop, what it tells in the end.

use std::io::{self, Write};
use std::num::NonZeroU64;
use std::time::Duration;

use lepus::protocol::frame::{FrameKind, take_frame};
use lepus::protocol::method::{Method, basic, confirm};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use crate::batch::Batch;
use crate::client::{Client, ClientError, check_close, is_timeout};
use crate::clock::{Clock, Schedule, nanos};
use crate::confirms::{ConfirmWindow, Verdict};
use crate::options::RunOptions;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::stamp::{Stamp, Times};
use crate::topology::Topology;

/// How long a broker may take nothing, and confirm nothing, once the run is over.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How often one looks up from waiting for a broker.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Writes between two looks at what the broker has to say, where no confirms are awaited.
const WRITES_PER_LOOK: u32 = 64;
/// How long to rest where too many messages are in flight.
const IN_FLIGHT_REST: Duration = Duration::from_micros(200);

/// What a producer tells in the end.
pub struct ProducerReport {
    /// Messages written whole.
    pub published: u64,
    /// Of these, still not confirmed in the end.
    pub unconfirmed: u64,
    /// Of these, refused by the broker.
    pub nacked: u64,
    /// Messages that should have been sent by the end of the run and were not.
    pub unsent: u64,
    /// `connection.blocked` came so many times.
    pub blocked: u64,
}

/// A producer that is connected and has yet to begin.
pub struct Producer<'r> {
    client: Client,
    batch: Batch,
    window: Option<ConfirmWindow>,
    index: u16,
    count_max: u64,
    /// Of this producer alone.
    rate: Option<f64>,
    in_flight_max: Option<u64>,
    copies: u64,
    clock: Clock,
    progress: &'r Progress,
    report: ProducerReport,
}

impl<'r> Producer<'r> {
    /// Connects.
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
        let mut client = Client::open(&options.uri, &format!("lepus-perf producer {index}"))?;
        if options.confirm.is_some() {
            let select = Method::ConfirmSelect(confirm::Select { no_wait: false });
            client.request(&select, "confirm.select-ok", |method| {
                matches!(method, Method::ConfirmSelectOk(_)).then_some(())
            })?;
        }
        let failed = |error| ClientError::Io("setting a time limit".to_owned(), error);
        client.socket.set_write_timeout(Some(LOOK_UP)).map_err(failed)?;
        let (share, rest) = match options.count {
            Some(count) => (count / options.producers as u64, count % options.producers as u64),
            None => (u64::MAX, 0),
        };
        #[allow(clippy::cast_precision_loss, reason = "a count of threads")]
        let rate = options.rate.map(|rate| rate / options.producers as f64);
        let report = ProducerReport { published: 0, unconfirmed: 0, nacked: 0, unsent: 0, blocked: 0 };
        Ok(Self {
            batch: Batch::new(options, &topology.routing_keys, client.frame_octets_max),
            client,
            window: options.confirm.map(ConfirmWindow::new),
            index: u16::try_from(index).expect("the options are checked"),
            count_max: share + u64::from((index as u64) < rest),
            rate,
            in_flight_max: options.in_flight,
            copies: topology.copies,
            clock,
            progress,
            report,
        })
    }

    /// Publishes until the schedule, the count or the user ends it; then waits for confirms and closes the connection.
    ///
    /// # Errors
    /// Where the connection fails before the end.
    pub fn run(mut self, schedule: Schedule) -> Result<ProducerReport, ClientError> {
        // Sleeps end when they should; without it they end some 50 microseconds late.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        self.clock.sleep_until(schedule.start);
        let is_whole = match self.rate {
            Some(rate) => self.publish_paced(schedule, rate)?,
            None => self.publish_fast(schedule)?,
        };
        if !is_whole {
            // A message is cut: there is no closing in good order any more.
            self.finish_counts();
            return Ok(self.report);
        }
        self.await_confirms()?;
        self.finish_counts();
        self.client.close()?;
        Ok(self.report)
    }

    fn finish_counts(&mut self) {
        if let Some(window) = &self.window {
            self.report.unconfirmed = window.outstanding();
            self.report.nacked = window.nacked();
        }
    }

    fn is_over(&self, now: u64, schedule: Schedule) -> bool {
        now >= schedule.end || self.report.published >= self.count_max || self.progress.producers_stopped()
    }

    /// Closed loop. Returns whether the last message is whole.
    fn publish_fast(&mut self, schedule: Schedule) -> Result<bool, ClientError> {
        let mut writes: u32 = 0;
        loop {
            let now = self.clock.nanos();
            if self.is_over(now, schedule) {
                return Ok(true);
            }
            writes = writes.wrapping_add(1);
            let room = self.room(writes)?;
            if room == 0 {
                continue;
            }
            let now = self.clock.nanos();
            let (producer, first) = (self.index, low_half(self.report.published));
            let times = Some(Times { intended: now, sent: now });
            self.batch.stamp(room, |index| Stamp { producer, sequence: first.wrapping_add(index), times });
            if !self.write(room, now, schedule)? {
                return Ok(false);
            }
        }
    }

    /// Open loop: everything that is due is sent, also what is due by the end and late. Returns whether the last message
    /// is whole.
    fn publish_paced(&mut self, schedule: Schedule, rate: f64) -> Result<bool, ClientError> {
        #[allow(clippy::cast_precision_loss, reason = "a count of threads")]
        // Producers take turns instead of sending all at once.
        let phase = Pace::new(0, rate * self.progress.published.len() as f64).intended(u64::from(self.index));
        let pace = Pace::new(schedule.start + phase, rate);
        let until = if schedule.end == u64::MAX { u64::MAX } else { pace.due(schedule.end - 1).min(self.count_max) };
        let until = until.min(self.count_max);
        let mut writes: u32 = 0;
        loop {
            let now = self.clock.nanos();
            let published = self.report.published;
            if published >= until || self.progress.producers_stopped() {
                return Ok(true);
            }
            if now > schedule.end.saturating_add(nanos(STALL_MAX)) {
                self.report.unsent = until - published;
                return Ok(true);
            }
            let due = pace.due(now).min(until) - published;
            if due == 0 {
                self.wait_for_input(pace.intended(published).saturating_sub(now))?;
                continue;
            }
            writes = writes.wrapping_add(1);
            let count = self.room(writes)?.min(usize::try_from(due).unwrap_or(usize::MAX));
            if count == 0 {
                continue;
            }
            let sent = self.clock.nanos();
            let producer = self.index;
            let batch = &mut self.batch;
            let mut latencies = self.progress.latencies[usize::from(producer)].lock().expect("nobody panics with it");
            batch.stamp(count, |index| {
                let number = published + u64::from(index);
                let intended = pace.intended(number);
                latencies.send_lag.record(sent.saturating_sub(intended));
                Stamp { producer, sequence: low_half(number), times: Some(Times { intended, sent }) }
            });
            drop(latencies);
            if !self.write(count, sent, schedule)? {
                return Ok(false);
            }
        }
    }

    /// How many messages may be sent now; waits a little where there are none, and listens to the broker now and then.
    fn room(&mut self, writes: u32) -> Result<usize, ClientError> {
        if let Some(window) = &self.window {
            if window.room() <= window.outstanding() {
                self.drain_input()?;
            }
            if self.window.as_ref().is_some_and(ConfirmWindow::is_nearly_full) {
                self.wait_for_input(nanos(LOOK_UP))?;
            }
        } else if writes.is_multiple_of(WRITES_PER_LOOK) {
            self.drain_input()?;
        }
        let mut room = (self.batch.room() as u64).min(self.count_max - self.report.published);
        if let Some(window) = &self.window {
            room = room.min(window.room());
        }
        if let Some(in_flight_max) = self.in_flight_max {
            let totals = self.progress.totals();
            let in_flight = totals.published.saturating_sub(totals.received / self.copies);
            room = room.min(in_flight_max.saturating_sub(in_flight));
            if room == 0 {
                std::thread::sleep(IN_FLIGHT_REST);
            }
        }
        Ok(usize::try_from(room).expect("bounded by the batch"))
    }

    /// Writes the next `count` messages. `false` where the broker takes nothing more after the end of the run: the last
    /// message is cut then.
    fn write(&mut self, count: usize, now: u64, schedule: Schedule) -> Result<bool, ClientError> {
        if let Some(window) = &mut self.window {
            window.publish(count as u64, now);
        }
        let octets = self.batch.octets(count).len();
        let mut written = 0;
        let mut progressed_at = now;
        while written < octets {
            match self.client.socket.write(&self.batch.octets(count)[written..]) {
                Ok(more) => {
                    written += more;
                    if written < octets {
                        progressed_at = self.clock.nanos();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    // Confirms that nobody reads might be what holds the broker up.
                    self.drain_input()?;
                    let now = self.clock.nanos();
                    let is_over = now >= schedule.end || self.progress.producers_stopped();
                    if is_over && now - progressed_at > nanos(STALL_MAX) {
                        break;
                    }
                }
                Err(error) => return Err(self.client.why_broken("publishing", error)),
            }
        }
        let whole = if written == octets { count } else { self.batch.whole_messages(written) };
        if whole < count
            && let Some(window) = &mut self.window
        {
            window.take_back((count - whole) as u64);
        }
        self.batch.advance(whole);
        self.report.published += whole as u64;
        self.progress.published[usize::from(self.index)].set(self.report.published);
        Ok(whole == count)
    }

    fn await_confirms(&mut self) -> Result<(), ClientError> {
        let (mut left, mut since) = (u64::MAX, self.clock.nanos());
        while let Some(outstanding @ 1..) = self.window.as_ref().map(ConfirmWindow::outstanding) {
            let now = self.clock.nanos();
            if outstanding < left {
                (left, since) = (outstanding, now);
            } else if now - since > nanos(STALL_MAX) || self.progress.has_failed() {
                break;
            }
            self.wait_for_input(nanos(LOOK_UP))?;
        }
        Ok(())
    }

    /// Waits so long at most for something to read, and reads it.
    fn wait_for_input(&mut self, timeout_nanos: u64) -> Result<(), ClientError> {
        let nanos = timeout_nanos.min(nanos(LOOK_UP));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::try_from(nanos).expect("bounded above") };
        let mut sockets = [PollFd::new(&self.client.socket, PollFlags::IN)];
        if poll(&mut sockets, Some(&timeout)).unwrap_or(0) > 0 {
            self.drain_input()?;
        }
        Ok(())
    }

    /// Reads all that is there: confirms, mostly.
    fn drain_input(&mut self) -> Result<(), ClientError> {
        loop {
            let room = self.client.input.room();
            let room_octets = room.len();
            match recv(&self.client.socket, room, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(ClientError::Ended),
                Ok((octets, _)) => {
                    self.client.input.filled(octets);
                    self.handle_input()?;
                    if octets < room_octets {
                        return Ok(());
                    }
                }
                Err(error) if is_timeout(&error.into()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(ClientError::Io("reading confirms".to_owned(), error.into())),
            }
        }
    }

    fn handle_input(&mut self) -> Result<(), ClientError> {
        let now = self.clock.nanos();
        let mut latencies = self.progress.latencies[usize::from(self.index)].lock().expect("nobody panics with it");
        let client = &mut self.client;
        while let Some((frame, used)) = take_frame(client.input.unread(), client.frame_octets_max)? {
            if frame.kind == FrameKind::Method {
                let settled = match Method::decode(frame.payload)? {
                    Method::BasicAck(basic::Ack { delivery_tag, multiple }) => {
                        Some((delivery_tag, multiple, Verdict::Ack))
                    }
                    Method::BasicNack(basic::Nack { delivery_tag, multiple, .. }) => {
                        Some((delivery_tag, multiple, Verdict::Nack))
                    }
                    Method::ConnectionBlocked(_) => {
                        self.report.blocked += 1;
                        None
                    }
                    method => {
                        check_close(&method)?;
                        None
                    }
                };
                if let (Some((tag, multiple, verdict)), Some(window)) = (settled, &mut self.window) {
                    window.settle(tag, multiple, verdict, now, 0, &mut latencies.confirm);
                }
            }
            client.input.consume(used);
        }
        if let Some(window) = &self.window {
            self.progress.confirmed[usize::from(self.index)].set(window.confirmed());
        }
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a stamp holds the low half")]
#[inline]
fn low_half(number: u64) -> u32 {
    number as u32
}
