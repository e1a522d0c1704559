//! The driver of one shard: a glommio executor on one thread, around a [`Shard`].
//!
//! It waits for sockets, rings and mail, gives the shard what has arrived, and writes what the shard has left: each turn
//! ends with one write to each connection that has output, and one batch to each shard that there is something to tell. Where
//! other shards have sent much at once, that is done in between as well, so that consumers' outputs do not fill up.
//!
//! No task is woken for a message. No task ever yields while it has work: see `READS_MAX` in `socket.rs`.

use super::{
    Shard,
    batch::Batch,
    control_message::ControlRequest,
    mesh::{Links, Mail},
    socket::{self, REST, Socket},
    watch::{self, Watch},
};
use crate::{
    definitions::Definitions,
    limits::{FRAME_OCTETS_MAX, JOURNAL_LONG_COMMIT_OCTETS, READ_OCTETS},
    store::{
        DiskReply, DiskRequest,
        damage::remedy,
        disk_thread::{DISK_FAILED_EXIT_CODE, DiskThreads},
        journal::JournalCounters,
    },
};
use arc_swap::ArcSwap;
use glommio::{
    LocalExecutorBuilder, Placement,
    net::TcpStream,
    timer::{self, Timer},
};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// How often time-outs are looked at.
const TICK: Duration = Duration::from_millis(100);
/// So many octets of publishes from other shards are handled before what has come of them is written: with more, consumers' outputs
/// become full and messages have to be kept in their queues, with less, more writes are made.
const PUBLISHES_PER_WRITE_OCTETS: u64 = 128 << 10;
/// Rounds of delivering and writing in one turn; what is left then waits for the next turn.
const ROUNDS_MAX: usize = 8;
/// Memory is given back to the system once in so many ticks, where at least so many octets were freed.
const TICKS_PER_COLLECTION: u64 = 10;
const COLLECTED_OCTETS_MIN: u64 = 1 << 20;
/// Several times, since the allocator keeps for a while what was freed right before.
const COLLECTIONS: u32 = 3;
/// glommio 0.9 can park with runnable tasks when its preempt timer fires: it never does.
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);
/// As short as a timer may be: in the meantime some I/O is looked for.
const PAUSE: Duration = Duration::from_micros(1);
/// Below this part of the limit, in percent, memory is no longer short.
const MEMORY_RELIEF_PERCENT: u64 = 90;

/// The definitions as the control plane has published them.
pub struct Published {
    version: AtomicU64,
    current: ArcSwap<Definitions>,
}

impl Published {
    /// The first ones.
    pub fn new(definitions: Arc<Definitions>) -> Self {
        Self { version: AtomicU64::new(definitions.version), current: ArcSwap::new(definitions) }
    }

    /// Publishes a newer snapshot.
    pub fn publish(&self, definitions: Arc<Definitions>) {
        let version = definitions.version;
        self.current.store(definitions);
        self.version.store(version, Ordering::Release);
    }

    /// The newest snapshot.
    pub fn load(&self) -> Arc<Definitions> {
        self.current.load_full()
    }
}

/// What shards tell the rest of the process about themselves, without being asked.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gauges {
    /// Memory that messages and outputs hold, in octets.
    pub octets_held: AtomicU64,
    /// Connections, those under way counted.
    pub connections: AtomicUsize,
    /// Whether the shard is closing and its last connection is gone.
    pub is_drained: AtomicBool,
    /// Whether the shard has ended.
    pub has_ended: AtomicBool,
}

/// What one shard is started with.
pub struct ShardStart {
    /// The shard.
    pub shard: Shard,
    /// Its rings and its mail.
    pub links: Links,
    /// The core that it is pinned to.
    pub core: Option<usize>,
    /// Whether it watches for work before it sleeps, whatever it has done.
    pub busy_poll: bool,
    /// Entries of each of the executor's rings.
    pub ring_entries: usize,
    /// Locked memory for the executor's own buffers, in octets.
    pub io_memory_octets: usize,
    /// The definitions.
    pub published: Arc<Published>,
    /// The control plane.
    pub control: Box<dyn FnMut(ControlRequest) + Send>,
    /// The gauges of all shards.
    pub gauges: Arc<Vec<Gauges>>,
    /// Above how much memory publishers are paused, in octets.
    pub memory_limit_octets: u64,
    /// Does what the shard asks of the disk; none where nothing outlives the process.
    pub disk: Option<DiskThreads>,
    /// Whether the disk has too little room left.
    pub disk_is_short: Arc<AtomicBool>,
    /// Gives memory back to the system that this thread has freed.
    pub collect_memory: fn(),
    /// Zero on the broker's clock.
    pub clock: Instant,
}

