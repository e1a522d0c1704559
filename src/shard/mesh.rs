//! The rings between shards, and the doorbell that wakes a shard for what is in its rings and its mailbox.
//!
//! A driver. Each pair of shards has a bounded lock-free single-producer single-consumer ring in each direction.
//!
//! **Causal order.** A client that has its answer may act on another connection, on any shard. So a shard sends its batches
//! before it writes to its sockets, and takes what is in its rings before it handles what it has read; and batches carry
//! stamps of one shared counter, by which [`Links::receive_all`] orders those of different rings.

use super::{batch::Batch, control_message::ControlMail};
use crate::limits::RING_BATCHES_MAX;
use atomic_waker::AtomicWaker;
use rtrb::{Consumer, Producer, RingBuffer};
use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    task::Waker,
};

/// Emptied batches that may be on their way back between two shards.
const EMPTIED_BATCHES_MAX: usize = 8;

/// What threads that are no shards tell a shard.
#[derive(Debug)]
pub enum Mail {
    /// A connection to take in.
    Connection(TcpStream, SocketAddr),
    /// Of the control plane.
    Control(ControlMail),
    /// Close all connections, then end.
    Shutdown,
}

/// Wakes a shard; ringing it again before the shard has looked costs one atomic exchange.
#[derive(Debug, Default)]
pub struct Doorbell {
    is_rung: AtomicBool,
    waker: AtomicWaker,
}

impl Doorbell {
    /// Wakes the shard if it is not awake for this already.
    pub fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Wakes the shard in any case.
    pub fn poke(&self) {
        self.is_rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whom to wake. To be called before [`Doorbell::answer`].
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Whether the shard was rung for and has not looked since.
    #[inline]
    pub fn is_rung(&self) -> bool {
        self.is_rung.load(Ordering::Acquire)
    }

    /// The shard looks now: whether it was rung for.
    pub fn answer(&self) -> bool {
        self.is_rung.swap(false, Ordering::AcqRel)
    }
}

/// Where anybody may leave mail for a shard.
#[derive(Clone, Debug)]
pub struct Mailbox {
    sender: Sender<Mail>,
    doorbell: Arc<Doorbell>,
}

impl Mailbox {
    /// Leaves mail. A shard that has ended takes none.
    pub fn post(&self, mail: Mail) {
        if self.sender.send(mail).is_ok() {
            self.doorbell.ring();
        }
    }

    /// Makes the shard look whether there is something to do.
    pub fn poke(&self) {
        self.doorbell.poke();
    }
}

/// A shard's end of all that leads to it and from it.
#[derive(Debug)]
pub struct Links {
    incoming: Vec<Option<Consumer<Batch>>>,
    outgoing: Vec<Option<Producer<Batch>>>,
    /// Emptied batches on their way back to who filled them.
    giving_back: Vec<Option<Producer<Batch>>>,
    coming_back: Vec<Option<Consumer<Batch>>>,
    peers: Vec<Arc<Doorbell>>,
    stamps: Arc<AtomicU64>,
    /// Its own mail.
    pub mail: Receiver<Mail>,
    /// Its own doorbell.
    pub doorbell: Arc<Doorbell>,
}

/// Connects `count` shards with each other; returns their ends, and a mailbox for each.
pub fn connect(count: usize) -> (Vec<Links>, Vec<Mailbox>) {
    let doorbells: Vec<Arc<Doorbell>> = std::iter::repeat_with(Arc::default).take(count).collect();
    let stamps = Arc::new(AtomicU64::new(0));
    let mut mailboxes = Vec::with_capacity(count);
    let mut links: Vec<Links> = Vec::with_capacity(count);
    for doorbell in &doorbells {
        let (sender, mail) = mpsc::channel();
        mailboxes.push(Mailbox { sender, doorbell: Arc::clone(doorbell) });
        links.push(Links {
            incoming: std::iter::repeat_with(|| None).take(count).collect(),
            outgoing: std::iter::repeat_with(|| None).take(count).collect(),
            giving_back: std::iter::repeat_with(|| None).take(count).collect(),
            coming_back: std::iter::repeat_with(|| None).take(count).collect(),
            peers: doorbells.clone(),
            stamps: Arc::clone(&stamps),
            mail,
            doorbell: Arc::clone(doorbell),
        });
    }
    for from in 0..count {
        for to in 0..count {
            if from != to {
                let (producer, consumer) = RingBuffer::new(RING_BATCHES_MAX);
                links[from].outgoing[to] = Some(producer);
                links[to].incoming[from] = Some(consumer);
                let (producer, consumer) = RingBuffer::new(EMPTIED_BATCHES_MAX);
                links[to].giving_back[from] = Some(producer);
                links[from].coming_back[to] = Some(consumer);
            }
        }
    }
    (links, mailboxes)
}

impl Links {
    /// How many shards there are, this one counted.
    pub fn shard_count(&self) -> usize {
        self.peers.len()
    }

