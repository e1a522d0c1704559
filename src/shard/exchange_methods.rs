//! Methods of the class exchange.
//!
//! What the snapshot of the definitions answers is answered here; every change goes to the control plane.

use super::{
    Shard,
    control_message::{ControlRequest, Operation},
};
use crate::{
    connection::{Awaiting, OkMethod, Pause, Then},
    definitions::{Action, Change, Name, check_exchange_declare},
    protocol::{
        exception::{ChannelException, Exception},
        field_table::{TableRef, ValueRef},
        method::{Method, exchange, queue},
        reply_code::ReplyCode,
    },
};

/// A change that a method asks for.
pub(super) struct Wanted {
    pub method: (u16, u16),
    pub no_wait: bool,
    pub change: Change,
    pub then: Then,
}

/// Both directions of an exchange-to-exchange binding.
struct ExchangeBinding<'a> {
    method: (u16, u16),
    source: &'a [u8],
    destination: &'a [u8],
    routing_key: &'a [u8],
    arguments: TableRef<'a>,
    no_wait: bool,
    adds: bool,
}

impl Shard {
    pub(super) fn handle_exchange_method(
        &mut self,
        slot: u32,
        number: u16,
        method: &Method<'_>,
    ) -> Result<(), Exception> {
        match method {
            Method::ExchangeDeclare(declare) => self.declare_exchange(slot, number, declare),
            Method::ExchangeDelete(delete) => self.delete_exchange(slot, number, delete),
            Method::ExchangeBind(bind) => self.bind_exchange(
                slot,
                number,
                &ExchangeBinding {
                    method: exchange::Bind::IDS,
                    source: bind.source,
                    destination: bind.destination,
                    routing_key: bind.routing_key,
                    arguments: bind.arguments,
                    no_wait: bind.no_wait,
                    adds: true,
                },
            ),
            Method::ExchangeUnbind(unbind) => self.bind_exchange(
                slot,
                number,
                &ExchangeBinding {
                    method: exchange::Unbind::IDS,
                    source: unbind.source,
                    destination: unbind.destination,
                    routing_key: unbind.routing_key,
                    arguments: unbind.arguments,
                    no_wait: unbind.no_wait,
                    adds: false,
                },
            ),
            _ => Ok(()),
        }
    }

    fn declare_exchange(&mut self, slot: u32, number: u16, declare: &exchange::Declare<'_>) -> Result<(), Exception> {
        let name = name_of(declare.exchange)?;
        let vhost = self.connections.get(slot).expect("a method has a connection").vhost.clone();
        if declare.passive {
            self.find_exchange(&vhost, name.as_bytes())?;
            self.send_ok(slot, number, OkMethod::ExchangeDeclare, declare.no_wait);
            return Ok(());
        }
        self.require_named(slot, Action::Configure, "exchange", name.as_bytes())?;
        if let Some(ValueRef::LongString(alternate)) = declare.arguments.get(b"alternate-exchange") {
            self.require_named(slot, Action::Read, "exchange", name.as_bytes())?;
            self.require_named(slot, Action::Write, "exchange", alternate)?;
        }
        let arguments = declare.arguments.to_owned_table();
        let kind = String::from_utf8_lossy(declare.kind);
        if !name.is_empty()
            && let Ok(existing) = self.find_exchange(&vhost, name.as_bytes())
        {
            let (durable, auto_delete, internal) = (declare.durable, declare.auto_delete, declare.internal);
            check_exchange_declare(&existing, &kind, durable, auto_delete, internal, &arguments)?;
            self.send_ok(slot, number, OkMethod::ExchangeDeclare, declare.no_wait);
            return Ok(());
        }
        let change = Change::DeclareExchange {
            vhost,
            name,
            kind: kind.into(),
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments,
        };
        let then = Then::Answer(OkMethod::ExchangeDeclare);
        self.want(slot, number, Wanted { method: exchange::Declare::IDS, no_wait: declare.no_wait, change, then });
        Ok(())
    }

