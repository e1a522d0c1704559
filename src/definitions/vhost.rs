//! A virtual host: a world of exchanges and queues of its own.

use crate::definitions::Name;
use crate::definitions::exchange::{Exchange, ExchangeKind};
use crate::definitions::name_table::{NameTable, Named};
use crate::definitions::queue::QueueDefinition;
use std::sync::Arc;

/// The exchanges that every virtual host has, with their types and whether they are internal.
pub(super) const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];

/// A virtual host.
#[derive(Clone)]
pub struct Vhost {
    /// The name.
    pub name: Name,
    pub(super) exchanges: NameTable<Exchange>,
    pub(super) queues: NameTable<QueueDefinition>,
}

impl Named for Vhost {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Vhost {
    pub(super) fn new(name: Name) -> Self {
        Self { name, exchanges: NameTable::default(), queues: NameTable::default() }
    }

    /// The exchange of this name; the default exchange's is empty.
    #[inline]
    pub fn exchange(&self, name: &[u8]) -> Option<&Arc<Exchange>> {
        self.exchanges.get(name)
    }

    /// The queue of this name.
    #[inline]
    pub fn queue(&self, name: &[u8]) -> Option<&Arc<QueueDefinition>> {
        self.queues.get(name)
    }

    /// All exchanges, in no particular order.
    pub fn exchanges(&self) -> impl Iterator<Item = &Arc<Exchange>> {
        self.exchanges.iter()
    }

    /// All queues, in no particular order.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<QueueDefinition>> {
        self.queues.iter()
    }

    /// How many queues.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }
}
