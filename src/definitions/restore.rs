//! What was kept becomes a registry again: the same things with the same numbers, and queues with their homes.
//!
//! It is checked as if it were declared anew. What cannot be understood or contradicts itself is an error: nothing is left out.

use crate::definitions::durable::DurableChange;
use crate::definitions::exchange::{Destination, Exchange, ExchangeId, ExchangeKind, Matcher};
use crate::definitions::queue::{QueueDefinition, QueueId};
use crate::definitions::queue_arguments::NewQueue;
use crate::definitions::registry::{Registry, alternate_exchange};
use crate::definitions::texts::Resource;
use crate::definitions::{Name, ShardIndex, User};
use crate::protocol::field_table::FieldTable;
use crate::routing::Binding;
use ahash::AHashSet;
use std::fmt;
use std::sync::Arc;

/// All that was kept.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "named after what they hold")]
pub struct Kept {
    /// The last number that was given to a queue, an exchange or a binding.
    pub last_number: u64,
    pub vhosts: Vec<Name>,
    pub users: Vec<User>,
    pub permissions: Vec<KeptPermissions>,
    pub exchanges: Vec<KeptExchange>,
    pub queues: Vec<KeptQueue>,
    pub bindings: Vec<KeptBinding>,
}

/// What one user may do in one virtual host.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after what they hold")]
pub struct KeptPermissions {
    pub user: Name,
    pub vhost: Name,
    pub configure: String,
    pub write: String,
    pub read: String,
}

/// A durable exchange.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after what they hold")]
pub struct KeptExchange {
    pub id: ExchangeId,
    pub vhost: Name,
    pub name: Name,
    pub kind: String,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: FieldTable,
}

/// A durable queue.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after what they hold")]
pub struct KeptQueue {
    pub id: QueueId,
    pub vhost: Name,
    pub name: Name,
    pub home: ShardIndex,
    pub auto_delete: bool,
    pub server_named: bool,
    pub arguments: FieldTable,
}

/// A binding between durable things.
#[derive(Debug)]
#[expect(missing_docs, reason = "named after what they hold")]
pub struct KeptBinding {
    pub sequence: u64,
    pub vhost: Name,
    pub source: Name,
    pub destination: KeptDestination,
    pub routing_key: Vec<u8>,
    pub arguments: FieldTable,
}

/// Where it leads, by name.
#[derive(Clone, Debug)]
pub enum KeptDestination {
    /// To a queue.
    Queue(Name),
    /// To an exchange.
    Exchange(Name),
}

/// What was kept contradicts itself, or cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct RestoreError {
    /// Which thing: `queue 17 'orders' in vhost '/'`.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

impl RestoreError {
    fn new(what: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self { what: what.to_string(), reason: reason.to_string() }
    }
}

impl Registry {
    /// The registry that was kept. Queues whose home is none of the `shard_count` shards are placed anew, on those that have
    /// the fewest, and that is to be kept ([`Registry::take_durable`]).
    ///
    /// # Errors
    /// The first thing that cannot be what it says.
    pub fn restore(mut kept: Kept, shard_count: u16) -> Result<Self, RestoreError> {
        let moved = place_anew(&mut kept.queues, shard_count);
        let mut registry = Self::empty();
        registry.last_number = kept.last_number;
        for vhost in &kept.vhosts {
            registry.add_vhost(vhost);
        }
        for user in kept.users {
            registry.put_user(user);
        }
        for KeptPermissions { user, vhost, configure, write, read } in kept.permissions {
            let what = format!("permissions of user '{user}' in vhost '{vhost}'");
            let set = registry.set_permissions(user, vhost, [&configure, &write, &read]);
            set.map_err(|refused| RestoreError::new(what, refused.text()))?;
        }
        let mut numbers = Numbers { last: kept.last_number, seen: AHashSet::new() };
        for exchange in kept.exchanges {
            let what = format!("exchange {} '{}' in vhost '{}'", exchange.id.0, exchange.name, exchange.vhost);
            numbers.check(exchange.id.0).and_then(|()| registry.restore_exchange(exchange)).map_err(of(what))?;
        }
        for queue in kept.queues {
            let what = format!("queue {} '{}' in vhost '{}'", queue.id.0, queue.name, queue.vhost);
            numbers.check(queue.id.0).and_then(|()| registry.restore_queue(queue)).map_err(of(what))?;
        }
        for binding in kept.bindings {
            let what =
                format!("binding {} of exchange '{}' in vhost '{}'", binding.sequence, binding.source, binding.vhost);
            numbers.check(binding.sequence).and_then(|()| registry.restore_binding(binding)).map_err(of(what))?;
        }
        // All of it is kept already, but for the new homes.
        registry.durable.clear();
        for id in moved {
            let queue = Arc::clone(&registry.queues[&id]);
            registry.keep(DurableChange::PutQueue(queue));
        }
        Ok(registry)
    }

