//! What exists: virtual hosts, users and their permissions, exchanges, queues and bindings.
//!
//! [`Definitions`] is an immutable snapshot that any number of threads read. The [`registry::Registry`] is the single
//! writer: it takes a [`change::Change`], checks it as RabbitMQ does, applies it at a cost that does not grow with
//! what exists, and gives out the next snapshot. Knows no connections, channels or messages beyond their names, does no
//! I/O and reads no clock.
//!
//! * [`vhost`], [`exchange`], [`queue`]: what is defined; [`name_table`]: how it is found by name
//! * [`route`]: from an exchange and routing keys to queues
//! * [`change`], [`registry`], `registry_bindings`, `registry_users`: how definitions change
//! * [`checks`], [`queue_arguments`]: what is refused, also without the writer; [`texts`]: in which words
//! * [`permissions`], [`password`]: who may do what
//! * [`durable`], [`restore`]: what is to be kept of a change, and how what was kept becomes a registry again
//! * [`import`]: RabbitMQ's JSON export

pub mod change;
pub mod checks;
pub mod durable;
pub mod exchange;
#[cfg(test)]
#[allow(missing_docs, reason = "for tests")]
pub mod fixture;
pub mod import;
mod import_json;
pub mod name_table;
pub mod password;
pub mod permissions;
pub mod queue;
pub mod queue_arguments;
pub mod registry;
mod registry_bindings;
mod registry_users;
pub mod restore;
pub mod route;
pub mod texts;
pub mod vhost;

pub use change::{Applied, Change};
pub use checks::{check_exchange_declare, check_exclusive, check_queue_declare};
pub use durable::{DurableChange, DurableChanges};
pub use exchange::{Destination, Exchange, ExchangeId, ExchangeKind};
pub use password::PasswordHash;
pub use permissions::{Action, Permissions};
pub use queue::{QueueDefinition, QueueId, QueueOptions, QueueOverflow};
pub use registry::Registry;
pub use route::RouteSet;
pub use vhost::Vhost;

use crate::definitions::name_table::{NameTable, Named};
use crate::routing::{HashTrie, hash_value};
use std::sync::Arc;

/// The name of anything that is defined: at most 255 octets of UTF-8.
pub type Name = Arc<str>;

/// Which of the broker's shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(pub u16);

/// One connection; unique for the broker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The shard that it lives on.
    pub shard: ShardIndex,
    /// Its place there.
    pub slot: u32,
    /// How many connections had that place before.
    pub generation: u32,
}

impl ConnectionId {
    /// Nobody's connection: the broker itself changes its definitions.
    pub const BROKER: Self = Self { shard: ShardIndex(u16::MAX), slot: u32::MAX, generation: u32::MAX };
}

/// Somebody who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, as it is logged in with.
    pub name: Name,
    /// What is kept of the password.
    pub password_hash: PasswordHash,
    /// RabbitMQ's tags, such as `administrator`.
    pub tags: Vec<String>,
}

impl Named for User {
    fn name(&self) -> &str {
        &self.name
    }
}

/// An immutable snapshot of all that exists. Cloning any part is O(1).
#[derive(Clone, Default)]
pub struct Definitions {
    /// Grows with each snapshot that differs from the one before.
    pub version: u64,
    vhosts: NameTable<Vhost>,
    users: NameTable<User>,
    /// Found by user and virtual host together.
    permissions: HashTrie<Arc<Permissions>>,
}

impl Definitions {
    /// The virtual host of this name.
    pub fn vhost(&self, name: &[u8]) -> Option<&Arc<Vhost>> {
        self.vhosts.get(name)
    }

    /// All virtual hosts, in no particular order.
    pub fn vhosts(&self) -> impl Iterator<Item = &Arc<Vhost>> {
        self.vhosts.iter()
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name.as_bytes())
    }

    /// All users, in no particular order.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.iter()
    }

    /// What a user may do in a virtual host. `None` where it has no access.
    pub fn permissions(&self, user: &str, vhost: &str) -> Option<&Arc<Permissions>> {
        self.permissions.get(hash_value(&(user, vhost)), |it| *it.user == *user && *it.vhost == *vhost)
    }

    /// All permissions, in no particular order.
    pub fn all_permissions(&self) -> impl Iterator<Item = &Arc<Permissions>> {
        self.permissions.iter()
    }

    /// Whether a user may open a virtual host: it has permissions there, if only empty ones.
    pub fn has_vhost_access(&self, user: &str, vhost: &str) -> bool {
        self.permissions(user, vhost).is_some()
    }

    /// Whether a user may do this with the queue or exchange of this name. The default exchange, whose name is empty, is
    /// checked under the name `amq.default`.
    pub fn is_permitted(&self, user: &str, vhost: &str, action: Action, resource: &str) -> bool {
        self.permissions(user, vhost).is_some_and(|permissions| permissions.allow(action, resource))
    }
}
