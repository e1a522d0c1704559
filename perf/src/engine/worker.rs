//! One thread of the load generator: an executor, the connections that are its share, and a tick.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use glommio::timer::sleep;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use lepus::protocol::method::{Method, basic, confirm, queue, tx};

use crate::engine::churn;
use crate::engine::client::{CHANNEL, Client, ClientError, Endpoint};
use crate::engine::clock::nanos;
use crate::engine::link::Link;
use crate::engine::recorder::Recordings;
use crate::engine::sequence::{Lane, NotTaken};
use crate::engine::sink::{Mode, Sink};
use crate::engine::source::Source;
use crate::engine::topology::NO_ARGUMENTS;
use crate::engine::{Context, Shared};
use crate::options::Workload;

/// How often a thread looks for signals, at least.
const TICK: Duration = Duration::from_millis(5);
const SECOND_NANOS: u64 = 1_000_000_000;
/// Connections that are opened at once by one thread.
const CONNECTING_MAX: usize = 64;
/// The pseudo queue of direct reply-to.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// What a thread tells the one that watches the run.
pub enum Event {
    /// Its connections are open.
    Ready,
    /// About a second has passed.
    Snapshot(Snapshot),
    /// It has ended.
    Ended(Report),
}

/// What has happened since the last one.
pub struct Snapshot {
    /// Counts from 0.
    pub number: u64,
    /// When it was taken.
    pub at: u64,
    /// Which thread has taken it.
    pub thread: usize,
    /// It is the last one of the run's time.
    pub is_last: bool,
    /// What was recorded.
    pub recordings: Recordings,
}

/// What there is to say in the end.
#[derive(Default)]
pub struct Report {
    /// What was recorded after the last snapshot.
    pub recordings: Recordings,
    /// What consumers have seen: by queue and producer.
    pub lanes: Vec<((usize, usize), Lane)>,
    /// What RPC clients have seen of replies, by producer.
    pub replies: Vec<(usize, Lane)>,
    /// Messages that came and were none of this run's, or damaged.
    pub corrupted: u64,
    /// Messages that consumers had not worked at when the run ended.
    pub unworked: u64,
    /// What each channel has published.
    pub published: Vec<(u16, u64)>,
    /// What the broker has refused or returned of each channel's messages.
    pub not_taken: Vec<(u16, NotTaken)>,
    /// Messages that should have been sent and were not.
    pub unsent: u64,
    /// Messages, or commits, that the broker has not answered.
    pub unanswered: u64,
}

/// Starts an executor as this project needs it: never preempted by its timer, which would make it sleep with tasks that can
/// run.
pub fn executor(core: Option<usize>) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(core.map_or(Placement::Unbound, Placement::Fixed))
        .ring_depth(4096)
        .io_memory(1 << 20)
        .preempt_timer(Duration::from_secs(3600))
}

/// Starts a thread. It looks for work for `spin` before it goes to sleep, where it has a core.
///
/// # Errors
/// Where the system does not give what it needs.
pub fn start(
    shared: Arc<Shared>,
    thread: usize,
    core: Option<usize>,
    spin: Duration,
    events: Sender<Event>,
) -> Result<ExecutorJoinHandle<()>, String> {
    let builder = executor(core).name(&format!("perf-{thread}")).spin_before_park(spin);
    builder
        .spawn(move || run(shared, thread, events))
        .map_err(|error| format!("starting a thread with io_uring: {error}"))
}

/// What one connection is for.
#[derive(Clone, Copy, Debug)]
enum Role {
    Producer(usize),
    Consumer(usize),
}