/// A shard with everything that its tasks share.
pub(super) struct EventLoop {
    pub shard: Shard,
    pub sockets: Vec<Option<Socket>>,
    pub read_buffer: Vec<u8>,
    links: Links,
    published: Arc<Published>,
    published_version: u64,
    control: Box<dyn FnMut(ControlRequest)>,
    gauges: Arc<Vec<Gauges>>,
    memory_limit_octets: u64,
    memory_is_short: bool,
    disk: Option<DiskThreads>,
    disk_is_short: Arc<AtomicBool>,
    disk_was_short: bool,
    /// Whether a timer is set for when the journal is to be looked at without anything coming in.
    is_holding: bool,
    watch: Watch,
    collect_memory: fn(),
    /// The most memory that was held since it was last given back.
    octets_held_most: u64,
    collections_left: u32,
    clock: Instant,
    accepted: Vec<(std::net::TcpStream, SocketAddr)>,
    /// Batches that are being handled, and those that wait for the next look: kept for their memory.
    taken: Vec<(usize, Batch)>,
    later: Vec<(usize, Batch)>,
    is_closing: bool,
    ticks: u64,
    /// Whether the next turn that the shard wants is on its way.
    is_resting: bool,
}

/// Runs a shard on the current thread until it is told to end and its connections are gone. Calls `started` once it runs.
///
/// # Errors
/// Where the executor can't be made.
pub fn run(start: ShardStart, started: impl FnOnce()) -> Result<(), String> {
    let placement = start.core.map_or(Placement::Unbound, Placement::Fixed);
    let builder = LocalExecutorBuilder::new(placement)
        .name("shard")
        .preempt_timer(PREEMPT_TIMER)
        .ring_depth(start.ring_entries)
        .io_memory(start.io_memory_octets);
    let executor = builder.make().map_err(|error| error.to_string())?;
    let gauges = Arc::clone(&start.gauges);
    let index = usize::from(start.shard.index().0);
    executor.run(async {
        started();
        live(start).await;
    });
    gauges[index].has_ended.store(true, Ordering::Release);
    Ok(())
}

