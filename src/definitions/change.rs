//! All that may be asked of the single writer, and what it answers.

use crate::definitions::password::PasswordHash;
use crate::definitions::queue::{QueueDefinition, QueueId};
use crate::definitions::{ConnectionId, Name, ShardIndex};
use crate::protocol::field_table::FieldTable;
use std::sync::Arc;

/// A change that somebody asks for. Whether they may is asked before: a change carries no user.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "fields named as in the methods that they come from")]
pub enum Change {
    /// `exchange.declare`, not passive. One that exists is compared.
    DeclareExchange {
        vhost: Name,
        name: Name,
        /// The type, as it was sent.
        kind: Box<str>,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: FieldTable,
    },
    /// `exchange.delete`. One that is not there is deleted already.
    DeleteExchange { vhost: Name, name: Name, if_unused: bool },
    /// `exchange.bind`. The same twice is one.
    BindExchange { vhost: Name, source: Name, destination: Name, routing_key: Box<[u8]>, arguments: FieldTable },
    /// `exchange.unbind`. What is not bound is unbound already.
    UnbindExchange { vhost: Name, source: Name, destination: Name, routing_key: Box<[u8]>, arguments: FieldTable },
    /// `queue.bind`. The same twice is one. Another connection's exclusive queue is refused.
    BindQueue {
        vhost: Name,
        exchange: Name,
        queue: Name,
        routing_key: Box<[u8]>,
        arguments: FieldTable,
        connection: ConnectionId,
    },
    /// `queue.unbind`. What is not bound is unbound already.
    UnbindQueue {
        vhost: Name,
        exchange: Name,
        queue: Name,
        routing_key: Box<[u8]>,
        arguments: FieldTable,
        connection: ConnectionId,
    },
    /// `queue.declare`, not passive. One that exists is compared; an empty name makes one with a name of its own.
    DeclareQueue {
        vhost: Name,
        name: Name,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: FieldTable,
        connection: ConnectionId,
        /// Where it lives if it is new.
        home: ShardIndex,
    },
    /// The queue is gone, for whatever reason. Its bindings go, and auto-delete exchanges that lose their last one by that.
    /// One that is not there is gone already.
    RemoveQueue { id: QueueId },
    /// One that exists stays as it is.
    AddVhost { name: Name },
    /// With all that is in it. One that is not there is deleted already.
    DeleteVhost { name: Name },
    /// Adds a user, or replaces its password and tags.
    PutUser { name: Name, password_hash: PasswordHash, tags: Vec<String> },
    /// With its permissions. One that is not there is deleted already.
    DeleteUser { name: Name },
    /// Sets the three patterns together.
    SetPermissions { user: Name, vhost: Name, configure: String, write: String, read: String },
    /// Takes a user's access to a virtual host away.
    ClearPermissions { user: Name, vhost: Name },
}

/// What came of a change.
#[derive(Clone, Debug)]
pub enum Applied {
    /// It is as it was asked for.
    Done,
    /// Of [`Change::DeclareQueue`].
    Queue {
        /// The queue as it is.
        definition: Arc<QueueDefinition>,
        /// Whether it is new.
        created: bool,
    },
    /// Of [`Change::DeleteVhost`]: the queues that went with it.
    VhostQueuesRemoved(Vec<Arc<QueueDefinition>>),
}
