//! Bindings come and go: by themselves, with their queue, with either exchange.
//!
//! Sources: rabbit_channel.erl, `binding_action_with_checks`; rabbit_db_binding.erl.

use crate::definitions::change::Change;
use crate::definitions::checks::{self, REPLY_TO_PREFIX};
use crate::definitions::exchange::{Destination, Exchange, ExchangeKind};
use crate::definitions::registry::{Inbound, Registry};
use crate::definitions::texts;
use crate::definitions::{ConnectionId, Name};
use crate::protocol::exception::{ChannelException, Exception};
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::routing::{Binding, MatchMode};
use std::sync::Arc;

/// What a binding is made between.
struct Ends<'a> {
    vhost: &'a Name,
    source: &'a str,
    destination: DestinationName<'a>,
}

#[derive(Clone, Copy)]
enum DestinationName<'a> {
    Queue(&'a str, ConnectionId),
    Exchange(&'a str),
}

impl Registry {
    /// Applies the four changes that say something about one binding.
    pub(super) fn change_binding(&mut self, change: Change) -> Result<(), Exception> {
        use DestinationName::{Exchange, Queue};
        let strip = checks::without_line_ends;
        match change {
            Change::BindExchange { vhost, source, destination, routing_key, arguments } => {
                let ends = Ends { vhost: &vhost, source: &strip(&source), destination: Exchange(&strip(&destination)) };
                self.bind(&ends, routing_key, arguments)
            }
            Change::UnbindExchange { vhost, source, destination, routing_key, arguments } => {
                let ends = Ends { vhost: &vhost, source: &strip(&source), destination: Exchange(&strip(&destination)) };
                self.unbind(&ends, routing_key, arguments)
            }
            Change::BindQueue { vhost, exchange, queue, routing_key, arguments, connection } => {
                let ends =
                    Ends { vhost: &vhost, source: &strip(&exchange), destination: Queue(&strip(&queue), connection) };
                self.bind(&ends, routing_key, arguments)
            }
            Change::UnbindQueue { vhost, exchange, queue, routing_key, arguments, connection } => {
                let ends =
                    Ends { vhost: &vhost, source: &strip(&exchange), destination: Queue(&strip(&queue), connection) };
                self.unbind(&ends, routing_key, arguments)
            }
            _ => unreachable!("only changes of bindings come here"),
        }
    }

    fn bind(&mut self, ends: &Ends<'_>, routing_key: Box<[u8]>, arguments: FieldTable) -> Result<(), Exception> {
        check_names(ends)?;
        let source = self.vhost(ends.vhost)?.exchange(ends.source.as_bytes());
        let Some(source) = source else { return Err(texts::no_exchange(ends.vhost, ends.source).into()) };
        let Some(destination) = self.destination(ends)? else {
            return Err(match ends.destination {
                DestinationName::Queue(name, _) => texts::no_queue(ends.vhost, name),
                DestinationName::Exchange(name) => texts::no_exchange(ends.vhost, name),
            }
            .into());
        };
        check_arguments(source.kind, &arguments)?;
        check_access(ends, &destination)?;
        let mut binding = Binding::new(destination, routing_key, arguments, 0);
        if source.matcher.get(&binding).is_some() {
            return Ok(());
        }
        let source_name = Arc::clone(&source.name);
        binding.sequence = self.next_number();
        let binding = Arc::new(binding);
        let place = (binding.destination.id(), binding.sequence);
        self.exchange_mut(ends.vhost, ends.source).matcher.insert(Arc::clone(&binding));
        self.inbound.insert(place, Inbound { source: source_name, binding });
        Ok(())
    }

    fn unbind(&mut self, ends: &Ends<'_>, routing_key: Box<[u8]>, arguments: FieldTable) -> Result<(), Exception> {
        check_names(ends)?;
        let Some(source) = self.vhost(ends.vhost)?.exchange(ends.source.as_bytes()) else { return Ok(()) };
        let Some(destination) = self.destination(ends)? else { return Ok(()) };
        let binding = Binding::new(destination, routing_key, arguments, 0);
        if source.matcher.get(&binding).is_none() {
            return Ok(());
        }
        check_access(ends, &binding.destination)?;
        let source = self.exchange_mut(ends.vhost, ends.source);
        let removed = source.matcher.remove(&binding).expect("the binding was looked up before");
        let is_unused = source.auto_delete && source.matcher.is_empty();
        self.inbound.remove(&(removed.destination.id(), removed.sequence));
        if is_unused {
            self.drop_exchange(ends.vhost, ends.source);
        }
        Ok(())
    }

    /// What a binding leads to, if it is there.
    fn destination(&self, ends: &Ends<'_>) -> Result<Option<Destination>, Exception> {
        let vhost = self.vhost(ends.vhost)?;
        Ok(match ends.destination {
            DestinationName::Queue(name, _) => vhost.queue(name.as_bytes()).cloned().map(Destination::Queue),
            DestinationName::Exchange(name) => vhost
                .exchange(name.as_bytes())
                .map(|exchange| Destination::Exchange(Arc::new((exchange.id, Arc::clone(&exchange.name))))),
        })
    }

    /// An exchange that is known to be there, to be changed.
    fn exchange_mut(&mut self, vhost: &str, name: &str) -> &mut Exchange {
        let exchange = self.vhost_mut(vhost).exchanges.get_mut(name.as_bytes());
        Arc::make_mut(exchange.expect("the exchange was looked up before"))
    }

    /// Removes an exchange with the bindings that lead to it and away from it, and the auto-delete exchanges whose last
    /// binding goes by that.
    pub(super) fn drop_exchange(&mut self, vhost: &str, name: &str) {
        let mut going = vec![Name::from(name)];
        while let Some(name) = going.pop() {
            let Some(exchange) = self.vhost_mut(vhost).exchanges.remove(name.as_bytes()) else { continue };
            for binding in exchange.bindings() {
                self.inbound.remove(&(binding.destination.id(), binding.sequence));
            }
            self.unlink(vhost, exchange.id.0, &mut going);
        }
    }

    /// Removes all bindings to what has this number, and the auto-delete exchanges whose last binding goes by that.
    pub(super) fn drop_bindings_to(&mut self, vhost: &str, number: u64) {
        let mut going = Vec::new();
        self.unlink(vhost, number, &mut going);
        for name in going {
            self.drop_exchange(vhost, &name);
        }
    }

    fn unlink(&mut self, vhost: &str, number: u64, going: &mut Vec<Name>) {
        let places: Vec<_> = self.inbound.range((number, 0)..=(number, u64::MAX)).map(|(place, _)| *place).collect();
        for place in places {
            let Some(inbound) = self.inbound.remove(&place) else { continue };
            // The source may be gone: an exchange that is bound to itself.
            let Some(source) = self.vhost_mut(vhost).exchanges.get_mut(inbound.source.as_bytes()) else { continue };
            let source = Arc::make_mut(source);
            source.matcher.remove(&inbound.binding);
            if source.auto_delete && source.matcher.is_empty() {
                going.push(inbound.source);
            }
        }
    }
}

fn check_names(ends: &Ends<'_>) -> Result<(), ChannelException> {
    let destination_exchange = match ends.destination {
        DestinationName::Queue(name, _) if name.starts_with(REPLY_TO_PREFIX) => {
            return Err(texts::not_for_reply_queues());
        }
        DestinationName::Queue(..) => None,
        DestinationName::Exchange(name) => Some(name),
    };
    if ends.source.is_empty() || destination_exchange.is_some_and(str::is_empty) {
        return Err(texts::not_on_the_default_exchange());
    }
    Ok(())
}

fn check_access(ends: &Ends<'_>, destination: &Destination) -> Result<(), ChannelException> {
    match (ends.destination, destination) {
        (DestinationName::Queue(_, connection), Destination::Queue(queue)) => {
            checks::check_exclusive(queue, connection)
        }
        _ => Ok(()),
    }
}

/// A headers exchange refuses an `x-match` that it does not know. (RabbitMQ's topic exchanges refuse more than two `#` in a key;
/// they cost nothing special here.)
fn check_arguments(kind: ExchangeKind, arguments: &FieldTable) -> Result<(), ChannelException> {
    if kind != ExchangeKind::Headers {
        return Ok(());
    }
    match arguments.get("x-match") {
        None => Ok(()),
        Some(FieldValue::LongString(name)) if MatchMode::named(name).is_some() => Ok(()),
        Some(FieldValue::LongString(name)) => Err(texts::precondition_failed(format_args!(
            "Invalid x-match field value <<\"{}\">>; expected all, any, all-with-x, or any-with-x",
            String::from_utf8_lossy(name)
        ))),
        Some(other) => Err(texts::precondition_failed(format_args!(
            "Invalid x-match field type {} (value {}); expected longstr",
            other.type_name(),
            checks::Value(other)
        ))),
    }
}
