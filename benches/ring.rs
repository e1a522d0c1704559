//! What carries batches between two shards: the rings and doorbells of [`Links`], the same by hand without their order
//! across rings, and glommio's channel between executors. Each end is an executor on a core of its own, where there are two.
//!
//! *There and back*: one batch, whose receiver sleeps until it comes. *One way*: as many as the ring takes.
//!
//! Run it with `cargo bench --bench ring`, on a machine that does nothing else.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use glommio::{
    LocalExecutorBuilder, Placement,
    channels::shared_channel::{self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender},
};
use lepus::{
    limits::RING_BATCHES_MAX,
    shard::{
        batch::Batch,
        mesh::{self, Doorbell, Links},
    },
};
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

/// Makes both sides' ends.
type Make = fn() -> (Parts, Parts);

/// One side's ends, before its executor runs.
enum Parts {
    Ring(RingEnd),
    Links(LinksEnd),
    Channel(SharedSender<Batch>, SharedReceiver<Batch>),
}

enum End {
    Ring(RingEnd),
    Links(LinksEnd),
    Channel(ConnectedSender<Batch>, ConnectedReceiver<Batch>),
}

struct RingEnd {
    to: Producer<Batch>,
    from: Consumer<Batch>,
    own: Arc<Doorbell>,
    peer: Arc<Doorbell>,
}

struct LinksEnd {
    links: Links,
    peer: usize,
    /// In the reverse order.
    received: Vec<(usize, Batch)>,
    taken: Vec<(usize, Batch)>,
    later: Vec<(usize, Batch)>,
}