async fn live(start: ShardStart) {
    let doorbell = Arc::clone(&start.links.doorbell);
    let event_loop = Rc::new(RefCell::new(EventLoop::new(start)));
    {
        // The queues that were left are told of by mail.
        let mut event_loop = event_loop.borrow_mut();
        event_loop.begin_turn();
        event_loop.take_mail();
        event_loop.shard.leave_older_journals();
    }
    let ticking = Rc::clone(&event_loop);
    glommio::spawn_local(async move {
        loop {
            timer::sleep(TICK).await;
            ticking.borrow_mut().tick();
        }
    })
    .detach();
    let mut timers = Timers::default();
    poll_fn(|context| {
        doorbell.register(context.waker());
        let was_rung = doorbell.answer();
        let (accepted, is_over) = {
            let mut event_loop = event_loop.borrow_mut();
            event_loop.run(was_rung, &mut timers, context);
            (std::mem::take(&mut event_loop.accepted), event_loop.is_over())
        };
        for (stream, peer) in accepted {
            take_in(&event_loop, stream, peer);
        }
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The timers of the task that takes what has come.
#[derive(Default)]
struct Timers {
    /// A shard that has more to do of itself rests in between: I/O is looked for only when no task can run.
    rest: Option<Timer>,
    /// A batch of the journal is held back. It goes off when no task can run: what has come in by then is handled.
    hold: Option<Timer>,
    /// I/O is looked for while the shard watches.
    pause: Option<Timer>,
}

/// Whether a timer has gone off. It is gone then.
fn has_gone_off(timer: &mut Option<Timer>, context: &mut Context<'_>) -> bool {
    timer.take_if(|timer| Pin::new(timer).poll(context).is_ready()).is_some()
}

/// Sets a timer. The task is woken when it goes off.
fn set(timer: &mut Option<Timer>, wait: Duration, context: &mut Context<'_>) {
    if Pin::new(timer.insert(Timer::new(wait))).poll(context).is_ready() {
        context.waker().wake_by_ref();
    }
}

/// Takes in a connection that the listener has accepted.
fn take_in(event_loop: &Rc<RefCell<EventLoop>>, stream: std::net::TcpStream, peer: SocketAddr) {
    let stream = TcpStream::from(socket2::Socket::from(stream));
    let id = {
        let mut event_loop = event_loop.borrow_mut();
        let id = event_loop.shard.handle_accepted(peer.ip().to_canonical().is_loopback());
        let index = id.slot as usize;
        if event_loop.sockets.len() <= index {
            event_loop.sockets.resize_with(index + 1, || None);
        }
        event_loop.sockets[index] = Some(Socket::new(&stream));
        id
    };
    glommio::spawn_local(socket::serve(Rc::clone(event_loop), stream, id)).detach();
}

impl EventLoop {
    fn new(start: ShardStart) -> Self {
        let ShardStart { shard, links, published, control, gauges, memory_limit_octets, .. } = start;
        let ShardStart { disk, disk_is_short, collect_memory, clock, core, busy_poll, .. } = start;
        Self {
            published_version: shard.definitions_version(),
            shard,
            sockets: Vec::new(),
            read_buffer: vec![0; 2 * READ_OCTETS + FRAME_OCTETS_MAX],
            links,
            published,
            control,
            gauges,
            memory_limit_octets,
            memory_is_short: false,
            disk,
            disk_is_short,
            disk_was_short: false,
            is_holding: false,
            watch: Watch::new(core.is_some(), busy_poll),
            collect_memory,
            octets_held_most: 0,
            collections_left: 0,
            clock,
            accepted: Vec::new(),
            taken: Vec::new(),
            later: Vec::new(),
            is_closing: false,
            ticks: 0,
            is_resting: false,
        }
    }

    /// To be called before anything is given to the shard that has come in from outside.
    pub fn begin_turn(&mut self) {
        let since = self.clock.elapsed();
        self.watch.note_turn(micros(since));
        self.set_time(since);
    }

    /// Sets the time of the shard, and gives it the definitions if they are newer.
    fn set_time(&mut self, since_start: Duration) {
        self.shard.set_now(micros(since_start) / 1000);
        let version = self.published.version.load(Ordering::Acquire);
        if version != self.published_version {
            self.published_version = version;
            self.shard.set_definitions(self.published.load());
            // Mails about new queues were sent before the definitions that name them.
            self.take_mail();
        }
    }

    /// Does what the task is for that takes what other shards, threads and timers have sent.
    fn run(&mut self, was_rung: bool, timers: &mut Timers, context: &mut Context<'_>) {
        self.is_resting = true;
        if has_gone_off(&mut timers.hold, context) {
            self.is_holding = false;
            let now = self.now_micros();
            self.shard.handle_disk_deadline(now);
        }
        self.watch.attend();
        if was_rung {
            let now = self.now_micros();
            self.watch.note_turn(now);
        }
        let was_idle = has_gone_off(&mut timers.pause, context) && self.watch.end_pause();
        self.pump();
        timers.rest = None;
        self.is_resting = self.shard.wants_turn();
        if self.is_resting {
            set(&mut timers.rest, REST, context);
        }
        // One that goes off too early, as the deadline was put off, is set again then.
        if timers.hold.is_none()
            && let Some(wait) = self.disk_wait()
        {
            self.is_holding = true;
            set(&mut timers.hold, wait, context);
        }
        let now = self.now_micros();
        if timers.pause.is_none() && self.watch.leave(now) {
            if was_idle && watch::slice(&self.links.doorbell) {
                context.waker().wake_by_ref();
            } else {
                self.watch.begin_pause();
                set(&mut timers.pause, PAUSE, context);
            }
        }
    }

    /// Takes what other shards and threads have sent.
    fn pump(&mut self) {
        self.set_time(self.clock.elapsed());
        self.take_batches();
        self.end_turn();
    }

    /// To be called between reading and handling what was read: what other shards have sent before comes first.
    #[inline]
    pub fn take_rung(&mut self) {
        if self.links.doorbell.is_rung() {
            self.take_batches();
        }
    }

    /// The time for what is asked of the disk, in microseconds.
    fn now_micros(&self) -> u64 {
        micros(self.clock.elapsed())
    }

    /// Takes what the disk has answered.
    fn take_disk_replies(&mut self) {
        while let Some(reply) = self.disk.as_ref().and_then(DiskThreads::try_reply) {
            let now = self.now_micros();
            if matches!(reply, DiskReply::Committed { .. }) {
                self.watch.note_committed(now);
            }
            self.shard.handle_disk(reply, now);
        }
        if let (Some(failure), Some(disk)) = (self.shard.disk_failure(), &self.disk) {
            eprintln!("lepus: {failure}; the broker ends: {}.", remedy(disk.directory()));
            std::process::exit(DISK_FAILED_EXIT_CODE);
        }
    }

    /// Asks the disk what the shard has to ask.
    fn ask_disk(&mut self) {
        let now = self.now_micros();
        let Self { disk: Some(disk), shard, watch, .. } = self else { return };
        watch.note_busy(now);
        while let Some(request) = shard.poll_disk_request(now) {
            if let DiskRequest::Commit { octets, .. } = &request {
                watch.note_commit(octets.len() >= JOURNAL_LONG_COMMIT_OCTETS, now);
                disk.set_core_has_time(watch.is_idle());
            }
            disk.submit(request);
        }
        if !self.is_holding && shard.next_disk_deadline().is_some() {
            // The task that takes what has come sets the timer.
            self.links.doorbell.poke();
        }
    }

    /// How long to wait before the journal is looked at again, if it is to be.
    fn disk_wait(&self) -> Option<Duration> {
        let deadline = self.shard.next_disk_deadline()?;
        Some(Duration::from_micros(deadline.saturating_sub(self.now_micros())))
    }

    fn take_batches(&mut self) {
        self.take_disk_replies();
        let (mut taken, mut later) = (std::mem::take(&mut self.taken), std::mem::take(&mut self.later));
        let mut publish_octets = 0;
        loop {
            self.links.receive_all(&mut taken, &mut later);
            // What the control plane sent before a batch was sent must be known before.
            self.take_mail();
            if taken.is_empty() {
                break;
            }
            for (peer, batch) in taken.drain(..) {
                publish_octets += batch.publish_octets;
                self.shard.handle_batch(peer, batch);
                if publish_octets >= PUBLISHES_PER_WRITE_OCTETS {
                    self.write_out();
                    publish_octets = 0;
                }
            }
        }
        (self.taken, self.later) = (taken, later);
    }

    fn send_batches(&mut self) {
        for peer in 0..self.links.shard_count() {
            if self.links.has_room(peer)
                && let Some(batch) = self.shard.poll_batch(peer)
            {
                self.links.send(peer, batch);
                if let Some(empty) = self.links.take_back(peer) {
                    self.shard.add_spare(peer, empty);
                }
            }
            while let Some(empty) = self.shard.poll_emptied(peer) {
                self.links.give_back(peer, empty);
            }
        }
    }

    fn take_mail(&mut self) {
        while let Ok(mail) = self.links.mail.try_recv() {
            match mail {
                Mail::Control(mail) => {
                    self.refresh_definitions();
                    self.shard.handle_control(mail);
                }
                Mail::Connection(stream, peer) => self.accepted.push((stream, peer)),
                Mail::Shutdown => {
                    self.is_closing = true;
                    self.shard.begin_shutdown();
                }
            }
        }
        if !self.accepted.is_empty() {
            // They may have come outside of the task that spawns theirs.
            self.links.doorbell.poke();
        }
    }

    /// Writes everything out that the shard has left.
    pub fn end_turn(&mut self) {
        let mut rounds = 0;
        loop {
            let wrote = self.write_out();
            if !self.ask_control() && !wrote {
                break;
            }
            rounds += 1;
            if rounds == ROUNDS_MAX {
                self.links.doorbell.poke();
                break;
            }
        }
        self.send_batches();
        if (self.shard.wants_turn() && !self.is_resting) || self.watch.is_to_begin() {
            self.links.doorbell.poke();
        }
        while let Some(slot) = self.shard.poll_resumed() {
            if let Some(socket) = self.sockets.get_mut(slot as usize).and_then(Option::as_mut) {
                socket.resume();
            }
        }
        self.watch_memory();
    }

    /// Ends the shard's turn, sends its batches and writes to its sockets. Whether there was something to write.
    fn write_out(&mut self) -> bool {
        self.shard.finish_turn();
        self.ask_disk();
        // Before the sockets: who has its answer may go on elsewhere.
        self.send_batches();
        let mut wrote = false;
        while let Some(slot) = self.shard.poll_dirty() {
            self.flush(slot);
            wrote = true;
        }
        wrote
    }

    /// Asks the control plane what the shard has to ask. Whether there are answers already.
    fn ask_control(&mut self) -> bool {
        let mut asked = false;
        while let Some(request) = self.shard.poll_control_request() {
            (self.control)(request);
            asked = true;
        }
        if asked {
            self.refresh_definitions();
            self.take_mail();
        }
        asked
    }

    fn refresh_definitions(&mut self) {
        let version = self.published.version.load(Ordering::Acquire);
        if version != self.published_version {
            self.published_version = version;
            self.shard.set_definitions(self.published.load());
        }
    }

    fn flush(&mut self, slot: u32) {
        let Some(socket) = self.sockets.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let Some(output) = self.shard.output(slot) else { return };
        let written = socket.write(output);
        self.shard.handle_written(slot, written.octets, written.is_stuck);
        if written.is_broken || (!written.is_stuck && self.shard.is_closed(slot)) {
            socket.end();
        }
    }

    /// The connection's own task has written to a socket that was stuck.
    pub fn written(&mut self, slot: u32, octets: usize) {
        self.shard.handle_written(slot, octets, false);
        self.flush(slot);
    }

    fn watch_memory(&mut self) {
        let index = usize::from(self.shard.index().0);
        let octets_held = self.shard.octets_held();
        self.octets_held_most = self.octets_held_most.max(octets_held);
        self.gauges[index].octets_held.store(octets_held, Ordering::Relaxed);
        let held: u64 = self.gauges.iter().map(|gauges| gauges.octets_held.load(Ordering::Relaxed)).sum();
        let relief = self.memory_limit_octets / 100 * MEMORY_RELIEF_PERCENT;
        let is_short = if self.memory_is_short { held > relief } else { held > self.memory_limit_octets };
        if is_short != self.memory_is_short {
            self.memory_is_short = is_short;
            self.shard.set_memory_is_short(is_short);
            if is_short {
                tracing::warn!("memory is short: {held} octets are held, publishers wait");
            } else {
                tracing::info!("memory is no longer short: {held} octets are held");
            }
        }
        let disk_is_short = self.disk_is_short.load(Ordering::Relaxed);
        if disk_is_short != self.disk_was_short {
            self.disk_was_short = disk_is_short;
            self.shard.set_disk_is_short(disk_is_short);
        }
    }

    fn tick(&mut self) {
        self.begin_turn();
        self.ticks += 1;
        self.shard.handle_tick(self.ticks);
        self.end_turn();
        if self.ticks.is_multiple_of(TICKS_PER_COLLECTION) {
            self.give_memory_back();
        }
        if self.is_closing {
            self.links.doorbell.poke();
        }
    }

    /// Lets the allocator give memory back, if much was freed.
    fn give_memory_back(&mut self) {
        let held = self.shard.octets_held();
        if held + COLLECTED_OCTETS_MIN < self.octets_held_most {
            self.octets_held_most = held;
            self.collections_left = COLLECTIONS;
        }
        if self.collections_left > 0 {
            self.collections_left -= 1;
            (self.collect_memory)();
        }
    }

    /// A socket is gone.
    pub fn disconnected(&mut self, slot: u32) {
        self.begin_turn();
        self.sockets[slot as usize] = None;
        self.shard.handle_disconnected(slot);
        let index = usize::from(self.shard.index().0);
        self.gauges[index].connections.fetch_sub(1, Ordering::Relaxed);
        self.end_turn();
        if self.is_closing {
            self.links.doorbell.poke();
        }
    }

    /// Whether the shard may end: no shard has connections any more, nothing is under way between them, and the journal says
    /// how all stands.
    fn is_over(&mut self) -> bool {
        if !self.is_closing || self.shard.connection_count() > 0 || !self.accepted.is_empty() {
            return false;
        }
        if self.shard.has_batches() {
            // Their rings are full.
            return false;
        }
        let index = usize::from(self.shard.index().0);
        self.gauges[index].is_drained.store(true, Ordering::Release);
        if !self.gauges.iter().all(|gauges| gauges.is_drained.load(Ordering::Acquire)) {
            return false;
        }
        // What the others had sent before.
        self.take_batches();
        self.shard.finish_turn();
        let is_settled = self.shard.poll_settled();
        self.ask_disk();
        if is_settled && let Some(counters) = self.shard.journal_counters() {
            let JournalCounters { commits, octets, records, holds } = counters;
            tracing::info!(shard = index, commits, octets, records, holds, "the journal is closed");
        }
        is_settled
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("the broker runs for less than ages")
}
