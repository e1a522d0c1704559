//! The fanout exchange: every message goes to every destination.

use super::binding::{Binding, BindingSet};
use std::hash::Hash;
use std::sync::Arc;

/// The bindings of a fanout exchange. The routing key tells bindings apart but messages nothing.
pub struct FanoutMatcher<D> {
    bindings: BindingSet<D>,
}

impl<D> Default for FanoutMatcher<D> {
    fn default() -> Self {
        Self { bindings: BindingSet::Empty }
    }
}

impl<D> Clone for FanoutMatcher<D> {
    fn clone(&self) -> Self {
        Self { bindings: self.bindings.clone() }
    }
}

impl<D> FanoutMatcher<D> {
    /// Hands all bindings to `found`.
    #[inline]
    pub fn for_each_match<'t>(&'t self, mut found: impl FnMut(&'t Arc<Binding<D>>)) {
        self.bindings.for_each(&mut found);
    }

    /// Hands all bindings to `found`.
    pub fn for_each_binding<'t>(&'t self, found: &mut impl FnMut(&'t Arc<Binding<D>>)) {
        self.bindings.for_each(found);
    }

    /// How many bindings.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }
}

impl<D: Eq + Hash> FanoutMatcher<D> {
    /// The binding that says the same as `binding`.
    pub fn get(&self, binding: &Binding<D>) -> Option<&Arc<Binding<D>>> {
        self.bindings.get(binding)
    }

    /// Adds a binding. Returns false, changing nothing, where the same is there.
    pub fn insert(&mut self, binding: Arc<Binding<D>>) -> bool {
        self.bindings.insert(binding)
    }

    /// Takes out the one that says the same as `binding`.
    pub fn remove(&mut self, binding: &Binding<D>) -> Option<Arc<Binding<D>>> {
        self.bindings.remove(binding)
    }
}
