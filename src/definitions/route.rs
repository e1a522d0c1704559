//! From an exchange and a message's routing keys to the queues that get the message.
//!
//! Source: `rabbit_exchange.erl`, `route`. Each exchange is visited once, so that cycles end. An exchange whose bindings
//! match nothing sends to its alternate exchange, wherever on the way it stands.

use crate::definitions::Definitions;
use crate::definitions::exchange::{Destination, Exchange, Matcher};
use crate::definitions::queue::QueueDefinition;
use crate::definitions::vhost::Vhost;
use crate::limits::EXCHANGE_HOPS_MAX;
use crate::protocol::field_table::TableRef;
use crate::protocol::properties;
use ahash::AHashSet;
use smallvec::SmallVec;
use std::sync::Arc;

/// The queues that one message reaches, each once. Keep it and use it again: then nothing is allocated for the next message.
#[derive(Default)]
pub struct RouteSet<'d> {
    queues: SmallVec<[&'d Arc<QueueDefinition>; 16]>,
    seen: Seen,
    /// Whether a headers exchange was on the way: then the same exchange and keys may lead elsewhere the next time.
    pub looked_at_headers: bool,
}

impl<'d> RouteSet<'d> {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The queues, each once, in no particular order.
    #[inline]
    pub fn queues(&self) -> &[&'d Arc<QueueDefinition>] {
        &self.queues
    }

    /// Whether the message reaches no queue.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Forgets the queues, keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.queues.clear();
        self.seen.clear();
        self.looked_at_headers = false;
    }

    #[inline]
    fn insert(&mut self, queue: &'d Arc<QueueDefinition>) {
        if self.seen.is_first(queue.id.0) {
            self.queues.push(queue);
        }
    }
}

/// The numbers that were seen: a few in a row, from then on by hash.
#[derive(Default)]
struct Seen {
    few: SmallVec<[u64; Self::FEW_MAX]>,
    many: AHashSet<u64>,
}

impl Seen {
    const FEW_MAX: usize = 16;

    #[inline]
    fn is_first(&mut self, id: u64) -> bool {
        if self.few.len() < Self::FEW_MAX {
            let is_first = !self.few.contains(&id);
            if is_first {
                self.few.push(id);
            }
            return is_first;
        }
        if self.many.is_empty() {
            self.many.extend(self.few.iter().copied());
        }
        self.many.insert(id)
    }

    #[inline]
    fn clear(&mut self) {
        self.few.clear();
        if !self.many.is_empty() {
            self.many.clear();
        }
    }
}

impl Definitions {
    /// Fills `into` with all queues that a message to `exchange` reaches; what was in it before is forgotten.
    ///
    /// `routing_keys` are the message's own and those of its CC and BCC headers. `properties` are raw; they are looked at
    /// only where a headers exchange is met. Whether the exchange may be published to is not asked here.
    #[inline]
    pub fn route<'d>(
        &'d self,
        vhost: &'d Vhost,
        exchange: &'d Exchange,
        routing_keys: &[&[u8]],
        properties: &[u8],
        into: &mut RouteSet<'d>,
    ) {
        into.clear();
        if exchange.is_default() {
            into.queues_named(vhost, routing_keys);
            return;
        }
        let mut walk = Walk { vhost, routing_keys, properties, waiting: SmallVec::new(), visited: Seen::default() };
        walk.visit(exchange, into);
        if !walk.waiting.is_empty() {
            walk.finish(exchange, into);
        }
    }
}

impl<'d> RouteSet<'d> {
    #[inline]
    fn queues_named(&mut self, vhost: &'d Vhost, names: &[&[u8]]) -> bool {
        let mut is_any = false;
        for name in names {
            if let Some(queue) = vhost.queue(name) {
                self.insert(queue);
                is_any = true;
            }
        }
        is_any
    }
}

/// One message's way through the exchanges.
struct Walk<'d, 'm> {
    vhost: &'d Vhost,
    routing_keys: &'m [&'m [u8]],
    properties: &'m [u8],
    /// Names of exchanges that the message reaches and has not passed.
    waiting: SmallVec<[&'d str; 4]>,
    visited: Seen,
}

