//! Shards and the control plane, and what the drivers owe them, step by step.

use lepus::{
    control::plane::{ControlPlane, Outcome},
    definitions::{Definitions, Registry, ShardIndex},
    limits::{FRAME_OCTETS_MAX, WHOLE_MESSAGE_OCTETS_MAX},
    shard::{
        Shard,
        control_message::{ControlAnswer, ControlMail},
    },
};
use std::{collections::HashMap, sync::Arc};

/// Rounds after which a broker that is given nothing must have come to rest.
const ROUNDS_MAX: u32 = 100_000;
/// Slices that are taken from an output at once.
const SLICES_MAX: usize = 64;
const SECRET: u64 = 7;

/// A client's end of a connection.
struct Client {
    shard: usize,
    slot: u32,
    /// What was sent and not used yet.
    input: Vec<u8>,
    /// What has arrived and was not looked at yet.
    output: Vec<u8>,
    /// Whether it takes what is sent to it.
    reads: bool,
    is_gone: bool,
}

/// See the module's documentation.
pub struct Broker {
    shards: Vec<Shard>,
    plane: ControlPlane,
    clients: Vec<Client>,
    client_at: HashMap<(usize, u32), usize>,
    now: u64,
    ticks: u64,
}

impl Broker {
    /// A new broker. The same input gives the same output, generated names counted.
    pub fn new(shard_count: usize) -> Self {
        let registry = Registry::new().with_seeded_names(SECRET);
        let (mut plane, _) = ControlPlane::new(registry, shard_count);
        let definitions = plane.snapshot();
        let shards = (0..)
            .take(shard_count)
            .map(|index| Shard::new(ShardIndex(index), shard_count, Arc::clone(&definitions), 0, SECRET))
            .collect();
        Self { shards, plane, clients: Vec::new(), client_at: HashMap::new(), now: 0, ticks: 0 }
    }

    /// A client connects.
    pub fn connect(&mut self, shard: usize) -> usize {
        let slot = self.shards[shard].handle_accepted(true).slot;
        self.clients.push(Client { shard, slot, input: Vec::new(), output: Vec::new(), reads: true, is_gone: false });
        let client = self.clients.len() - 1;
        self.client_at.insert((shard, slot), client);
        client
    }

    /// The client sends; nothing else happens unless it has to wait for an answer.
    pub fn send(&mut self, client: usize, octets: &[u8]) {
        let Client { shard, slot, input, is_gone, .. } = &mut self.clients[client];
        if *is_gone {
            return;
        }
        input.extend_from_slice(octets);
        let (shard, slot) = (*shard, *slot);
        self.give(client);
        // Only where it has to, so that the pieces make no turns of their own.
        while !self.shards[shard].takes_input(slot) && self.round() {}
    }

    /// Gives a shard what a client has sent, if it takes it.
    fn give(&mut self, client: usize) {
        let Client { shard, slot, input, .. } = &mut self.clients[client];
        let shard = &mut self.shards[*shard];
        if input.is_empty() || !shard.takes_input(*slot) {
            return;
        }
        let used = shard.handle_input(*slot, input);
        input.drain(..used);
        assert!(
            !shard.takes_input(*slot) || input.len() < FRAME_OCTETS_MAX + WHOLE_MESSAGE_OCTETS_MAX,
            "a driver has no room to read behind what was left"
        );
    }

