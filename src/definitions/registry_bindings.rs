//! Bindings come and go: by themselves, with their queue, with either exchange.
//!
//! Sources: `rabbit_channel.erl`, `binding_action_with_checks`; `rabbit_db_binding.erl`.

use crate::definitions::change::Change;
use crate::definitions::checks::{self, REPLY_TO_PREFIX};
use crate::definitions::durable::DurableChange;
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
        let mut binding = Binding::new(destination, &routing_key, arguments, 0);
        if source.matcher.get(&binding).is_some() {
            return Ok(());
        }
        let source_name = Arc::clone(&source.name);
        let is_durable = source.durable && self.is_durable(ends.vhost, &binding.destination);
        binding.sequence = self.next_number();
        let binding = Arc::new(binding);
        if is_durable {
            let (vhost, source) = (Arc::clone(ends.vhost), Arc::clone(&source_name));
            self.keep(DurableChange::PutBinding { vhost, source, binding: Arc::clone(&binding) });
        }
        self.insert_binding(ends.vhost, source_name, binding, is_durable);
        Ok(())
    }

    /// Adds a binding that is not there to an exchange that is.
    pub(super) fn insert_binding(
        &mut self,
        vhost: &str,
        source: Name,
        binding: Arc<Binding<Destination>>,
        is_durable: bool,
    ) {
        let place = (binding.destination.id(), binding.sequence);
        self.change_exchange(vhost, &source, |source| source.matcher.insert(Arc::clone(&binding)));
        self.inbound.insert(place, Inbound { source, binding, is_durable });
    }

    /// Takes a binding out of the index, and out of what is kept.
    pub(super) fn remove_inbound(&mut self, place: (u64, u64)) -> Option<Inbound> {
        let inbound = self.inbound.remove(&place)?;
        if inbound.is_durable {
            self.keep(DurableChange::DeleteBinding(place.1));
        }
        Some(inbound)
    }

    /// The bindings to what has this number.
    pub(super) fn inbound_of(&self, number: u64) -> impl Iterator<Item = &Inbound> {
        self.inbound.range((number, 0)..=(number, u64::MAX)).map(|(_, inbound)| inbound)
    }

    fn unbind(&mut self, ends: &Ends<'_>, routing_key: Box<[u8]>, arguments: FieldTable) -> Result<(), Exception> {
        check_names(ends)?;
        let Some(source) = self.vhost(ends.vhost)?.exchange(ends.source.as_bytes()) else { return Ok(()) };
        let Some(destination) = self.destination(ends)? else { return Ok(()) };
        let binding = Binding::new(destination, &routing_key, arguments, 0);
        if source.matcher.get(&binding).is_none() {
            return Ok(());
        }
        check_access(ends, &binding.destination)?;
        let changed = self.change_exchange(ends.vhost, ends.source, |source| {
            let removed = source.matcher.remove(&binding).expect("the binding was looked up before");
            (removed, source.auto_delete && source.matcher.is_empty())
        });
        let (removed, is_unused) = changed.expect("the exchange was looked up before");
        self.remove_inbound((removed.destination.id(), removed.sequence));
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
            DestinationName::Exchange(name) => {
                vhost.exchange(name.as_bytes()).map(|exchange| Destination::from(&**exchange))
            }
        })
    }

    /// Changes an exchange, if it is there.
    fn change_exchange<R>(&mut self, vhost: &str, name: &str, change: impl FnOnce(&mut Exchange) -> R) -> Option<R> {
        self.change_vhost(vhost, |vhost| {
            vhost.exchanges.update(name.as_bytes(), |exchange| change(Arc::make_mut(exchange)))
        })
    }

    /// Removes an exchange with the bindings that lead to it and away from it, and the auto-delete exchanges whose last
    /// binding goes by that.
    pub(super) fn drop_exchange(&mut self, vhost: &str, name: &str) {
        let mut going = vec![Name::from(name)];
        while let Some(name) = going.pop() {
            let removed = self.change_vhost(vhost, |vhost| vhost.exchanges.remove(name.as_bytes()));
            let Some(exchange) = removed else { continue };
            for binding in exchange.bindings() {
                self.remove_inbound((binding.destination.id(), binding.sequence));
            }
            if exchange.durable {
                self.keep(DurableChange::DeleteExchange(exchange.id));
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
            let Some(inbound) = self.remove_inbound(place) else { continue };
            // The source may be gone: an exchange that is bound to itself.
            let is_unused = self.change_exchange(vhost, &inbound.source, |source| {
                source.matcher.remove(&inbound.binding);
                source.auto_delete && source.matcher.is_empty()
            });
            if is_unused == Some(true) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::fixture::{
        OTHER, auto_delete, bind, bind_exchange, check_refused, declared, exchange, queue, registry_after, routed,
        table, text, unbind,
    };
    use crate::protocol::properties::NO_PROPERTIES;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn exchange_names(registry: &mut Registry) -> BTreeSet<String> {
        let definitions = registry.snapshot();
        let vhost = definitions.vhost(b"/").unwrap();
        vhost.exchanges().map(|it| it.name.to_string()).filter(|it| !it.is_empty() && !it.starts_with("amq.")).collect()
    }

    /// Goal: what RabbitMQ refuses to bind is refused in its words; unbinding is refused less.
    /// Method: one change for each text.
    #[test]
    fn bindings_are_refused_in_the_words_of_rabbitmq() {
        let registry = &mut registry_after([queue("q", &[])]);
        check_refused(registry, bind("x", "q", ""), "NOT_FOUND - no exchange 'x' in vhost '/'");
        check_refused(registry, bind("amq.direct", "r", ""), "NOT_FOUND - no queue 'r' in vhost '/'");
        check_refused(registry, bind("x", "r", ""), "NOT_FOUND - no exchange 'x' in vhost '/'");
        let no_default = "ACCESS_REFUSED - operation not permitted on the default exchange";
        check_refused(registry, bind("", "q", "q"), no_default);
        check_refused(registry, unbind("", "q", "q"), no_default);
        check_refused(registry, bind_exchange("amq.direct", "", ""), no_default);
        check_refused(registry, bind_exchange("", "amq.direct", ""), no_default);
        check_refused(
            registry,
            bind("amq.direct", "amq.rabbitmq.reply-to.x", ""),
            "ACCESS_REFUSED - cannot bind or unbind to a volatile (direct reply-to) queue",
        );
        for change in [unbind("x", "q", ""), unbind("amq.direct", "r", ""), unbind("amq.direct", "q", "")] {
            assert!(registry.apply(change).is_ok());
        }
    }

    /// Goal: `x-match` is checked where it means something only.
    /// Method: a wrong value and a wrong type, on a headers and on another exchange.
    #[test]
    fn x_match_is_checked_on_headers_exchanges() {
        let registry = &mut registry_after([queue("q", &[])]);
        let with = |exchange: &str, value| Change::BindQueue {
            vhost: "/".into(),
            exchange: exchange.into(),
            queue: "q".into(),
            routing_key: Box::default(),
            arguments: table(&[("x-match", value)]),
            connection: OTHER,
        };
        let expected = "PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; \
                        expected all, any, all-with-x, or any-with-x";
        check_refused(registry, with("amq.match", text("some")), expected);
        let expected = "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr";
        check_refused(registry, with("amq.match", FieldValue::I32(1)), expected);
        assert!(registry.apply(with("amq.match", text("any-with-x"))).is_ok());
        assert!(registry.apply(with("amq.direct", text("some"))).is_ok());
    }

    /// Goal: an exclusive queue is bound and unbound by its own connection only.
    /// Method: both connections try both.
    #[test]
    fn exclusive_queues_are_locked() {
        let registry = &mut registry_after([]);
        let Change::DeclareQueue { vhost, name, arguments, connection, home, .. } = queue("q", &[]) else {
            unreachable!("it is a queue")
        };
        let (durable, exclusive, auto_delete) = (false, true, false);
        let own = Change::DeclareQueue { vhost, name, durable, exclusive, auto_delete, arguments, connection, home };
        registry.apply(own).unwrap();
        let as_other = |change| match change {
            Change::BindQueue { vhost, exchange, queue, routing_key, arguments, .. } => {
                Change::BindQueue { vhost, exchange, queue, routing_key, arguments, connection: OTHER }
            }
            Change::UnbindQueue { vhost, exchange, queue, routing_key, arguments, .. } => {
                Change::UnbindQueue { vhost, exchange, queue, routing_key, arguments, connection: OTHER }
            }
            other => other,
        };
        let locked = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be \
                      originally declared on another connection or the exclusive property value does not match that of the \
                      original declaration.";
        check_refused(registry, as_other(bind("amq.direct", "q", "k")), locked);
        registry.apply(bind("amq.direct", "q", "k")).unwrap();
        check_refused(registry, as_other(unbind("amq.direct", "q", "k")), locked);
        assert_eq!(routed(&registry.snapshot(), "amq.direct", &["k"], NO_PROPERTIES), ["q"]);
        registry.apply(unbind("amq.direct", "q", "k")).unwrap();
    }

    /// Goal: an auto-delete exchange goes with its last binding, by whatever it goes, and takes others along; one that was
    /// never bound stays.
    /// Method: a chain of three such exchanges, taken down by unbinding, by removing the queue, and by deleting an exchange.
    #[test]
    fn auto_delete_exchanges_go_with_their_last_binding() {
        let chain = || {
            let exchange = |name| auto_delete(exchange(name, "fanout", &[]));
            registry_after([
                exchange("x"),
                exchange("y"),
                exchange("z"),
                exchange("unbound"),
                queue("q", &[]),
                bind_exchange("x", "y", ""),
                bind_exchange("y", "z", ""),
                bind("z", "q", ""),
                bind("z", "q", "twice"),
            ])
        };
        let mut registry = chain();
        registry.apply(unbind("z", "q", "twice")).unwrap();
        assert_eq!(exchange_names(&mut registry).len(), 4);
        registry.apply(unbind("z", "q", "")).unwrap();
        assert_eq!(exchange_names(&mut registry), ["unbound".to_owned()].into());
        assert!(registry.inbound.is_empty());

        let mut registry = chain();
        let id = declared(registry.apply(queue("q", &[]))).id;
        registry.apply(Change::RemoveQueue { id }).unwrap();
        registry.apply(Change::RemoveQueue { id }).unwrap();
        assert_eq!(exchange_names(&mut registry), ["unbound".to_owned()].into());
        assert!(registry.inbound.is_empty());

        let mut registry = chain();
        let delete = Change::DeleteExchange { vhost: "/".into(), name: "y".into(), if_unused: false };
        registry.apply(delete).unwrap();
        assert_eq!(exchange_names(&mut registry), ["unbound".to_owned(), "z".to_owned()].into());
        assert_eq!(registry.inbound.len(), 2);
    }

    proptest! {
        /// Goal: whatever comes and goes, messages go where a plain list of bindings says, the writer's own index agrees with the
        /// exchanges, and a snapshot does not change after it was given out.
        /// Method: random changes on few names, against a list.
        #[test]
        fn agrees_with_a_list_of_bindings(
            steps in prop::collection::vec((0..4u8, 0..4usize, 0..4usize, 0..3usize), 1..60),
        ) {
            let exchanges = ["amq.direct", "amq.topic", "amq.fanout", "mine"];
            let keys = ["a", "a.b", "#"];
            let name = |queue| format!("q{queue}");
            let mut registry = registry_after((0..4).map(|number| queue(&name(number), &[])));
            registry.apply(exchange("mine", "direct", &[])).unwrap();
            let mut list = BTreeSet::new();
            for (kind, x, q, k) in steps {
                let before = registry.snapshot();
                let routed_before = exchanges.map(|it| routed(&before, it, &["a"], NO_PROPERTIES));
                match kind {
                    0 | 1 => {
                        registry.apply(bind(exchanges[x], &name(q), keys[k])).unwrap();
                        list.insert((x, q, k));
                    }
                    2 => {
                        registry.apply(unbind(exchanges[x], &name(q), keys[k])).unwrap();
                        list.remove(&(x, q, k));
                    }
                    _ => {
                        let id = declared(registry.apply(queue(&name(q), &[]))).id;
                        registry.apply(Change::RemoveQueue { id }).unwrap();
                        registry.apply(queue(&name(q), &[])).unwrap();
                        list.retain(|&(_, its, _)| its != q);
                    }
                }
                let definitions = registry.snapshot();
                prop_assert_eq!(registry.inbound.len(), list.len());
                for (x, exchange) in exchanges.iter().enumerate() {
                    let is_match = |k: usize| match *exchange {
                        "amq.fanout" => true,
                        "amq.topic" => keys[k] == "a" || keys[k] == "#",
                        _ => keys[k] == "a",
                    };
                    let expected: BTreeSet<_> =
                        list.iter().filter(|it| it.0 == x && is_match(it.2)).map(|it| name(it.1)).collect();
                    let found = routed(&definitions, exchange, &["a"], NO_PROPERTIES);
                    prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
                    let count = list.iter().filter(|it| it.0 == x).count();
                    let vhost = definitions.vhost(b"/").unwrap();
                    prop_assert_eq!(vhost.exchange(exchange.as_bytes()).unwrap().binding_count(), count);
                }
                prop_assert_eq!(exchanges.map(|it| routed(&before, it, &["a"], NO_PROPERTIES)), routed_before);
            }
        }
    }
}
