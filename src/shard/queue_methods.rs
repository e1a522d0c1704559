//! Methods of the class queue, as their channel sees them; the queue's side is in `queue_requests`.

use super::{
    Shard,
    exchange_methods::{Wanted, name_of},
    shard_message::{Asker, QueueRequest},
};
use crate::{
    connection::{Awaiting, OkMethod, QueueHandle, Then},
    definitions::{Action, Change, Name, QueueDefinition, ShardIndex, check_exclusive, check_queue_declare, texts},
    protocol::{
        exception::{ChannelException, Exception},
        field_table::{TableRef, ValueRef},
        method::{Method, queue},
        reply_code::ReplyCode,
    },
};
use std::sync::Arc;

/// Both directions of a binding.
struct QueueBinding<'a> {
    method: (u16, u16),
    queue: &'a [u8],
    exchange: &'a [u8],
    routing_key: &'a [u8],
    arguments: TableRef<'a>,
    no_wait: bool,
    adds: bool,
}

impl Shard {
    pub(super) fn handle_queue_method(&mut self, slot: u32, number: u16, method: &Method<'_>) -> Result<(), Exception> {
        match method {
            Method::QueueDeclare(declare) => self.declare_queue(slot, number, declare),
            Method::QueueBind(bind) => self.bind_queue(
                slot,
                number,
                &QueueBinding {
                    method: queue::Bind::IDS,
                    queue: bind.queue,
                    exchange: bind.exchange,
                    routing_key: bind.routing_key,
                    arguments: bind.arguments,
                    no_wait: bind.no_wait,
                    adds: true,
                },
            ),
            Method::QueueUnbind(unbind) => self.bind_queue(
                slot,
                number,
                &QueueBinding {
                    method: queue::Unbind::IDS,
                    queue: unbind.queue,
                    exchange: unbind.exchange,
                    routing_key: unbind.routing_key,
                    arguments: unbind.arguments,
                    no_wait: false,
                    adds: false,
                },
            ),
            Method::QueuePurge(purge) => {
                let name = self.queue_name(slot, number, purge.queue)?;
                self.require_named(slot, Action::Read, "queue", name.as_bytes())?;
                let definition = self.usable_queue(slot, &name)?;
                let awaiting =
                    Awaiting { channel: number, method: queue::Purge::IDS, no_wait: purge.no_wait, then: Then::Purge };
                self.ask_and_wait(slot, awaiting, &definition, QueueRequest::Purge);
                Ok(())
            }
            Method::QueueDelete(delete) => self.delete_queue_by_name(slot, number, delete),
            _ => Ok(()),
        }
    }

    fn declare_queue(&mut self, slot: u32, number: u16, declare: &queue::Declare<'_>) -> Result<(), Exception> {
        let connection = self.connections.get(slot).expect("a method has a connection");
        let (connection_id, vhost) = (connection.id, connection.vhost.clone());
        if declare.passive && self.is_reply_address(declare.queue) {
            let ok = queue::DeclareOk { queue: declare.queue, message_count: 0, consumer_count: 1 };
            self.send(slot, number, &Method::QueueDeclareOk(ok));
            return Ok(());
        }
        if declare.passive {
            let name = self.queue_name(slot, number, declare.queue)?;
            let definition = self.usable_queue(slot, &name)?;
            self.count_declared(slot, number, declare.no_wait, &definition);
            return Ok(());
        }
        let name = name_of(declare.queue)?;
        if !name.is_empty() {
            self.require_named(slot, Action::Configure, "queue", name.as_bytes())?;
        }
        if let Some(ValueRef::LongString(exchange)) = declare.arguments.get(b"x-dead-letter-exchange") {
            self.require_named(slot, Action::Read, "queue", name.as_bytes())?;
            self.require_named(slot, Action::Write, "exchange", exchange)?;
        }
        let arguments = declare.arguments.to_owned_table();
        if !name.is_empty()
            && let Ok(existing) = self.find_queue(&vhost, name.as_bytes())
        {
            let (durable, exclusive, auto_delete) = (declare.durable, declare.exclusive, declare.auto_delete);
            check_queue_declare(&existing, durable, exclusive, auto_delete, &arguments, connection_id)?;
            self.count_declared(slot, number, declare.no_wait, &existing);
            return Ok(());
        }
        let stays_here = declare.exclusive || declare.auto_delete || name.is_empty();
        let change = Change::DeclareQueue {
            vhost,
            name: name.clone(),
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments,
            connection: connection_id,
            home: if stays_here { self.index } else { ANY_SHARD },
        };
        let then = Then::QueueDeclared { name };
        self.want(slot, number, Wanted { method: queue::Declare::IDS, no_wait: declare.no_wait, change, then });
        Ok(())
    }

