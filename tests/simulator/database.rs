//! What the control plane keeps, as durable as an answer says: the stand-in of its database.

use lepus::{
    definitions::{
        Destination, DurableChange, DurableChanges, Exchange, Name, Permissions, QueueDefinition, Registry, User,
        restore::{Kept, KeptBinding, KeptDestination, KeptExchange, KeptPermissions, KeptQueue},
    },
    routing::Binding,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Default)]
pub struct Database {
    last_number: u64,
    vhosts: BTreeSet<Name>,
    users: BTreeMap<Name, Arc<User>>,
    permissions: BTreeMap<(Name, Name), Arc<Permissions>>,
    exchanges: BTreeMap<u64, Arc<Exchange>>,
    queues: BTreeMap<u64, Arc<QueueDefinition>>,
    bindings: BTreeMap<u64, (Name, Name, Arc<Binding<Destination>>)>,
}

impl Database {
    pub fn commit(&mut self, changes: DurableChanges) {
        if !changes.is_empty() {
            self.last_number = changes.last_number;
        }
        for change in changes.changes {
            self.apply(change);
        }
    }

    fn apply(&mut self, change: DurableChange) {
        match change {
            DurableChange::PutVhost(name) => drop(self.vhosts.insert(name)),
            DurableChange::DeleteVhost(name) => drop(self.vhosts.remove(&name)),
            DurableChange::PutUser(user) => drop(self.users.insert(user.name.clone(), user)),
            DurableChange::DeleteUser(name) => drop(self.users.remove(&name)),
            DurableChange::PutPermissions(it) => {
                self.permissions.insert((it.user.clone(), it.vhost.clone()), it);
            }
            DurableChange::DeletePermissions { user, vhost } => drop(self.permissions.remove(&(user, vhost))),
            DurableChange::PutExchange(exchange) => drop(self.exchanges.insert(exchange.id.0, exchange)),
            DurableChange::DeleteExchange(id) => drop(self.exchanges.remove(&id.0)),
            DurableChange::PutQueue(queue) => drop(self.queues.insert(queue.id.0, queue)),
            DurableChange::DeleteQueue(id) => drop(self.queues.remove(&id.0)),
            DurableChange::PutBinding { vhost, source, binding } => {
                self.bindings.insert(binding.sequence, (vhost, source, binding));
            }
            DurableChange::DeleteBinding(number) => drop(self.bindings.remove(&number)),
        }
    }

    /// What a broker that starts finds.
    pub fn load(&self, shard_count: usize) -> Registry {
        if self.vhosts.is_empty() {
            return Registry::new();
        }
        let shard_count = u16::try_from(shard_count).expect("few");
        Registry::restore(self.kept(), shard_count).expect("what was kept is sound")
    }

    fn kept(&self) -> Kept {
        let users = self.users.values().map(|user| User {
            name: user.name.clone(),
            password_hash: user.password_hash.clone(),
            tags: user.tags.clone(),
        });
        let permissions = self.permissions.values().map(|it| KeptPermissions {
            user: it.user.clone(),
            vhost: it.vhost.clone(),
            configure: it.configure.text().into(),
            write: it.write.text().into(),
            read: it.read.text().into(),
        });
        let exchanges = self.exchanges.values().map(|exchange| KeptExchange {
            id: exchange.id,
            vhost: exchange.vhost.clone(),
            name: exchange.name.clone(),
            kind: exchange.kind.name().into(),
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            arguments: (*exchange.arguments).clone(),
        });
        let queues = self.queues.values().map(|queue| KeptQueue {
            id: queue.id,
            vhost: queue.vhost.clone(),
            name: queue.name.clone(),
            home: queue.home,
            auto_delete: queue.auto_delete,
            server_named: queue.server_named,
            arguments: queue.arguments.clone(),
        });
        let bindings = self.bindings.iter().map(|(sequence, (vhost, source, binding))| KeptBinding {
            sequence: *sequence,
            vhost: vhost.clone(),
            source: source.clone(),
            destination: match &binding.destination {
                Destination::Queue(queue) => KeptDestination::Queue(queue.name.clone()),
                Destination::Exchange(exchange) => KeptDestination::Exchange(exchange.1.clone()),
            },
            routing_key: binding.routing_key.to_vec(),
            arguments: binding.arguments().clone(),
        });
        Kept {
            last_number: self.last_number,
            vhosts: self.vhosts.iter().cloned().collect(),
            users: users.collect(),
            permissions: permissions.collect(),
            exchanges: exchanges.collect(),
            queues: queues.collect(),
            bindings: bindings.collect(),
        }
    }
}