/// Sleeps until the doorbell is rung, or `is_ready`.
async fn wait(own: &Doorbell, mut is_ready: impl FnMut() -> bool) {
    poll_fn(|context| {
        own.register(context.waker());
        if own.answer() || is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl RingEnd {
    async fn send(&mut self, mut batch: Batch) {
        while let Err(PushError::Full(back)) = self.to.push(batch) {
            batch = back;
            let Self { to, own, .. } = self;
            wait(own, || !to.is_full()).await;
        }
        self.peer.ring();
    }

    async fn receive(&mut self) -> Batch {
        loop {
            if let Ok(batch) = self.from.pop() {
                // Whoever waits for room has filled the ring: this point is passed.
                if self.from.slots() == RING_BATCHES_MAX / 2 {
                    self.peer.ring();
                }
                return batch;
            }
            let Self { from, own, .. } = self;
            wait(own, || !from.is_empty()).await;
        }
    }
}

impl LinksEnd {
    fn new(links: Links, peer: usize) -> Self {
        Self { links, peer, received: Vec::new(), taken: Vec::new(), later: Vec::new() }
    }

    async fn send(&mut self, batch: Batch) {
        while !self.links.has_room(self.peer) {
            let Self { links, peer, .. } = self;
            let own = Arc::clone(&links.doorbell);
            wait(&own, || links.has_room(*peer)).await;
        }
        self.links.send(self.peer, batch);
    }

    async fn receive(&mut self) -> Batch {
        loop {
            if let Some((_, batch)) = self.received.pop() {
                return batch;
            }
            self.links.receive_all(&mut self.taken, &mut self.later);
            self.received.extend(self.taken.drain(..).rev());
            if self.received.is_empty() {
                let Self { links, taken, later, .. } = self;
                let own = Arc::clone(&links.doorbell);
                wait(&own, || {
                    links.receive_all(taken, later);
                    !taken.is_empty()
                })
                .await;
                self.received.extend(self.taken.drain(..).rev());
            }
        }
    }
}

impl Parts {
    async fn connect(self) -> End {
        match self {
            Self::Ring(end) => End::Ring(end),
            Self::Links(end) => End::Links(end),
            Self::Channel(sender, receiver) => {
                let (sender, receiver) = futures_lite::future::zip(sender.connect(), receiver.connect()).await;
                End::Channel(sender, receiver)
            }
        }
    }
}

impl End {
    async fn send(&mut self, batch: Batch) {
        match self {
            Self::Ring(end) => end.send(batch).await,
            Self::Links(end) => end.send(batch).await,
            Self::Channel(sender, _) => assert!(sender.send(batch).await.is_ok(), "the other end is there"),
        }
    }

    async fn receive(&mut self) -> Batch {
        match self {
            Self::Ring(end) => end.receive().await,
            Self::Links(end) => end.receive().await,
            Self::Channel(_, receiver) => receiver.recv().await.expect("the other end is there"),
        }
    }
}

fn rings() -> (Parts, Parts) {
    let ((to_b, from_a), (to_a, from_b)) = (RingBuffer::new(RING_BATCHES_MAX), RingBuffer::new(RING_BATCHES_MAX));
    let (bell_a, bell_b) = (Arc::<Doorbell>::default(), Arc::<Doorbell>::default());
    let a = RingEnd { to: to_b, from: from_b, own: Arc::clone(&bell_a), peer: Arc::clone(&bell_b) };
    let b = RingEnd { to: to_a, from: from_a, own: bell_b, peer: bell_a };
    (Parts::Ring(a), Parts::Ring(b))
}

fn links() -> (Parts, Parts) {
    let (mut links, _) = mesh::connect(2);
    let (b, a) = (links.pop().expect("there are two"), links.pop().expect("there are two"));
    (Parts::Links(LinksEnd::new(a, 1)), Parts::Links(LinksEnd::new(b, 0)))
}

fn channels() -> (Parts, Parts) {
    let (to_b, from_a) = shared_channel::new_bounded(RING_BATCHES_MAX);
    let (to_a, from_b) = shared_channel::new_bounded(RING_BATCHES_MAX);
    (Parts::Channel(to_b, from_b), Parts::Channel(to_a, from_a))
}

/// A batch that is not empty.
fn batch() -> Batch {
    let mut batch = Batch::default();
    batch.credit_octets = 1;
    batch
}

fn executor(side: usize) -> LocalExecutorBuilder {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let placement = if cores.len() > 1 { Placement::Fixed(cores[side].id) } else { Placement::Unbound };
    // What the broker's executors are given.
    LocalExecutorBuilder::new(placement).preempt_timer(Duration::from_secs(3600)).io_memory(1 << 20)
}

/// How long `count` batches take, one way or there and back.
fn time(parts: (Parts, Parts), count: u64, there_and_back: bool) -> Duration {
    let (a, b) = parts;
    let other = executor(1).spawn(move || async move {
        let mut end = b.connect().await;
        let first = end.receive().await;
        end.send(first).await;
        for _ in 0..count {
            let batch = end.receive().await;
            if there_and_back {
                end.send(batch).await;
            }
        }
        end.send(batch()).await;
        // Only now may this end go.
        end.receive().await;
    });
    let timed = executor(0).spawn(move || async move {
        let mut end = a.connect().await;
        end.send(batch()).await;
        end.receive().await;
        let start = Instant::now();
        for _ in 0..count {
            end.send(batch()).await;
            if there_and_back {
                end.receive().await;
            }
        }
        end.receive().await;
        let elapsed = start.elapsed();
        end.send(batch()).await;
        elapsed
    });
    let elapsed = timed.expect("an executor").join().expect("it ends");
    other.expect("an executor").join().expect("it ends");
    elapsed
}

fn compare(criterion: &mut Criterion) {
    for (name, there_and_back) in [("one way", false), ("there and back", true)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1)).sample_size(10);
        let kinds: [(&str, Make); 3] = [("ring and doorbell", rings), ("links", links), ("shared_channel", channels)];
        for (kind, make) in kinds {
            group.bench_function(kind, |bencher| {
                bencher.iter_custom(|count| time(make(), count, there_and_back));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, compare);
criterion_main!(benches);