    fn restore_exchange(&mut self, kept: KeptExchange) -> Result<(), String> {
        let KeptExchange { id, vhost, name, kind, auto_delete, internal, arguments } = kept;
        let is_there =
            self.vhost(&vhost).map_err(|refused| refused.text().to_owned())?.exchange(name.as_bytes()).is_some();
        if is_there {
            return Err("there are two of this name".to_owned());
        }
        let kind = ExchangeKind::named(&kind).ok_or_else(|| format!("the type '{kind}' is not known"))?;
        let alternate = alternate_exchange(Resource::exchange(&vhost, &name), &arguments);
        let alternate = alternate.map_err(|refused| refused.text)?;
        let exchange = Arc::new(Exchange {
            id,
            vhost: Arc::clone(&vhost),
            name,
            kind,
            durable: true,
            auto_delete,
            internal,
            arguments: Arc::new(arguments),
            alternate,
            matcher: Matcher::new(kind),
        });
        self.change_vhost(&vhost, |vhost| vhost.exchanges.insert(exchange));
        Ok(())
    }

    fn restore_queue(&mut self, kept: KeptQueue) -> Result<(), String> {
        let KeptQueue { id, vhost, name, home, auto_delete, server_named, arguments } = kept;
        let is_there =
            self.vhost(&vhost).map_err(|refused| refused.text().to_owned())?.queue(name.as_bytes()).is_some();
        if is_there {
            return Err("there are two of this name".to_owned());
        }
        let resource = Resource::queue(&vhost, &name);
        let as_declared =
            NewQueue { resource, server_named, durable: true, exclusive: false, auto_delete, arguments: &arguments };
        let options = as_declared.options().map_err(|refused| refused.text().to_owned())?;
        let definition = Arc::new(QueueDefinition {
            id,
            vhost: Arc::clone(&vhost),
            name,
            home,
            durable: true,
            auto_delete,
            exclusive_owner: None,
            server_named,
            arguments,
            options,
        });
        self.queues.insert(id, Arc::clone(&definition));
        self.change_vhost(&vhost, |vhost| vhost.queues.insert(definition));
        Ok(())
    }

    fn restore_binding(&mut self, kept: KeptBinding) -> Result<(), String> {
        let KeptBinding { sequence, vhost: vhost_name, source, destination, routing_key, arguments } = kept;
        let vhost = self.vhost(&vhost_name).map_err(|refused| refused.text().to_owned())?;
        let exchange = vhost.exchange(source.as_bytes()).ok_or("its exchange is not there")?;
        let destination = match &destination {
            KeptDestination::Queue(name) => {
                let queue = vhost.queue(name.as_bytes());
                Destination::Queue(Arc::clone(queue.ok_or_else(|| format!("its queue '{name}' is not there"))?))
            }
            KeptDestination::Exchange(name) => {
                let exchange = vhost.exchange(name.as_bytes());
                Destination::from(
                    &**exchange.ok_or_else(|| format!("the exchange '{name}' that it leads to is not there"))?,
                )
            }
        };
        let binding = Binding::new(destination, &routing_key, arguments, sequence);
        if exchange.matcher.get(&binding).is_some() {
            return Err("there are two that say the same".to_owned());
        }
        self.insert_binding(&vhost_name, source, Arc::new(binding), true);
        Ok(())
    }
}

fn of(what: String) -> impl FnOnce(String) -> RestoreError {
    |reason| RestoreError { what, reason }
}

/// The numbers that are taken.
struct Numbers {
    last: u64,
    seen: AHashSet<u64>,
}

impl Numbers {
    fn check(&mut self, number: u64) -> Result<(), String> {
        if number > self.last {
            return Err(format!("its number is above the last one that was given, {}", self.last));
        }
        if self.seen.insert(number) { Ok(()) } else { Err("its number is taken".to_owned()) }
    }
}

/// Gives queues whose home is not there the shards with the fewest queues. Returns which.
fn place_anew(queues: &mut [KeptQueue], shard_count: u16) -> Vec<QueueId> {
    let mut counts = vec![0_usize; usize::from(shard_count)];
    for queue in queues.iter() {
        if let Some(count) = counts.get_mut(usize::from(queue.home.0)) {
            *count += 1;
        }
    }
    let mut moved = Vec::new();
    for queue in queues.iter_mut().filter(|queue| queue.home.0 >= shard_count) {
        let least = (0..).zip(&counts).min_by_key(|(_, count)| **count).expect("there is a shard").0;
        counts[usize::from(least)] += 1;
        queue.home = ShardIndex(least);
        moved.push(queue.id);
    }
    moved
}