    /// Whether a batch for this peer would fit into its ring.
    #[inline]
    pub fn has_room(&self, peer: usize) -> bool {
        self.outgoing[peer].as_ref().is_some_and(|producer| !producer.is_full())
    }

    /// Sends a batch and wakes the peer. There has to be room.
    pub fn send(&mut self, peer: usize, mut batch: Batch) {
        batch.stamp = self.stamps.fetch_add(1, Ordering::AcqRel);
        let producer = self.outgoing[peer].as_mut().expect("a shard has a ring to each other shard");
        producer.push(batch).expect("the caller saw that there is room");
        self.peers[peer].ring();
    }

    /// Gives an emptied batch back to the peer that filled it; nobody is woken for it.
    pub fn give_back(&mut self, peer: usize, empty: Batch) {
        if let Some(producer) = &mut self.giving_back[peer] {
            // Where there is no room, its memory is freed here.
            let _ = producer.push(empty);
        }
    }

    /// An own batch that a peer has emptied.
    pub fn take_back(&mut self, peer: usize) -> Option<Batch> {
        self.coming_back[peer].as_mut()?.pop().ok()
    }

    /// Takes all that is in the rings, with its senders, so that nothing comes before what it happened because of.
    ///
    /// A ring that was found empty may have been sent to before another was that is looked at later. Hence the second
    /// look: it finds whatever came before anything that the first one has found, and what came later waits.
    pub fn receive_all(&mut self, taken: &mut Vec<(usize, Batch)>, later: &mut Vec<(usize, Batch)>) {
        taken.append(later);
        self.look(taken);
        if self.peers.len() > 2 && !taken.is_empty() {
            let newest = taken.iter().map(|(_, batch)| batch.stamp).max().unwrap_or(0);
            self.look(later);
            taken.extend(later.extract_if(.., |(_, batch)| batch.stamp < newest));
            taken.sort_by_key(|(_, batch)| batch.stamp);
        }
    }

    /// Takes what each ring holds. Peers that may be waiting for room are woken.
    ///
    /// Whether a ring is full cannot be asked beside the taking: it may fill between the question and the first batch taken,
    /// and its sender would wait unheard. But whoever waits has left a full ring, and of that half is taken at once.
    fn look(&mut self, found: &mut Vec<(usize, Batch)>) {
        for (peer, ring) in self.incoming.iter_mut().enumerate() {
            let Some(ring) = ring else { continue };
            let before = found.len();
            while let Ok(batch) = ring.pop() {
                found.push((peer, batch));
            }
            if found.len() - before >= RING_BATCHES_MAX / 2 {
                self.peers[peer].ring();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, Links, connect};
    use crate::limits::RING_BATCHES_MAX;

    /// Sends so many batches, has the other side take them, and tells whether the sender was rung for.
    fn is_rung_after(count: usize) -> bool {
        let (mut links, _) = connect(2);
        let (mut receiver, mut sender): (Links, Links) = (links.remove(1), links.remove(0));
        for _ in 0..count {
            assert!(sender.has_room(1));
            sender.send(1, Batch::default());
        }
        assert_eq!(sender.has_room(1), count < RING_BATCHES_MAX);
        let (mut taken, mut later) = (Vec::new(), Vec::new());
        receiver.receive_all(&mut taken, &mut later);
        assert_eq!(taken.len(), count);
        sender.doorbell.is_rung()
    }

    /// Goal: who waits for room is woken when there is, and nobody is woken for every batch.
    /// Method: empty a ring that is full, one that the last batch would have filled, and one that holds little.
    #[test]
    fn who_waits_for_room_is_woken() {
        assert!(is_rung_after(RING_BATCHES_MAX));
        assert!(is_rung_after(RING_BATCHES_MAX - 1), "it may have been full when its sender looked");
        assert!(!is_rung_after(1));
    }
}