    fn delete_exchange(&mut self, slot: u32, number: u16, delete: &exchange::Delete<'_>) -> Result<(), Exception> {
        let name = name_of(delete.exchange)?;
        self.require_named(slot, Action::Configure, "exchange", name.as_bytes())?;
        let vhost = self.connections.get(slot).expect("a method has a connection").vhost.clone();
        let change = Change::DeleteExchange { vhost, name, if_unused: delete.if_unused };
        let then = Then::Answer(OkMethod::ExchangeDelete);
        self.want(slot, number, Wanted { method: exchange::Delete::IDS, no_wait: delete.no_wait, change, then });
        Ok(())
    }

    fn bind_exchange(&mut self, slot: u32, number: u16, binding: &ExchangeBinding<'_>) -> Result<(), Exception> {
        let (source, destination) = (name_of(binding.source)?, name_of(binding.destination)?);
        self.require_named(slot, Action::Write, "exchange", destination.as_bytes())?;
        self.require_named(slot, Action::Read, "exchange", source.as_bytes())?;
        let vhost = self.connections.get(slot).expect("a method has a connection").vhost.clone();
        let (routing_key, arguments) = (binding.routing_key.into(), binding.arguments.to_owned_table());
        let (change, then) = if binding.adds {
            let change = Change::BindExchange { vhost, source, destination, routing_key, arguments };
            (change, Then::Answer(OkMethod::ExchangeBind))
        } else {
            let change = Change::UnbindExchange { vhost, source, destination, routing_key, arguments };
            (change, Then::Answer(OkMethod::ExchangeUnbind))
        };
        self.want(slot, number, Wanted { method: binding.method, no_wait: binding.no_wait, change, then });
        Ok(())
    }

    /// Asks the control plane for a change; the connection waits for the answer.
    pub(super) fn want(&mut self, slot: u32, number: u16, wanted: Wanted) {
        let Wanted { method, no_wait, change, then } = wanted;
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        let from = Some(connection.asker(number));
        self.await_answer(slot, Awaiting { channel: number, method, no_wait, then });
        self.control_requests.push_back(ControlRequest { from, operation: Operation::Change(change) });
    }

    /// Notes what a connection waits for, and stops handling its frames.
    pub(super) fn await_answer(&mut self, slot: u32, awaiting: Awaiting) {
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        assert!(connection.awaiting.is_none(), "a method was handled while another awaited its answer");
        connection.awaiting = Some(awaiting);
        connection.pause = Some(Pause::Answer);
    }

    /// Answers with a method that carries nothing.
    pub(super) fn send_ok(&mut self, slot: u32, number: u16, ok: OkMethod, no_wait: bool) {
        if no_wait {
            return;
        }
        let method = match ok {
            OkMethod::ExchangeDeclare => Method::ExchangeDeclareOk(exchange::DeclareOk {}),
            OkMethod::ExchangeDelete => Method::ExchangeDeleteOk(exchange::DeleteOk {}),
            OkMethod::ExchangeBind => Method::ExchangeBindOk(exchange::BindOk {}),
            OkMethod::ExchangeUnbind => Method::ExchangeUnbindOk(exchange::UnbindOk {}),
            OkMethod::QueueBind => Method::QueueBindOk(queue::BindOk {}),
            OkMethod::QueueUnbind => Method::QueueUnbindOk(queue::UnbindOk {}),
        };
        self.send(slot, number, &method);
    }
}

/// A name from the wire: CR and LF are stripped, as RabbitMQ does; it has to be UTF-8.
pub(super) fn name_of(octets: &[u8]) -> Result<Name, Exception> {
    let text = std::str::from_utf8(octets).map_err(|_| {
        ChannelException::new(ReplyCode::PreconditionFailed, "names of queues and exchanges must be valid UTF-8")
    })?;
    if text.contains(['\r', '\n']) {
        return Ok(text.replace(['\r', '\n'], "").into());
    }
    Ok(text.into())
}
