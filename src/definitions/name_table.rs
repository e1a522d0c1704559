//! A persistent table of things that are found by their name. A clone is O(1), a change costs the depth.

use crate::routing::{HashTrie, hash_octets};
use std::sync::Arc;

/// What carries its own name.
pub trait Named {
    /// The name; does not change while the thing is in a table.
    fn name(&self) -> &str;
}

/// Things by name.
pub struct NameTable<T> {
    things: HashTrie<Arc<T>>,
}

impl<T> Default for NameTable<T> {
    fn default() -> Self {
        Self { things: HashTrie::default() }
    }
}

impl<T> Clone for NameTable<T> {
    fn clone(&self) -> Self {
        Self { things: self.things.clone() }
    }
}

impl<T: Named> NameTable<T> {
    /// The thing of this name. A name that is not UTF-8 belongs to nothing.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Arc<T>> {
        self.things.get(hash_octets(name), |it| it.name().as_bytes() == name)
    }

    /// Lets `change` change the thing of this name. `None`, changing nothing, where it is not there.
    pub fn update<R>(&mut self, name: &[u8], change: impl FnOnce(&mut Arc<T>) -> R) -> Option<R> {
        self.things.update(hash_octets(name), |it| it.name().as_bytes() == name, change)
    }

    /// All things, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.things.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.things.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }

    /// Adds a thing, or puts it in the place of the one with its name.
    pub fn insert(&mut self, thing: Arc<T>) {
        let hash = hash_octets(thing.name().as_bytes());
        let same = Arc::clone(&thing);
        self.things.insert(hash, thing, |it| it.name() == same.name());
    }

    /// Takes out the thing of this name.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<T>> {
        self.things.remove(hash_octets(name), |it| it.name().as_bytes() == name)
    }
}