async fn run(shared: Arc<Shared>, thread: usize, events: Sender<Event>) {
    // Sleeps end when they should; without it they end some 50 microseconds late.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let context = Context::new(Arc::clone(&shared), thread);
    let threads = shared.progress.len();
    let producers = (0..shared.options.producers).map(Role::Producer);
    // One producer and one consumer are on two threads, where there are two.
    let consumers = if shared.options.workload.is_churn() { 0 } else { shared.options.consumers };
    let roles = producers.chain((0..consumers).map(Role::Consumer)).skip(thread).step_by(threads);
    let roles: Vec<Role> = roles.collect();
    let report = Rc::new(RefCell::new(Report::default()));
    let running = Rc::new(Cell::new(0));
    if shared.options.workload.is_churn() {
        for role in roles {
            let (Role::Producer(index) | Role::Consumer(index)) = role;
            let (context, running) = (Rc::clone(&context), Rc::clone(&running));
            running.set(running.get() + 1);
            glommio::spawn_local(async move {
                churn::run(&context, index).await;
                running.set(running.get() - 1);
            })
            .detach();
        }
    } else {
        for links in connect_all(&context, &roles).await {
            let (context, running, report) = (Rc::clone(&context), Rc::clone(&running), Rc::clone(&report));
            running.set(running.get() + 1);
            glommio::spawn_local(async move {
                run_link(&context, links, &report).await;
                running.set(running.get() - 1);
            })
            .detach();
        }
    }
    // Nobody listens any more where the run has failed.
    let _ = events.send(Event::Ready);
    tick(&context, &running, &events).await;
    let mut report = report.take();
    report.recordings = context.recorder.borrow_mut().take();
    let _ = events.send(Event::Ended(report));
}

/// A connection with its name.
type NamedLink = (String, Endpoint, Link);

async fn run_link(context: &Context, (name, endpoint, link): NamedLink, report: &RefCell<Report>) {
    match link.run().await {
        Ok((sources, sinks)) => {
            let mut report = report.borrow_mut();
            for source in sources {
                report.published.push((source.index, source.published));
                report.unsent += source.unsent;
                report.unanswered += source.unanswered();
                report.not_taken.push((source.index, source.not_taken));
            }
            for sink in sinks {
                report.corrupted += sink.corrupted;
                report.unworked += sink.unworked;
                match sink.mode {
                    Mode::Replies(_) => {
                        report.replies.extend(sink.into_lanes().map(|((_, producer), lane)| (producer, lane)))
                    }
                    _ => report.lanes.extend(sink.into_lanes()),
                }
            }
        }
        Err(error) => context.shared.fail(format!("{name} at {}", endpoint.sentence(&error))),
    }
}

async fn connect_all(context: &Rc<Context>, roles: &[Role]) -> Vec<NamedLink> {
    let mut links = Vec::new();
    for some in roles.chunks(CONNECTING_MAX) {
        let connect = |&role: &Role| {
            let context = Rc::clone(context);
            glommio::spawn_local(async move { connect(&context, role).await })
        };
        let tasks: Vec<_> = some.iter().map(connect).collect();
        for task in tasks {
            match task.await {
                Ok(link) => links.push(link),
                Err(sentence) => context.shared.fail(sentence),
            }
        }
        if context.shared.has_failed() {
            return Vec::new();
        }
    }
    links
}

async fn connect(context: &Rc<Context>, role: Role) -> Result<NamedLink, String> {
    let shared = &context.shared;
    let (name, number) = match role {
        Role::Producer(index) => (format!("producer {index}"), index),
        Role::Consumer(index) => (format!("consumer {index}"), index + shared.options.producers),
    };
    let endpoint = &shared.endpoints[number % shared.endpoints.len()];
    let open = async {
        let client = Client::open(endpoint, &format!("lepus-perf {name}")).await?;
        match role {
            Role::Producer(index) => producer(context, client, index).await,
            Role::Consumer(index) => consumer(context, client, index).await,
        }
    };
    match open.await {
        Ok(link) => Ok((name, endpoint.clone(), link)),
        Err(error) => Err(format!("{name} at {}", endpoint.sentence(&error))),
    }
}

async fn producer(context: &Rc<Context>, mut client: Client, index: usize) -> Result<Link, ClientError> {
    let (shared, options) = (&context.shared, &context.shared.options);
    let channels = options.producer_channel_count;
    let (mut sources, mut sinks) = (Vec::new(), Vec::new());
    for channel in CHANNEL..=channels {
        if channel > CHANNEL {
            client.open_channel(channel).await?;
        }
        if options.confirm.is_some() {
            client.send(channel, &Method::ConfirmSelect(confirm::Select { no_wait: false })).await?;
            let is_ok = |method: &Method<'_>| matches!(method, Method::ConfirmSelectOk(_)).then_some(());
            client.expect("confirm.select-ok", is_ok).await?;
        }
        if options.tx_size.is_some() {
            client.send(channel, &Method::TxSelect(tx::Select {})).await?;
            let is_ok = |method: &Method<'_>| matches!(method, Method::TxSelectOk(_)).then_some(());
            client.expect("tx.select-ok", is_ok).await?;
        }
        let number = index * usize::from(channels) + usize::from(channel - CHANNEL);
        let mut reply_to = None;
        if options.workload == Workload::Rpc {
            let queue =
                if options.reply_queue { reply_queue(&mut client, channel).await? } else { DIRECT_REPLY_TO.to_owned() };
            sinks.push(Sink::new(shared, number, channel, Mode::Replies(queue.clone())));
            reply_to = Some(queue);
        }
        let number = u16::try_from(number).expect("the options are checked");
        sources.push(Source::new(shared, number, channel, client.frame_octets_max, reply_to));
    }
    Ok(Link::new(Rc::clone(context), client, sources, sinks))
}

