//! The direct exchange: a message goes where its routing key was bound, octet for octet.

use super::binding::{Binding, BindingSet};
use super::hash_trie::{HashTrie, hash_octets};
use std::hash::Hash;
use std::sync::Arc;

/// The bindings of a direct exchange, by routing key.
pub struct DirectMatcher<D> {
    /// One set for each routing key that is bound; none of them is empty.
    keys: HashTrie<BindingSet<D>>,
    len: usize,
}

impl<D> Default for DirectMatcher<D> {
    fn default() -> Self {
        Self { keys: HashTrie::default(), len: 0 }
    }
}

impl<D> Clone for DirectMatcher<D> {
    fn clone(&self) -> Self {
        Self { keys: self.keys.clone(), len: self.len }
    }
}

impl<D> DirectMatcher<D> {
    /// Hands all bindings with this routing key to `found`.
    #[inline]
    pub fn for_each_match<'t>(&'t self, routing_key: &[u8], mut found: impl FnMut(&'t Arc<Binding<D>>)) {
        if let Some(set) = self.keys.get(hash_octets(routing_key), |set| is_for(set, routing_key)) {
            set.for_each(&mut found);
        }
    }

    /// Hands all bindings to `found`.
    pub fn for_each_binding<'t>(&'t self, found: &mut impl FnMut(&'t Arc<Binding<D>>)) {
        self.keys.iter().for_each(|set| set.for_each(found));
    }

    /// How many bindings.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<D: Eq + Hash> DirectMatcher<D> {
    /// The binding that says the same as `binding`.
    pub fn get(&self, binding: &Binding<D>) -> Option<&Arc<Binding<D>>> {
        let key = &binding.routing_key;
        self.keys.get(hash_octets(key), |set| is_for(set, key))?.get(binding)
    }

    /// Adds a binding. Returns false, changing nothing, where the same is there.
    pub fn insert(&mut self, binding: Arc<Binding<D>>) -> bool {
        let hash = hash_octets(&binding.routing_key);
        match self.keys.get(hash, |set| is_for(set, &binding.routing_key)) {
            Some(set) if set.get(&binding).is_some() => return false,
            Some(_) => {
                let key = Arc::clone(&binding);
                self.keys.update(hash, |set| is_for(set, &key.routing_key), |set| set.insert(binding));
            }
            None => self.keys.insert_new(hash, BindingSet::One(binding)),
        }
        self.len += 1;
        true
    }

    /// Takes out the one that says the same as `binding`.
    pub fn remove(&mut self, binding: &Binding<D>) -> Option<Arc<Binding<D>>> {
        self.get(binding)?;
        let hash = hash_octets(&binding.routing_key);
        let is_it = |set: &BindingSet<D>| is_for(set, &binding.routing_key);
        self.len -= 1;
        if self.keys.get(hash, is_it)?.len() > 1 {
            self.keys.update(hash, is_it, |set| set.remove(binding))?
        } else {
            self.keys.remove(hash, is_it)?.remove(binding)
        }
    }
}

#[inline]
fn is_for<D>(set: &BindingSet<D>, routing_key: &[u8]) -> bool {
    set.any().is_some_and(|binding| *binding.routing_key == *routing_key)
}
