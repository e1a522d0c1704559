//! Plain counters of one shard. Read by whoever owns the shard; no atomics.

/// What a shard has counted since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardMetrics {
    /// Connections taken in.
    pub connections_accepted: u64,
    /// Messages published by clients.
    pub published: u64,
    /// Messages that reached no queue.
    pub unroutable: u64,
    /// Messages delivered to consumers, or answered to `basic.get`.
    pub delivered: u64,
    /// Messages acknowledged by clients.
    pub acknowledged: u64,
    /// Messages published to dead letter exchanges.
    pub dead_lettered: u64,
    /// Direct replies that were dropped because their requester does not read.
    pub replies_dropped: u64,
}
