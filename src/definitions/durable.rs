//! What of a change is to be kept across restarts, in the order in which it happened.
//!
//! The registry gathers it while it applies changes, so that whoever keeps it needs to compare nothing. Kept are virtual
//! hosts, users, permissions, durable exchanges but for those that every virtual host has, durable queues, and bindings
//! between durable things.

use crate::definitions::change::Change;
use crate::definitions::checks::{self, RESERVED_PREFIX};
use crate::definitions::exchange::{Destination, Exchange, ExchangeId};
use crate::definitions::permissions::Permissions;
use crate::definitions::queue::{QueueDefinition, QueueId};
use crate::definitions::registry::Registry;
use crate::definitions::{Name, User};
use crate::protocol::field_table::FieldTable;
use crate::routing::Binding;
use std::sync::Arc;

/// One thing that is kept has come, changed or gone. What goes takes nothing along: each thing is told by itself.
#[derive(Clone)]
#[expect(missing_docs, reason = "named after what they hold")]
pub enum DurableChange {
    PutVhost(Name),
    DeleteVhost(Name),
    PutUser(Arc<User>),
    DeleteUser(Name),
    PutPermissions(Arc<Permissions>),
    DeletePermissions {
        user: Name,
        vhost: Name,
    },
    /// Without its bindings.
    PutExchange(Arc<Exchange>),
    DeleteExchange(ExchangeId),
    PutQueue(Arc<QueueDefinition>),
    DeleteQueue(QueueId),
    PutBinding {
        vhost: Name,
        source: Name,
        binding: Arc<Binding<Destination>>,
    },
    /// By its number ([`Binding::sequence`]).
    DeleteBinding(u64),
}

/// What is to be kept together, or not at all.
#[derive(Clone, Default)]
pub struct DurableChanges {
    /// In their order.
    pub changes: Vec<DurableChange>,
    /// The last number that was given to a queue, an exchange or a binding. It is kept with them, so that no number of
    /// theirs is ever given again.
    pub last_number: u64,
}

impl DurableChanges {
    /// Whether nothing is to be kept.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds what happened after these.
    pub fn append(&mut self, mut later: DurableChanges) {
        if !later.is_empty() {
            self.changes.append(&mut later.changes);
            self.last_number = later.last_number;
        }
    }
}

impl Registry {
    /// What is to be kept of all changes since this was asked before.
    pub fn take_durable(&mut self) -> DurableChanges {
        DurableChanges { changes: std::mem::take(&mut self.durable), last_number: self.last_number }
    }

    /// Whether a change, if it is made now, may change what is kept. May say yes where it does not in the end, never no where
    /// it does.
    pub fn may_change_durable(&self, change: &Change) -> bool {
        match change {
            Change::DeclareExchange { vhost, name, durable, .. } => *durable && self.exchange(vhost, name).is_none(),
            Change::DeclareQueue { vhost, name, durable, exclusive, .. } => {
                *durable && !*exclusive && self.queue(vhost, name).is_none()
            }
            Change::BindQueue { vhost, exchange, queue, routing_key, arguments, .. } => {
                let queue = self.queue(vhost, queue).filter(|queue| queue.durable);
                let destination = queue.map(|queue| Destination::Queue(Arc::clone(queue)));
                self.exchange(vhost, exchange).is_some_and(|it| is_new(it, destination, routing_key, arguments))
            }
            Change::BindExchange { vhost, source, destination, routing_key, arguments } => {
                let destination = self.exchange(vhost, destination).filter(|exchange| exchange.durable);
                let destination = destination.map(|exchange| Destination::from(&**exchange));
                self.exchange(vhost, source).is_some_and(|it| is_new(it, destination, routing_key, arguments))
            }
            Change::UnbindQueue { vhost, exchange, queue, .. } => {
                self.exchange(vhost, exchange).is_some_and(|source| {
                    source.auto_delete
                        || (source.durable && self.queue(vhost, queue).is_some_and(|queue| queue.durable))
                })
            }
            Change::UnbindExchange { vhost, source, .. } => {
                self.exchange(vhost, source).is_some_and(|source| source.auto_delete || source.durable)
            }
            Change::RemoveQueue { id } => self.queues.get(id).is_some_and(|queue| {
                queue.durable || self.inbound_of(id.0).any(|it| self.is_auto_delete(&queue.vhost, &it.source))
            }),
            Change::DeleteExchange { vhost, name, .. } => self.exchange(vhost, name).is_some(),
            Change::AddVhost { .. }
            | Change::DeleteVhost { .. }
            | Change::PutUser { .. }
            | Change::DeleteUser { .. }
            | Change::SetPermissions { .. }
            | Change::ClearPermissions { .. } => true,
        }
    }

    /// Notes what is to be kept.
    pub(super) fn keep(&mut self, change: DurableChange) {
        self.durable.push(change);
    }

    /// The queue of this name, if it is there.
    pub(super) fn queue(&self, vhost: &str, name: &str) -> Option<&Arc<QueueDefinition>> {
        self.current.vhost(vhost.as_bytes())?.queue(checks::without_line_ends(name).as_bytes())
    }

    /// The exchange of this name, if it is there.
    pub(super) fn exchange(&self, vhost: &str, name: &str) -> Option<&Arc<Exchange>> {
        self.current.vhost(vhost.as_bytes())?.exchange(checks::without_line_ends(name).as_bytes())
    }

    /// Whether an exchange goes with its last binding, which may take others along that are kept.
    fn is_auto_delete(&self, vhost: &str, name: &str) -> bool {
        self.exchange(vhost, name).is_some_and(|exchange| exchange.auto_delete)
    }

    /// Whether what a binding leads to is durable.
    pub(super) fn is_durable(&self, vhost: &str, destination: &Destination) -> bool {
        match destination {
            Destination::Queue(queue) => queue.durable,
            Destination::Exchange(exchange) => self.exchange(vhost, &exchange.1).is_some_and(|it| it.durable),
        }
    }
}

/// Whether a binding of a durable exchange to something durable (`None` where it is not) is not there yet.
fn is_new(source: &Exchange, destination: Option<Destination>, routing_key: &[u8], arguments: &FieldTable) -> bool {
    let Some(destination) = destination.filter(|_| source.durable) else { return false };
    source.matcher.get(&Binding::new(destination, routing_key, arguments.clone(), 0)).is_none()
}

impl Exchange {
    /// Whether every virtual host has it, so that it need not be kept.
    pub(super) fn is_predeclared(&self) -> bool {
        self.is_default() || self.name.starts_with(RESERVED_PREFIX)
    }
}

impl From<&Exchange> for Destination {
    fn from(exchange: &Exchange) -> Self {
        Self::Exchange(Arc::new((exchange.id, Arc::clone(&exchange.name))))
    }
}