    /// The queue is there: asks it for its counts, for the answer.
    pub(super) fn count_declared(&mut self, slot: u32, number: u16, no_wait: bool, definition: &QueueDefinition) {
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        if let Some(channel) = connection.channel(number) {
            channel.last_queue = Some(definition.name.clone());
        }
        if no_wait {
            return;
        }
        let then = Then::QueueDeclared { name: definition.name.clone() };
        let awaiting = Awaiting { channel: number, method: queue::Declare::IDS, no_wait, then };
        self.ask_and_wait(slot, awaiting, definition, QueueRequest::Count);
    }

    fn bind_queue(&mut self, slot: u32, number: u16, binding: &QueueBinding<'_>) -> Result<(), Exception> {
        let queue = self.queue_name(slot, number, binding.queue)?;
        let exchange = name_of(binding.exchange)?;
        let routing_key = if binding.queue.is_empty() && binding.routing_key.is_empty() {
            queue.as_bytes()
        } else {
            binding.routing_key
        };
        self.require_named(slot, Action::Write, "queue", queue.as_bytes())?;
        self.require_named(slot, Action::Read, "exchange", exchange.as_bytes())?;
        let asker = self.connections.get(slot).expect("a method has a connection");
        let (vhost, connection) = (asker.vhost.clone(), asker.id);
        let (routing_key, arguments) = (routing_key.into(), binding.arguments.to_owned_table());
        let (change, then) = if binding.adds {
            let change = Change::BindQueue { vhost, exchange, queue, routing_key, arguments, connection };
            (change, Then::Answer(OkMethod::QueueBind))
        } else {
            let change = Change::UnbindQueue { vhost, exchange, queue, routing_key, arguments, connection };
            (change, Then::Answer(OkMethod::QueueUnbind))
        };
        self.want(slot, number, Wanted { method: binding.method, no_wait: binding.no_wait, change, then });
        Ok(())
    }

    fn delete_queue_by_name(&mut self, slot: u32, number: u16, delete: &queue::Delete<'_>) -> Result<(), Exception> {
        let name = self.queue_name(slot, number, delete.queue)?;
        self.require_named(slot, Action::Configure, "queue", name.as_bytes())?;
        let vhost = self.connections.get(slot).expect("a method has a connection").vhost.clone();
        let Ok(definition) = self.find_queue(&vhost, name.as_bytes()) else {
            if !delete.no_wait {
                self.send(slot, number, &Method::QueueDeleteOk(queue::DeleteOk { message_count: 0 }));
            }
            return Ok(());
        };
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        check_exclusive(&definition, connection.id)?;
        let awaiting =
            Awaiting { channel: number, method: queue::Delete::IDS, no_wait: delete.no_wait, then: Then::Delete };
        let request = QueueRequest::Delete { if_unused: delete.if_unused, if_empty: delete.if_empty };
        self.ask_and_wait(slot, awaiting, &definition, request);
        Ok(())
    }

    /// Asks a queue; the connection waits for the answer.
    pub(super) fn ask_and_wait(
        &mut self,
        slot: u32,
        awaiting: Awaiting,
        definition: &QueueDefinition,
        request: QueueRequest,
    ) {
        let connection = self.connections.get(slot).expect("a method has a connection");
        let asker: Asker = connection.asker(awaiting.channel);
        let handle = QueueHandle { home: definition.home, slot: u32::MAX, id: definition.id };
        self.await_answer(slot, awaiting);
        self.ask_queue(asker, handle, request);
    }

    /// The queue that a method means: by name, or the channel's last declared one.
    pub(super) fn queue_name(&mut self, slot: u32, number: u16, octets: &[u8]) -> Result<Name, Exception> {
        if !octets.is_empty() {
            return name_of(octets);
        }
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        let last = connection.channel(number).and_then(|channel| channel.last_queue.clone());
        last.ok_or_else(|| ChannelException::new(ReplyCode::NotFound, "no previously declared queue").into())
    }

    /// The queue with this name, if this connection may use it.
    pub(super) fn usable_queue(&self, slot: u32, name: &Name) -> Result<Arc<QueueDefinition>, Exception> {
        let connection = self.connections.get(slot).expect("a method has a connection");
        let found = self.vhost_of(slot).and_then(|vhost| vhost.queue(name.as_bytes()));
        let definition = found.cloned().ok_or_else(|| texts::no_queue(&connection.vhost, name))?;
        check_exclusive(&definition, connection.id)?;
        Ok(definition)
    }
}

/// The control plane chooses the shard.
pub const ANY_SHARD: ShardIndex = ShardIndex(u16::MAX);
