//! What happens because time passes: heartbeats, handshakes that take too long, expiry. And what happens when memory is short.

use super::Shard;
use crate::{
    connection::{Connection, Pause, Phase},
    protocol::{
        frame::HEARTBEAT_FRAME,
        method::{Method, connection},
    },
};

/// Connections are looked at once in so many ticks: heartbeats are whole seconds.
const TICKS_PER_CONNECTION_CHECK: u64 = 5;
/// Why publishers are told to wait.
const LOW_ON_MEMORY: &[u8] = b"low on memory";
const LOW_ON_DISK: &[u8] = b"low on disk";
const LOW_ON_BOTH: &[u8] = b"low on memory & disk";

impl Shard {
    /// Does what is due. To be called about ten times a second, with the number of the call.
    pub fn handle_tick(&mut self, number: u64) {
        if number.is_multiple_of(TICKS_PER_CONNECTION_CHECK) {
            for slot in self.connections.slots() {
                self.tick_connection(slot);
            }
        }
        for slot in self.queues.timed() {
            if !self.is_over_memory() {
                // What is to expire has to be looked at.
                self.load_front(slot);
            }
            self.expire(slot);
            self.retire_if_unused(slot);
        }
        self.tick_persistence();
    }

    fn tick_connection(&mut self, slot: u32) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.output.shrink_if_empty();
        if connection.deadline.is_some_and(|deadline| now >= deadline) {
            tracing::info!("connection {slot} is dropped: its handshake, or its end, took too long");
            self.abandon(slot);
            return;
        }
        let interval = connection.heartbeat_millis;
        if interval > 0 && connection.phase == Phase::Running {
            if connection.pause.is_some() {
                // It is not being read: that it seems silent is not its fault.
                connection.received_at = now;
            }
            if now.saturating_sub(connection.received_at) > 2 * interval {
                tracing::info!("connection {slot} is dropped: nothing came for two heartbeat intervals");
                self.abandon(slot);
                return;
            }
            if now.saturating_sub(connection.sent_at) >= interval / 2 && connection.output.is_empty() {
                connection.output.octets_mut().extend_from_slice(&HEARTBEAT_FRAME);
                self.connections.mark_dirty(slot);
            }
        }
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.count_unacknowledged();
        }
        self.connections.account(slot);
    }

    /// Ends a connection whose peer is not there any more: nothing that waits to be written will be.
    fn abandon(&mut self, slot: u32) {
        self.release_connection(slot);
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.phase = Phase::Closed;
        connection.output.clear();
        connection.is_stuck = false;
        self.connections.mark_dirty(slot);
    }

    /// `x-expires`: a queue that nobody uses goes.
    fn retire_if_unused(&mut self, slot: u32) {
        let now = self.now;
        let Some(cell) = self.queues.get_mut(slot) else { return };
        let Some(expires) = cell.definition.options.expires_millis else { return };
        if !cell.consumers.is_empty() {
            cell.used_at = now;
        } else if now.saturating_sub(cell.used_at) >= expires {
            self.retire_queue(slot);
        }
    }

    /// Memory is short and this connection publishes: it is not read until there is memory again.
    pub(super) fn block_publisher(&mut self, slot: u32) {
        let reason = match (self.memory_is_short, self.is_disk_short()) {
            (true, true) => LOW_ON_BOTH,
            (false, true) => LOW_ON_DISK,
            _ => LOW_ON_MEMORY,
        };
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.pause = Some(Pause::Memory);
        if connection.capabilities.connection_blocked && !connection.told_blocked {
            connection.told_blocked = true;
            self.send(slot, 0, &Method::ConnectionBlocked(connection::Blocked { reason }));
        }
    }

    /// There is memory again.
    pub(super) fn unblock_publishers(&mut self) {
        for slot in self.connections.slots() {
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            let Connection { told_blocked, .. } = connection;
            if std::mem::take(told_blocked) {
                self.send(slot, 0, &Method::ConnectionUnblocked(connection::Unblocked {}));
            }
            self.resume(slot, Pause::Memory);
        }
    }
}
