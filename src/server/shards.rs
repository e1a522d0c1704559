//! The seam between the server and the shards (a driver): starts their threads, hands connections to them, ends them.
//!
//! NOT FILLED YET: no shard is started and every connection is dropped. The names are what the server builds on.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Instant;

use crate::server::ring_memory::RingPlan;
use crate::server::start_error::StartError;

/// What shards are started with.
#[derive(Debug)]
pub struct ShardPlan {
    /// One entry for each shard: the core that it is pinned to, `None` where it is not. Never empty.
    pub cores: Vec<Option<usize>>,
    /// Whether shards spin instead of sleeping.
    pub busy_poll: bool,
    /// Above how much memory publishers are paused, in octets.
    pub memory_limit_octets: u64,
    /// The rings of each executor, so that all fit under the limit on locked memory.
    pub rings: RingPlan,
    /// What exists from the start on.
    pub definitions: Option<PathBuf>,
}

/// Shards that run. Shared between the thread that accepts connections and the one that waits for the end.
#[derive(Debug)]
pub struct RunningShards {}

/// Starts one thread for each shard and loads the definitions. When it returns, every executor has made its rings and
/// takes connections. What an executor is refused with is a [`StartError::IoUring`].
pub fn start_shards(plan: ShardPlan) -> Result<RunningShards, StartError> {
    assert!(!plan.cores.is_empty(), "a plan without shards");
    drop(plan);
    Ok(RunningShards {})
}

impl RunningShards {
    /// Hands a connection to the least loaded shard. Does not block.
    pub fn place(&self, stream: TcpStream, peer: SocketAddr) {
        tracing::debug!(%peer, "there is no shard yet to take the connection");
        drop(stream);
    }

    /// Asks every shard to close its connections (320) and to end. Does not block.
    pub fn begin_shutdown(&self) {}

    /// Waits until every shard has ended, at most until `deadline`. Returns whether all have.
    pub fn join(self, deadline: Instant) -> bool {
        let _ = deadline;
        true
    }
}
