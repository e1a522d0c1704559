//! One core's broker as one plain value: its connections, its queues, its outboxes to the other shards.
//!
//! A [`Shard`] does no I/O, reads no clock and spawns nothing. A driver gives it what has arrived (`handle_…`), calls
//! [`Shard::finish_turn`] once everything of a turn is in, and then takes what the shard has left (`poll_…`): connections
//! with output, batches for other shards, questions to the control plane.
//!
//! The way of a message: `input.rs` (frames), `content_input.rs` (header and body) → `publish.rs` (permission, route) →
//! `deliver.rs` (into its queue or straight on; to a consumer's output). Between shards it rides a
//! [`batch::Batch`] and arrives in `peer_mail.rs`.

mod basic_methods;
pub mod batch;
mod connection_methods;
mod content_input;
mod control_mail;
pub mod control_message;
mod dead_letters;
mod deliver;
mod direct_reply;
pub mod event_loop;
mod exchange_methods;
mod failure;
mod input;
pub mod mesh;
mod outbox;
mod paging;
mod peer_mail;
mod permission;
mod persistence;
mod publish;
pub mod queue_methods;
mod queue_requests;
mod recycling;
mod route_cache;
mod settle;
pub mod shard_message;
mod socket;
mod state;
mod tick;
mod transaction;
mod verdicts;
mod watch;

pub use outbox::Outbox;
pub use paging::PagingSizes;
pub use persistence::PersistenceStart;
pub use state::QueueCell;

use crate::{
    connection::{Connection, OutputBuffer, Pause, Phase},
    definitions::{ConnectionId, Definitions, ShardIndex},
    limits::{HANDSHAKE_MILLIS_MAX, OUTPUT_PAUSE_OCTETS},
    metrics::ShardMetrics,
};
use ahash::AHashMap;
use batch::Batch;
use control_message::ControlRequest;
use dead_letters::DeadLetter;
use persistence::Persistence;
use route_cache::RouteCache;
use state::{Connections, Queues};
use std::{collections::VecDeque, sync::Arc};

/// See the module's documentation.
pub struct Shard {
    index: ShardIndex,
    definitions: Arc<Definitions>,
    connections: Connections,
    queues: Queues,
    /// One for each shard; the own one stays empty.
    outboxes: Vec<Outbox>,
    routes: RouteCache,
    control_requests: VecDeque<ControlRequest>,
    dead_letters: Vec<DeadLetter>,
    /// Milliseconds on the broker's clock, the same for all shards.
    now: u64,
    /// What to add to `now` for seconds since 1970, in milliseconds.
    unix_offset_millis: u64,
    memory_is_short: bool,
    disk_is_short: bool,
    /// Whether publishers are told to wait, for either reason.
    publishers_wait: bool,
    /// Its journal, and its dealings with the disk; none where nothing outlives the process.
    persistence: Option<Box<Persistence>>,
    is_closing: bool,
    /// A secret that direct reply addresses carry, so that they can't be guessed.
    reply_secret: u64,
    names_generated: u64,
    metrics: ShardMetrics,
}

impl Shard {
    /// A shard without connections and queues.
    pub fn new(
        index: ShardIndex,
        shard_count: usize,
        definitions: Arc<Definitions>,
        unix_offset_millis: u64,
        reply_secret: u64,
    ) -> Self {
        let mut queues = Queues::default();
        // None is moved to disk without one.
        queues.set_pageable_from(u64::MAX, 0);
        Self {
            index,
            definitions,
            connections: Connections::default(),
            queues,
            outboxes: std::iter::repeat_with(Outbox::default).take(shard_count).collect(),
            routes: RouteCache::default(),
            control_requests: VecDeque::new(),
            dead_letters: Vec::new(),
            now: 0,
            unix_offset_millis,
            memory_is_short: false,
            disk_is_short: false,
            publishers_wait: false,
            persistence: None,
            is_closing: false,
            reply_secret,
            names_generated: 0,
            metrics: ShardMetrics::default(),
        }
    }

    /// Its index.
    pub fn index(&self) -> ShardIndex {
        self.index
    }

    /// The version of the definitions that it works with.
    pub fn definitions_version(&self) -> u64 {
        self.definitions.version
    }

    /// Takes a newer snapshot of the definitions.
    pub fn set_definitions(&mut self, definitions: Arc<Definitions>) {
        self.definitions = definitions;
    }

    /// What it has counted.
    pub fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    /// Sets the time, in milliseconds on the broker's clock.
    #[inline]
    pub fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// Takes in a connection that was just accepted.
    pub fn handle_accepted(&mut self, from_loopback: bool) -> ConnectionId {
        let (index, now) = (self.index, self.now);
        self.metrics.connections_accepted += 1;
        self.connections
            .insert(|slot, generation| {
                let id = ConnectionId { shard: index, slot, generation };
                Connection::new(id, from_loopback, now, now + HANDSHAKE_MILLIS_MAX)
            })
            .id
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// How many queues have their home here.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Whether frames of this connection would be handled now.
    #[inline]
    pub fn takes_input(&self, slot: u32) -> bool {
        self.connections.get(slot).is_some_and(Connection::takes_input)
    }

    /// Whether the connection is over once its output is written.
    #[inline]
    pub fn is_closed(&self, slot: u32) -> bool {
        self.connections.get(slot).is_none_or(|connection| connection.phase == Phase::Closed)
    }

    /// What a connection has to write.
    pub fn output(&mut self, slot: u32) -> Option<&mut OutputBuffer> {
        self.connections.get_mut(slot).map(|connection| &mut connection.output)
    }

    /// Tells what became of the last write: `is_stuck` if the socket did not take all.
    pub fn handle_written(&mut self, slot: u32, octets: usize, is_stuck: bool) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.output.advance(octets);
        connection.is_stuck = is_stuck;
        if octets > 0 {
            connection.sent_at = now;
        }
        if connection.pause == Some(Pause::Output) && connection.output.len() < OUTPUT_PAUSE_OCTETS / 2 {
            self.resume(slot, Pause::Output);
        }
        self.wake_consumers_of_output(slot);
    }

