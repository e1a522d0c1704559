//! The rings between shards, with batches that take their time. What is seen in passing is checked.

use crate::{context::Context, faults::Mutation};
use lepus::{
    message::MessageView,
    shard::{batch::Batch, shard_message::ShardMessage},
};
use std::collections::VecDeque;

struct Ring {
    batches: VecDeque<(u64, Batch)>,
    capacity: usize,
    /// The longest that a batch takes, in steps.
    delay: usize,
    /// Octets of publishes that were sent and not credited yet.
    publish_octets: u64,
}

/// All rings: from each shard to each other.
pub struct Rings {
    rings: Vec<Vec<Ring>>,
}

/// The number that a message carries in its body or in its message-id.
pub fn message_id(properties: &[u8], body: &[u8]) -> Option<u64> {
    if let Some(first) = body.first_chunk() {
        return Some(u64::from_be_bytes(*first));
    }
    let properties = lepus::protocol::properties::Properties::decode(properties).ok()?;
    std::str::from_utf8(properties.message_id?).ok()?.parse().ok()
}

fn id_of(message: &MessageView<'_>) -> u64 {
    message_id(message.properties, message.body.octets()).unwrap_or(u64::MAX)
}

impl Rings {
    pub fn new(context: &mut Context, count: usize) -> Self {
        let delays: &[usize] = if context.is_heavy { &[0, 30, 1000] } else { &[0, 3, 30, 200] };
        let random = &mut context.random;
        let mut ring = || {
            let capacity = random.pick(&[1, 1, 2, 8, 256]);
            let delay = random.pick(delays);
            Ring { batches: VecDeque::new(), capacity, delay, publish_octets: 0 }
        };
        Self { rings: (0..count).map(|_| (0..count).map(|_| ring()).collect()).collect() }
    }

    pub fn has_room(&self, from: usize, to: usize) -> bool {
        let ring = &self.rings[from][to];
        from != to && ring.batches.len() < ring.capacity
    }

    pub fn is_empty(&self) -> bool {
        self.rings.iter().flatten().all(|ring| ring.batches.is_empty())
    }

    pub fn send(&mut self, context: &mut Context, from: usize, to: usize, mut batch: Batch) {
        context.activity += 1;
        mutate(context, &mut batch);
        if !batch.messages.is_empty() && context.strikes(Mutation::DropBatch) {
            return;
        }
        look_at(context, &batch);
        let ring = &mut self.rings[from][to];
        ring.publish_octets += batch.publish_octets;
        let delay = if context.is_healthy { 0 } else { context.random.between(0, ring.delay) };
        ring.batches.push_back((context.step + delay as u64, batch));
        let carries =
            |batch: &Batch| batch.messages.iter().any(|message| matches!(message, ShardMessage::Publish { .. }));
        if let [.., (_, before), (_, last)] = &*ring.batches.make_contiguous()
            && carries(before)
            && carries(last)
            && context.strikes(Mutation::SwapBatches)
        {
            let last = ring.batches.len() - 1;
            ring.batches.swap(last, last - 1);
        }
    }

    /// The next batch that has arrived.
    pub fn receive(&mut self, context: &mut Context, from: usize, to: usize) -> Option<Batch> {
        let ring = &mut self.rings[from][to];
        if ring.batches.front()?.0 > context.step && !context.is_healthy {
            return None;
        }
        let (_, batch) = ring.batches.pop_front()?;
        context.activity += 1;
        for message in &batch.messages {
            let ShardMessage::Publish { contents, .. } = message else { continue };
            for message in batch.contents().run(contents) {
                let id = id_of(&message);
                if let Some(copies) = context.under_way.get_mut(&id) {
                    *copies -= 1;
                    if *copies == 0 {
                        context.under_way.remove(&id);
                    }
                }
            }
        }
        let back = &mut self.rings[to][from].publish_octets;
        match back.checked_sub(batch.credit_octets) {
            Some(left) => *back = left,
            None => context.violation(format!("shard {from} gave {to} more credit than was used")),
        }
        Some(batch)
    }

    /// The most that is still owed of the credit of one ring, in octets.
    pub fn credit_owed(&self) -> u64 {
        self.rings.iter().flatten().map(|ring| ring.publish_octets).max().unwrap_or(0)
    }
}

/// Breaks something if this is the time.
fn mutate(context: &mut Context, batch: &mut Batch) {
    let has = |batch: &Batch, wanted: fn(&ShardMessage) -> bool| batch.messages.iter().position(wanted);
    if let Some(at) = has(batch, |message| matches!(message, ShardMessage::Publish { .. }))
        && context.strikes(Mutation::LosePublish)
    {
        batch.messages.remove(at);
    }
    let Some(at) = has(batch, |message| matches!(message, ShardMessage::Settle { .. })) else { return };
    if context.strikes(Mutation::LoseSettle) {
        batch.messages.remove(at);
    } else if let ShardMessage::Settle { queue, consumer, position, count, settlement } = &batch.messages[at]
        && context.strikes(Mutation::DuplicateSettle)
    {
        let (queue, consumer, position, count, settlement) = (*queue, *consumer, *position, *count, *settlement);
        batch.messages.push(ShardMessage::Settle { queue, consumer, position, count, settlement });
    }
}

/// Keeps the books on what passes.
fn look_at(context: &mut Context, batch: &Batch) {
    for message in &batch.messages {
        match message {
            ShardMessage::Publish { contents, .. } => {
                for message in batch.contents().run(contents) {
                    *context.under_way.entry(id_of(&message)).or_default() += 1;
                }
            }
            ShardMessage::Deliver { queue, position: Some(first), contents, .. }
            | ShardMessage::Got { queue, position: Some(first), content: contents, .. } => {
                for position in *first..*first + u64::from(contents.len()) {
                    let is_new = context.positions.insert((queue.id.0, position));
                    if !is_new {
                        let queue = queue.id;
                        context.violation(format!("position {position} of {queue:?} left while it was outstanding"));
                    }
                }
            }
            ShardMessage::Settle { queue, position: first, count, .. } => {
                for position in *first..*first + u64::from(*count) {
                    let was_outstanding = context.positions.remove(&(queue.id.0, position));
                    if !was_outstanding {
                        context.violation(format!("position {position} of {:?} was settled twice", queue.id));
                    }
                }
            }
            _ => {}
        }
    }
}