async fn reply_queue(client: &mut Client, channel: u16) -> Result<String, ClientError> {
    let declare = queue::Declare {
        queue: b"",
        passive: false,
        durable: false,
        exclusive: true,
        auto_delete: true,
        no_wait: false,
        arguments: NO_ARGUMENTS,
    };
    client.send(channel, &Method::QueueDeclare(declare)).await?;
    let name = client.expect("queue.declare-ok", |method| match method {
        Method::QueueDeclareOk(ok) => Some(String::from_utf8_lossy(ok.queue).into_owned()),
        _ => None,
    });
    name.await
}

async fn consumer(context: &Rc<Context>, mut client: Client, index: usize) -> Result<Link, ClientError> {
    let (shared, options) = (&context.shared, &context.shared.options);
    let channels = options.consumer_channel_count;
    let mut sinks = Vec::new();
    for channel in CHANNEL..=channels {
        if channel > CHANNEL {
            client.open_channel(channel).await?;
        }
        if options.prefetch > 0 {
            let qos = basic::Qos { prefetch_size: 0, prefetch_count: options.prefetch, global: false };
            client.send(channel, &Method::BasicQos(qos)).await?;
            let is_ok = |method: &Method<'_>| matches!(method, Method::BasicQosOk(_)).then_some(());
            client.expect("basic.qos-ok", is_ok).await?;
        }
        let mode = match options.workload {
            Workload::Get => Mode::Get,
            Workload::Rpc => Mode::Serve,
            _ => Mode::Consume,
        };
        let number = index * usize::from(channels) + usize::from(channel - CHANNEL);
        sinks.push(Sink::new(shared, number, channel, mode));
    }
    Ok(Link::new(Rc::clone(context), client, Vec::new(), sinks))
}

/// For how long this thread was at work since this was last asked; looking for work is none.
fn busy_nanos() -> u64 {
    nanos(glommio::executor().executor_stats().total_runtime())
}

/// Passes signals on and takes snapshots, until all connections have ended.
async fn tick(context: &Context, running: &Cell<usize>, events: &Sender<Event>) {
    let shared = &context.shared;
    let (mut signals, mut number, mut is_last) = (0, 0, false);
    // When it was to wake up, while it is measured whether it does.
    let mut due = None;
    loop {
        if let Some(due) = due {
            let mut recorder = context.recorder.borrow_mut();
            recorder.timer_lag(shared.clock.nanos().saturating_sub(due));
            recorder.busy_nanos += busy_nanos();
        } else {
            // What came before the run is nobody's affair.
            let _ = busy_nanos();
        }
        let signals_now = shared.signals();
        if signals_now != signals {
            signals = signals_now;
            context.wake_all();
        }
        let mut rest = TICK;
        if let Some(schedule) = shared.schedule.get()
            && !is_last
        {
            let at = shared.clock.nanos();
            let boundary = (schedule.start + (number + 1) * SECOND_NANOS).min(schedule.end);
            if at >= boundary || shared.is_producing_over() {
                is_last = shared.is_producing_over() || at >= schedule.end;
                let recordings = context.recorder.borrow_mut().take();
                let _ =
                    events.send(Event::Snapshot(Snapshot { number, thread: context.thread, at, is_last, recordings }));
                number += 1;
            } else {
                rest = rest.min(Duration::from_nanos(boundary - at));
            }
        }
        if running.get() == 0 && (is_last || shared.is_over() || shared.has_failed()) {
            return;
        }
        if shared.has_failed() && shared.is_over() && shared.schedule.get().is_none() {
            return;
        }
        due = (shared.schedule.get().is_some() && !is_last).then(|| shared.clock.nanos() + nanos(rest));
        sleep(rest).await;
    }
}