    /// The next connection that has output and whose socket took everything last time.
    pub fn poll_dirty(&mut self) -> Option<u32> {
        while let Some(slot) = self.connections.dirty.pop() {
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            connection.is_dirty = false;
            if !connection.is_stuck {
                return Some(slot);
            }
        }
        None
    }

    /// The next connection whose frames are handled again after a pause.
    pub fn poll_resumed(&mut self) -> Option<u32> {
        self.connections.resumed.pop()
    }

    /// The next question to the control plane.
    pub fn poll_control_request(&mut self) -> Option<ControlRequest> {
        self.control_requests.pop_front()
    }

    /// The batch for another shard, if there is something to tell it.
    #[inline]
    pub fn poll_batch(&mut self, peer: usize) -> Option<Batch> {
        // While the disk is behind, the peer's publishers wait as the own ones do.
        let takes_more = !self.is_disk_behind();
        self.outboxes[peer].poll_batch(takes_more)
    }

    /// Whether there is something yet to be sent to another shard.
    pub fn has_batches(&self) -> bool {
        self.outboxes.iter().any(Outbox::has_messages)
    }

    /// An emptied batch of another shard's, to be given back to it: its memory stays warm where it is filled.
    #[inline]
    pub fn poll_emptied(&mut self, peer: usize) -> Option<Batch> {
        self.outboxes[peer].poll_emptied()
    }

    /// An own batch that has come back empty.
    pub fn add_spare(&mut self, peer: usize, empty: Batch) {
        self.outboxes[peer].add_spare(empty);
    }

    /// Does what was put off until everything of this turn was in: deliveries that have become possible, confirms.
    pub fn finish_turn(&mut self) {
        self.expire_more();
        loop {
            self.run_queues();
            if self.dead_letters.is_empty() {
                break;
            }
            self.publish_dead_letters();
        }
        if self.persistence.is_some() {
            self.tell_journal();
            self.page_out();
            self.recycle();
            self.resume_behind();
        } else {
            self.queues.account_changed();
        }
        self.tell_confirms();
    }

    /// Whether another turn would do more, without anything having come in.
    pub fn wants_turn(&self) -> bool {
        self.queues.are_expiring()
    }

    /// The memory that queues and connections hold, in octets: none once there are none. Outboxes keep some for reuse.
    pub fn octets_in_use(&self) -> u64 {
        self.queues.octets_held + self.connections.octets_held
    }

    /// The memory that messages, outputs and outboxes hold, in octets.
    pub fn octets_held(&self) -> u64 {
        let outboxes: u64 = self.outboxes.iter().map(Outbox::octets_held).sum();
        let persistence = self.persistence.as_ref().map_or(0, |persistence| persistence.octets_held());
        self.queues.octets_held + self.connections.octets_held + outboxes + persistence
    }

    /// Tells whether memory is short: while it is, publishers are not read.
    pub fn set_memory_is_short(&mut self, is_short: bool) {
        self.memory_is_short = is_short;
        self.look_at_pressure();
    }

    /// Tells whether the disk has too little room left: while it has, publishers are not read.
    pub fn set_disk_is_short(&mut self, is_short: bool) {
        self.disk_is_short = is_short;
        self.look_at_pressure();
    }

    /// Whether the disk has too little room, or was full when something was to be written.
    fn is_disk_short(&self) -> bool {
        self.disk_is_short || self.persistence.as_ref().is_some_and(|persistence| persistence.is_starved())
    }

    /// Whether the disk has to catch up before more is published.
    #[inline]
    fn is_disk_behind(&self) -> bool {
        self.persistence.as_ref().is_some_and(|persistence| persistence.is_behind())
    }

    /// Whether publishers are to wait may have changed.
    fn look_at_pressure(&mut self) {
        let waits = self.memory_is_short || self.is_disk_short();
        if std::mem::replace(&mut self.publishers_wait, waits) && !waits {
            self.unblock_publishers();
        }
    }

    /// Ends every connection with `connection.close` 320.
    pub fn begin_shutdown(&mut self) {
        self.is_closing = true;
        for slot in self.connections.slots() {
            self.close_for_shutdown(slot);
        }
    }

    /// Lets a paused connection go on.
    fn resume(&mut self, slot: u32, pause: Pause) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.pause == Some(pause) {
            connection.pause = None;
            self.connections.resumed.push(slot);
        }
    }

    fn next_generated_number(&mut self) -> u64 {
        self.names_generated += 1;
        self.names_generated
    }

    fn unix_seconds(&self) -> u64 {
        (self.now + self.unix_offset_millis) / 1000
    }
}

/// Maps the queues that have their home here.
type QueueSlots = AHashMap<crate::definitions::QueueId, u32>;
