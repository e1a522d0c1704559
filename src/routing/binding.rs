//! One binding, and the set of those that share a place in a matcher.

use super::hash_trie::{HashTrie, hash_value};
use crate::protocol::field_table::FieldTable;
use smallvec::SmallVec;
use std::hash::Hash;
use std::sync::Arc;

/// A key that a binding was made with. Most lie in the binding itself: a match among very many looks at one place less that
/// is not in the cache.
pub type RoutingKey = SmallVec<[u8; 36]>;

/// What an exchange must know to send messages on: where to, and for which routing keys or headers.
#[derive(Debug)]
pub struct Binding<D> {
    /// Where a message goes that matches.
    pub destination: D,
    /// The routing key that it was bound with; what it means is up to the exchange's type.
    pub routing_key: RoutingKey,
    /// The number that the caller gave it: orders bindings by their age.
    pub sequence: u64,
    /// Sorted by name, so that the order in which a client wrote them does not tell bindings apart. `None` for none.
    arguments: Option<Box<FieldTable>>,
}

static NO_ARGUMENTS: FieldTable = FieldTable(Vec::new());

impl<D> Binding<D> {
    /// A binding; `arguments` are sorted here.
    pub fn new(destination: D, routing_key: &[u8], mut arguments: FieldTable, sequence: u64) -> Self {
        arguments.0.sort_by(|a, b| a.0.cmp(&b.0));
        let arguments = (!arguments.0.is_empty()).then(|| Box::new(arguments));
        Self { destination, routing_key: RoutingKey::from_slice(routing_key), sequence, arguments }
    }

    /// The arguments, sorted by name.
    pub fn arguments(&self) -> &FieldTable {
        self.arguments.as_deref().unwrap_or(&NO_ARGUMENTS)
    }
}

impl<D: Eq> Binding<D> {
    /// Whether both say the same, whenever they were made.
    pub fn is_same(&self, other: &Self) -> bool {
        self.destination == other.destination
            && self.routing_key == other.routing_key
            && self.arguments == other.arguments
    }
}

impl<D: Eq + Hash> Binding<D> {
    /// The hash under which a set keeps it. Arguments do not count: they are rare, and bindings that differ in them
    /// alone rarer.
    fn hash(&self) -> u64 {
        hash_value(&(&self.destination, &self.routing_key))
    }
}

/// A persistent set of bindings. Most have one.
#[derive(Default)]
pub enum BindingSet<D> {
    /// None.
    #[default]
    Empty,
    /// Exactly one.
    One(Arc<Binding<D>>),
    /// Two or more, or what is left of them.
    Many(Arc<HashTrie<Arc<Binding<D>>>>),
}

impl<D> Clone for BindingSet<D> {
    fn clone(&self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::One(binding) => Self::One(Arc::clone(binding)),
            Self::Many(set) => Self::Many(Arc::clone(set)),
        }
    }
}

impl<D> BindingSet<D> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Many(set) => set.len(),
        }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Any one of them, where there is one.
    #[inline]
    pub fn any(&self) -> Option<&Arc<Binding<D>>> {
        match self {
            Self::Empty => None,
            Self::One(binding) => Some(binding),
            Self::Many(set) => set.iter().next(),
        }
    }

    /// Hands all of them to `found`.
    #[inline]
    pub(super) fn for_each<'t>(&'t self, found: &mut impl FnMut(&'t Arc<Binding<D>>)) {
        match self {
            Self::Empty => {}
            Self::One(binding) => found(binding),
            Self::Many(set) => set.iter().for_each(found),
        }
    }
}

impl<D: Eq + Hash> BindingSet<D> {
    /// The one that says the same as `binding`.
    pub fn get(&self, binding: &Binding<D>) -> Option<&Arc<Binding<D>>> {
        match self {
            Self::Empty => None,
            Self::One(one) => one.is_same(binding).then_some(one),
            Self::Many(set) => set.get(binding.hash(), |it| it.is_same(binding)),
        }
    }

    /// Adds a binding. Returns false, changing nothing, where the same is there.
    pub fn insert(&mut self, binding: Arc<Binding<D>>) -> bool {
        if self.get(&binding).is_some() {
            return false;
        }
        match self {
            Self::Empty => *self = Self::One(binding),
            Self::One(one) => {
                let mut set = HashTrie::default();
                set.insert_new(one.hash(), Arc::clone(one));
                set.insert_new(binding.hash(), binding);
                *self = Self::Many(Arc::new(set));
            }
            Self::Many(set) => Arc::make_mut(set).insert_new(binding.hash(), binding),
        }
        true
    }

    /// Takes out the one that says the same as `binding`.
    pub fn remove(&mut self, binding: &Binding<D>) -> Option<Arc<Binding<D>>> {
        self.get(binding)?;
        match self {
            Self::Empty => None,
            Self::One(_) => {
                let Self::One(one) = std::mem::take(self) else { return None };
                Some(one)
            }
            Self::Many(set) => {
                let removed = Arc::make_mut(set).remove(binding.hash(), |it| it.is_same(binding));
                if set.is_empty() {
                    *self = Self::Empty;
                }
                removed
            }
        }
    }
}