    /// Runs everything until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.round() {
                return;
            }
        }
        panic!("the broker does not come to rest");
    }

    /// Carries everything, then gives the shards what had to wait. Whether there was such.
    fn round(&mut self) -> bool {
        self.exchange();
        let mut resumed = Vec::new();
        for (index, shard) in self.shards.iter_mut().enumerate() {
            while let Some(slot) = shard.poll_resumed() {
                resumed.extend(self.client_at.get(&(index, slot)));
            }
        }
        for client in &resumed {
            self.give(*client);
        }
        !resumed.is_empty()
    }

    /// Carries everything between shards, control plane and clients, until nothing is under way.
    fn exchange(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for index in 0..self.shards.len() {
                self.shards[index].finish_turn();
                for peer in 0..self.shards.len() {
                    if let Some(batch) = self.shards[index].poll_batch(peer) {
                        self.shards[peer].handle_batch(index, batch);
                        moved = true;
                    }
                }
                while let Some(slot) = self.shards[index].poll_dirty() {
                    self.write(index, slot);
                    moved = true;
                }
                let mut outcome = Outcome::default();
                while let Some(request) = self.shards[index].poll_control_request() {
                    self.plane.handle(request, &mut outcome);
                    moved = true;
                }
                self.carry_out(outcome);
            }
            if !moved {
                return;
            }
        }
        panic!("the broker does not come to rest");
    }

    fn carry_out(&mut self, outcome: Outcome) {
        for queue in outcome.created {
            self.shards[usize::from(queue.home.0)].handle_control(ControlMail::QueueCreated(queue));
        }
        for queue in outcome.dropped {
            self.shards[usize::from(queue.home.0)].handle_control(ControlMail::QueueDropped(queue.id));
        }
        let definitions = self.plane.snapshot();
        for shard in &mut self.shards {
            if shard.definitions_version() != definitions.version {
                shard.set_definitions(Arc::clone(&definitions));
            }
        }
        for (to, result) in outcome.answers {
            let shard = usize::from(to.connection.shard.0);
            self.shards[shard].handle_control(ControlMail::Answer { to, result });
        }
        for login in outcome.logins {
            let shard = usize::from(login.asker.connection.shard.0);
            let result = Ok(ControlAnswer::Authenticated(login.hash.verify(&login.password)));
            self.shards[shard].handle_control(ControlMail::Answer { to: login.asker, result });
        }
    }

    fn write(&mut self, shard: usize, slot: u32) {
        let Some(&client) = self.client_at.get(&(shard, slot)) else { return };
        let Client { reads, output, .. } = &mut self.clients[client];
        let owner = &mut self.shards[shard];
        while let Some(waiting) = owner.output(slot) {
            if waiting.is_empty() {
                break;
            }
            if !*reads {
                owner.handle_written(slot, 0, true);
                return;
            }
            let mut octets = 0;
            for slice in waiting.slices(SLICES_MAX) {
                output.extend_from_slice(&slice);
                octets += slice.len();
            }
            owner.handle_written(slot, octets, false);
        }
        if owner.is_closed(slot) {
            self.disconnect(client);
        }
    }

    /// Whether the client takes what is sent to it from now on.
    pub fn set_reads(&mut self, client: usize, reads: bool) {
        self.clients[client].reads = reads;
        if reads && !self.clients[client].is_gone {
            let (shard, slot) = (self.clients[client].shard, self.clients[client].slot);
            self.write(shard, slot);
        }
    }

    /// The client's socket is gone.
    pub fn disconnect(&mut self, client: usize) {
        let Client { shard, slot, is_gone, input, .. } = &mut self.clients[client];
        if std::mem::replace(is_gone, true) {
            return;
        }
        input.clear();
        self.client_at.remove(&(*shard, *slot));
        self.shards[*shard].handle_disconnected(*slot);
    }

    /// Whether the connection is over.
    pub fn is_gone(&self, client: usize) -> bool {
        self.clients[client].is_gone
    }

    /// Where its shard keeps the connection.
    pub fn slot(&self, client: usize) -> u32 {
        self.clients[client].slot
    }

    /// What has arrived at the client.
    pub fn take_output(&mut self, client: usize) -> Vec<u8> {
        std::mem::take(&mut self.clients[client].output)
    }

    /// Time passes, and the shards are told.
    pub fn pass(&mut self, millis: u64) {
        self.now += millis;
        // Connections are looked at once in five ticks.
        for _ in 0..5 {
            self.ticks += 1;
            for shard in &mut self.shards {
                shard.set_now(self.now);
                shard.handle_tick(self.ticks);
            }
        }
        self.settle();
    }

    /// Tells all shards whether memory is short.
    pub fn set_memory_is_short(&mut self, is_short: bool) {
        for shard in &mut self.shards {
            shard.set_memory_is_short(is_short);
        }
        self.settle();
    }

    /// The memory that all shards hold, in octets.
    pub fn octets_held(&self) -> u64 {
        self.shards.iter().map(Shard::octets_held).sum()
    }

    /// How many queues there are.
    pub fn queue_count(&self) -> usize {
        self.shards.iter().map(Shard::queue_count).sum()
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.shards.iter().map(Shard::connection_count).sum()
    }

    /// What exists.
    pub fn definitions(&mut self) -> Arc<Definitions> {
        self.plane.snapshot()
    }

    /// One of its shards.
    pub fn shard(&mut self, index: usize) -> &mut Shard {
        &mut self.shards[index]
    }
}
