//! What exists: vhosts, users, exchanges, queues, bindings.

mod queue_options;

pub use queue_options::{QueueOptions, QueueOverflow};

/// The name of something that was declared; sharing it costs nothing.
pub type Name = std::sync::Arc<str>;
