//! For tests: changes in the virtual host `/` in few words.

use crate::definitions::change::{Applied, Change};
use crate::definitions::queue::QueueDefinition;
use crate::definitions::{ConnectionId, Definitions, Registry, RouteSet, ShardIndex};
use crate::protocol::exception::Exception;
use crate::protocol::field_table::{FieldTable, FieldValue};
use std::sync::Arc;

/// The connection that these changes come from.
pub const OWN: ConnectionId = ConnectionId { shard: ShardIndex(0), slot: 1, generation: 0 };
/// Another one.
pub const OTHER: ConnectionId = ConnectionId { shard: ShardIndex(0), slot: 2, generation: 0 };

pub fn table(fields: &[(&str, FieldValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name, value.clone());
    }
    table
}

pub fn text(value: &str) -> FieldValue {
    FieldValue::from(value)
}

/// A durable queue with these arguments.
pub fn queue(name: &str, arguments: &[(&str, FieldValue)]) -> Change {
    Change::DeclareQueue {
        vhost: "/".into(),
        name: name.into(),
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: table(arguments),
        connection: OWN,
        home: ShardIndex(0),
    }
}

/// A durable exchange with these arguments.
pub fn exchange(name: &str, kind: &str, arguments: &[(&str, FieldValue)]) -> Change {
    Change::DeclareExchange {
        vhost: "/".into(),
        name: name.into(),
        kind: kind.into(),
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: table(arguments),
    }
}

/// Makes an exchange that goes with its last binding of one that does not.
pub fn auto_delete(change: Change) -> Change {
    match change {
        Change::DeclareExchange { vhost, name, kind, durable, internal, arguments, .. } => {
            Change::DeclareExchange { vhost, name, kind, durable, auto_delete: true, internal, arguments }
        }
        other => other,
    }
}

pub fn bind(exchange: &str, queue: &str, key: &str) -> Change {
    let (vhost, exchange, queue) = ("/".into(), exchange.into(), queue.into());
    let arguments = FieldTable::default();
    Change::BindQueue { vhost, exchange, queue, routing_key: key.as_bytes().into(), arguments, connection: OWN }
}

pub fn unbind(exchange: &str, queue: &str, key: &str) -> Change {
    let (vhost, exchange, queue) = ("/".into(), exchange.into(), queue.into());
    let arguments = FieldTable::default();
    Change::UnbindQueue { vhost, exchange, queue, routing_key: key.as_bytes().into(), arguments, connection: OWN }
}

pub fn bind_exchange(source: &str, destination: &str, key: &str) -> Change {
    let (vhost, source, destination) = ("/".into(), source.into(), destination.into());
    Change::BindExchange {
        vhost,
        source,
        destination,
        routing_key: key.as_bytes().into(),
        arguments: FieldTable::default(),
    }
}

/// A new broker after these changes, all of which must be accepted.
pub fn registry_after(changes: impl IntoIterator<Item = Change>) -> Registry {
    let mut registry = Registry::new().with_seeded_names(7);
    for change in changes {
        let description = format!("{change:?}");
        registry.apply(change).unwrap_or_else(|refused| panic!("{description}: {refused}"));
    }
    registry
}

/// The queue that a declare answers with.
pub fn declared(applied: Result<Applied, Exception>) -> Arc<QueueDefinition> {
    match applied {
        Ok(Applied::Queue { definition, .. }) => definition,
        other => panic!("not a queue: {other:?}"),
    }
}

/// The names of the queues that a message reaches, in order.
pub fn routed(definitions: &Definitions, exchange: &str, keys: &[&str], properties: &[u8]) -> Vec<String> {
    let vhost = definitions.vhost(b"/").expect("it is there");
    let exchange = vhost.exchange(exchange.as_bytes()).expect("it is there");
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let mut set = RouteSet::new();
    definitions.route(vhost, exchange, &keys, properties, &mut set);
    let mut names: Vec<_> = set.queues().iter().map(|queue| queue.name.to_string()).collect();
    names.sort();
    names
}

/// Applies a change that must be refused in these words.
pub fn check_refused(registry: &mut Registry, change: Change, expected: &str) {
    let description = format!("{change:?}");
    match registry.apply(change) {
        Err(refused) => assert_eq!(refused.text(), expected, "{description}"),
        Ok(applied) => panic!("{description} was accepted: {applied:?}"),
    }
}
