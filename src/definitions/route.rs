//! From an exchange and a message's routing keys to the queues that get the message.
//!
//! Source: rabbit_exchange.erl, `route`. Each exchange is visited once, so that cycles end. An exchange whose bindings
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
