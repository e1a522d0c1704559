//! An exchange and its bindings.

use crate::definitions::Name;
use crate::definitions::name_table::Named;
use crate::definitions::queue::QueueDefinition;
use crate::protocol::field_table::FieldTable;
use crate::routing::{Binding, DirectMatcher, FanoutMatcher, HeadersMatcher, TopicMatcher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// One exchange; never reused, and never the number of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

/// The type of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By routing key.
    Direct,
    /// To all.
    Fanout,
    /// By patterns of the routing key's words.
    Topic,
    /// By headers.
    Headers,
}

impl ExchangeKind {
    /// The type of this name, as it stands in `exchange.declare`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "direct" => Some(Self::Direct),
            "fanout" => Some(Self::Fanout),
            "topic" => Some(Self::Topic),
            "headers" => Some(Self::Headers),
            _ => None,
        }
    }

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// Where a binding leads.
#[derive(Clone, Debug)]
pub enum Destination {
    /// To a queue.
    Queue(Arc<QueueDefinition>),
    /// To another exchange, looked up by its name when a message comes by: its bindings may have changed since.
    Exchange(Arc<(ExchangeId, Name)>),
}

impl Destination {
    /// The number of the queue or exchange. No two have the same.
    pub fn id(&self) -> u64 {
        match self {
            Self::Queue(queue) => queue.id.0,
            Self::Exchange(exchange) => exchange.0.0,
        }
    }

    /// The name of the queue or exchange.
    pub fn name(&self) -> &Name {
        match self {
            Self::Queue(queue) => &queue.name,
            Self::Exchange(exchange) => &exchange.1,
        }
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Destination {}

impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.id());
    }
}

/// An exchange as it was declared, and its bindings.
#[derive(Clone)]
pub struct Exchange {
    /// Which one.
    pub id: ExchangeId,
    /// The virtual host that it belongs to.
    pub vhost: Name,
    /// The name; empty for the default exchange.
    pub name: Name,
    /// The type.
    pub kind: ExchangeKind,
    /// Whether it outlives the broker's process.
    pub durable: bool,
    /// Whether it goes when its last binding goes.
    pub auto_delete: bool,
    /// Whether only other exchanges may send to it.
    pub internal: bool,
    /// The arguments as they were declared.
    pub arguments: Arc<FieldTable>,
    /// The exchange that gets what no binding here wants (`alternate-exchange`).
    pub alternate: Option<Name>,
    pub(super) matcher: Matcher,
}

impl Named for Exchange {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Exchange {
    /// Whether it is the default exchange, which reaches every queue by its name.
    #[inline]
    pub fn is_default(&self) -> bool {
        self.name.is_empty()
    }

    /// How many bindings lead away from it. The default exchange's are not counted.
    pub fn binding_count(&self) -> usize {
        self.matcher.len()
    }

    /// All bindings that lead away from it, in no particular order.
    pub fn bindings(&self) -> Vec<&Arc<Binding<Destination>>> {
        let mut bindings = Vec::with_capacity(self.binding_count());
        self.matcher.for_each_binding(&mut |binding| bindings.push(binding));
        bindings
    }
}

/// The bindings, as the type of the exchange needs them.
#[derive(Clone)]
pub(super) enum Matcher {
    Direct(DirectMatcher<Destination>),
    Fanout(FanoutMatcher<Destination>),
    Topic(TopicMatcher<Destination>),
    Headers(HeadersMatcher<Destination>),
}

/// The same of each kind.
macro_rules! each {
    ($self:expr, $matcher:ident => $result:expr) => {
        match $self {
            Matcher::Direct($matcher) => $result,
            Matcher::Fanout($matcher) => $result,
            Matcher::Topic($matcher) => $result,
            Matcher::Headers($matcher) => $result,
        }
    };
}

impl Matcher {
    pub(super) fn new(kind: ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct(DirectMatcher::default()),
            ExchangeKind::Fanout => Self::Fanout(FanoutMatcher::default()),
            ExchangeKind::Topic => Self::Topic(TopicMatcher::default()),
            ExchangeKind::Headers => Self::Headers(HeadersMatcher::default()),
        }
    }

    pub(super) fn len(&self) -> usize {
        each!(self, matcher => matcher.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        each!(self, matcher => matcher.is_empty())
    }

    pub(super) fn get(&self, binding: &Binding<Destination>) -> Option<&Arc<Binding<Destination>>> {
        each!(self, matcher => matcher.get(binding))
    }

    pub(super) fn insert(&mut self, binding: Arc<Binding<Destination>>) -> bool {
        each!(self, matcher => matcher.insert(binding))
    }

    pub(super) fn remove(&mut self, binding: &Binding<Destination>) -> Option<Arc<Binding<Destination>>> {
        each!(self, matcher => matcher.remove(binding))
    }

    pub(super) fn for_each_binding<'m>(&'m self, found: &mut impl FnMut(&'m Arc<Binding<Destination>>)) {
        each!(self, matcher => matcher.for_each_binding(found));
    }
}