impl<'d> Walk<'d, '_> {
    #[inline]
    fn visit(&mut self, exchange: &'d Exchange, into: &mut RouteSet<'d>) {
        let Self { vhost, routing_keys, properties, waiting, .. } = self;
        let mut is_any = false;
        if exchange.is_default() {
            is_any = into.queues_named(vhost, routing_keys);
        }
        let mut found = |destination: &'d Destination, into: &mut RouteSet<'d>| {
            is_any = true;
            match destination {
                Destination::Queue(queue) => into.insert(queue),
                Destination::Exchange(exchange) => waiting.push(&exchange.1),
            }
        };
        match &exchange.matcher {
            Matcher::Direct(matcher) => {
                for key in *routing_keys {
                    matcher.for_each_match(key, |binding| found(&binding.destination, into));
                }
            }
            Matcher::Fanout(matcher) => matcher.for_each_match(|binding| found(&binding.destination, into)),
            Matcher::Topic(matcher) => {
                for key in *routing_keys {
                    matcher.for_each_match(key, |binding| found(&binding.destination, into));
                }
            }
            Matcher::Headers(matcher) => {
                into.looked_at_headers = true;
                let headers = properties::headers(properties).unwrap_or(TableRef::EMPTY);
                matcher.for_each_match(headers, |binding| found(&binding.destination, into));
            }
        }
        if let (false, Some(alternate)) = (is_any, &exchange.alternate) {
            self.waiting.push(alternate);
        }
    }

    /// Goes on through the exchanges that wait. One that is not there (any more) is passed over.
    #[cold]
    fn finish(&mut self, first: &'d Exchange, into: &mut RouteSet<'d>) {
        self.visited.is_first(first.id.0);
        let mut hops = 0;
        while let Some(name) = self.waiting.pop() {
            let Some(exchange) = self.vhost.exchange(name.as_bytes()) else { continue };
            if !self.visited.is_first(exchange.id.0) {
                continue;
            }
            hops += 1;
            if hops > EXCHANGE_HOPS_MAX {
                return;
            }
            self.visit(exchange, into);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::change::Change;
    use crate::definitions::fixture::{bind, bind_exchange, exchange, queue, registry_after, routed, table, text};
    use crate::protocol::properties::{NO_PROPERTIES, Properties};

    fn check(definitions: &Definitions, exchange: &str, keys: &[&str], expected: &[&str]) {
        assert_eq!(routed(definitions, exchange, keys, NO_PROPERTIES), expected, "{exchange} {keys:?}");
    }

    /// Goal: the default exchange reaches each named queue once, whatever else is bound.
    /// Method: names that are there, that are not, that repeat, that are not UTF-8.
    #[test]
    fn default_exchange_routes_by_name() {
        let definitions = registry_after([queue("a", &[]), queue("b", &[])]).snapshot();
        check(&definitions, "", &["a"], &["a"]);
        check(&definitions, "", &["c"], &[]);
        check(&definitions, "", &["a", "b", "a", ""], &["a", "b"]);
        let vhost = definitions.vhost(b"/").unwrap();
        assert!(vhost.queue(b"\xFF").is_none());
    }

    /// Goal: exchanges lead on to exchanges, cycles end, each queue is reached once.
    /// Method: a cycle of three exchanges, one of them bound to itself, with a queue that all of them reach.
    #[test]
    fn cycles_end_and_queues_are_reached_once() {
        let definitions = registry_after([
            exchange("x", "fanout", &[]),
            exchange("y", "topic", &[]),
            exchange("z", "direct", &[]),
            queue("all", &[]),
            queue("z only", &[]),
            bind_exchange("x", "y", ""),
            bind_exchange("y", "z", "a.#"),
            bind_exchange("z", "x", "a.b"),
            bind_exchange("x", "x", ""),
            bind("x", "all", ""),
            bind("y", "all", "#"),
            bind("z", "all", "a.b"),
            bind("z", "z only", "a.b"),
        ])
        .snapshot();
        check(&definitions, "x", &["a.b"], &["all", "z only"]);
        check(&definitions, "x", &["c"], &["all"]);
        check(&definitions, "z", &["a.b"], &["all", "z only"]);
        check(&definitions, "z", &["a"], &[]);
        check(&definitions, "z", &["other", "a.b"], &["all", "z only"]);
    }

    /// Goal: an alternate exchange gets what no binding matches, at the start and on the way; also where it is the default
    /// exchange, itself, or not there.
    /// Method: one exchange for each.
    #[test]
    fn alternate_exchanges_catch_what_is_not_bound() {
        let alternate = |name: &str| [("alternate-exchange", text(name))];
        let definitions = registry_after([
            exchange("caught", "fanout", &[]),
            exchange("direct", "direct", &alternate("caught")),
            exchange("chain", "fanout", &[]),
            exchange("to default", "topic", &alternate("")),
            exchange("to itself", "direct", &alternate("to itself")),
            exchange("to nowhere", "direct", &alternate("missing")),
            queue("a", &[]),
            queue("b", &[]),
            bind("caught", "a", ""),
            bind("direct", "b", "bound"),
            bind_exchange("chain", "direct", ""),
        ])
        .snapshot();
        check(&definitions, "direct", &["bound"], &["b"]);
        check(&definitions, "direct", &["other"], &["a"]);
        check(&definitions, "chain", &["other"], &["a"]);
        check(&definitions, "to default", &["a"], &["a"]);
        check(&definitions, "to itself", &["a"], &[]);
        check(&definitions, "to nowhere", &["a"], &[]);
    }

    /// Goal: headers are looked at where a headers exchange is met, and only then.
    /// Method: the same message by way of a headers exchange and past it.
    #[test]
    fn headers_are_looked_at_where_they_matter() {
        let mut registry = registry_after([queue("a", &[]), queue("b", &[]), bind("amq.fanout", "b", "")]);
        let arguments = table(&[("kind", text("report"))]);
        registry
            .apply(Change::BindQueue {
                vhost: "/".into(),
                exchange: "amq.match".into(),
                queue: "a".into(),
                routing_key: Box::default(),
                arguments,
                connection: crate::definitions::ConnectionId::BROKER,
            })
            .unwrap();
        registry.apply(bind_exchange("amq.fanout", "amq.match", "")).unwrap();
        let definitions = registry.snapshot();
        let octets = table(&[("kind", text("report"))]).to_octets();
        let mut properties = Vec::new();
        let headers = Some(TableRef::new(&octets).unwrap());
        Properties { headers, ..Properties::default() }.encode(&mut properties);
        assert_eq!(routed(&definitions, "amq.match", &["k"], &properties), ["a"]);
        assert_eq!(routed(&definitions, "amq.fanout", &["k"], &properties), ["a", "b"]);
        assert_eq!(routed(&definitions, "amq.fanout", &["k"], NO_PROPERTIES), ["b"]);
        let vhost = definitions.vhost(b"/").unwrap();
        let mut set = RouteSet::new();
        for (exchange, expected) in [("amq.fanout", true), ("amq.direct", false)] {
            let exchange = vhost.exchange(exchange.as_bytes()).unwrap();
            definitions.route(vhost, exchange, &[b"k"], NO_PROPERTIES, &mut set);
            assert_eq!(set.looked_at_headers, expected);
        }
    }

    /// Goal: many queues that are reached on two ways are still counted once.
    /// Method: a hundred queues, bound to two exchanges of which one leads to the other; the set is used twice.
    #[test]
    fn many_queues_are_reached_once() {
        let names: Vec<_> = (0..100).map(|number| format!("q{number:02}")).collect();
        let mut changes = vec![bind_exchange("amq.topic", "amq.fanout", "#")];
        for name in &names {
            changes.extend([queue(name, &[]), bind("amq.topic", name, "#"), bind("amq.fanout", name, "")]);
        }
        let definitions = registry_after(changes).snapshot();
        let vhost = definitions.vhost(b"/").unwrap();
        let mut set = RouteSet::new();
        for _ in 0..2 {
            definitions.route(vhost, vhost.exchange(b"amq.topic").unwrap(), &[b"k"], NO_PROPERTIES, &mut set);
            assert_eq!(set.queues().len(), names.len());
        }
        set.clear();
        assert!(set.is_empty());
    }
}
