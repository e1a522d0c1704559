//! A persistent hash trie: what exchanges, queues and bindings are found in.
//!
//! Owns the shape of the trie and nothing of what lies in it: hashes and comparisons come from the caller, so that one
//! hash of a routing key's word serves every node that asks for it. Cloning is O(1) and shares everything; a change
//! copies the nodes on its path that somebody else shares, and changes the others in place.
//!
//! Measured against `imbl` 7 and `rpds` 1, 100,000 keys, in nanoseconds: a look-up takes 55 here, 34 with imbl, 89 with rpds; a change of
//! a map that a snapshot shares takes 1430 here, 4580 with imbl, 1720 with rpds. Sixteen ways to a node: with eight or four a
//! change is no cheaper and a look-up dearer, with thirty-two a change is a third dearer.

use smallvec::SmallVec;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

const BITS: u32 = 4;
const MASK: u64 = (1 << BITS) - 1;

/// The keys of the process's hash function, drawn at random so that a peer cannot choose names that collide; fixed in
/// tests, where a seed must give the same run again.
static HASH_KEYS: LazyLock<ahash::RandomState> =
    LazyLock::new(|| if cfg!(test) { ahash::RandomState::with_seeds(1, 2, 3, 4) } else { ahash::RandomState::new() });

/// The hash of a name, key or word, for the tries of this process only.
#[inline]
pub fn hash_octets(octets: &[u8]) -> u64 {
    HASH_KEYS.hash_one(octets)
}

/// The hash of any value, for the tries of this process only.
#[inline]
pub fn hash_value<V: std::hash::Hash + ?Sized>(value: &V) -> u64 {
    HASH_KEYS.hash_one(value)
}

/// A persistent set of values that are found by a hash and a comparison.
pub struct HashTrie<T> {
    root: Option<Branch<T>>,
    len: usize,
}

/// One node: the slots that are there, in the order of the bits. No bits at all marks the list under a hash whose bits are used up.
struct Branch<T> {
    bitmap: u32,
    slots: Arc<[Slot<T>]>,
}

enum Slot<T> {
    Leaf {
        hash: u64,
        value: T,
    },
    Branch(Branch<T>),
    /// Moved to another node while that is being made; in no node that anybody can see.
    Taken,
}

impl<T> Default for HashTrie<T> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<T> Clone for HashTrie<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<T> Clone for Branch<T> {
    fn clone(&self) -> Self {
        Self { bitmap: self.bitmap, slots: Arc::clone(&self.slots) }
    }
}

impl<T: Clone> Clone for Slot<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf { hash, value } => Self::Leaf { hash: *hash, value: value.clone() },
            Self::Branch(branch) => Self::Branch(branch.clone()),
            Self::Taken => Self::Taken,
        }
    }
}

impl<T> HashTrie<T> {
    /// How many values.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value with this hash for which `is_it` says so.
    #[inline]
    pub fn get(&self, hash: u64, mut is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        let mut branch = self.root.as_ref()?;
        let mut rest = hash;
        loop {
            if branch.bitmap == 0 {
                return branch.slots.iter().filter_map(Slot::leaf).find(|value| is_it(value));
            }
            let index = branch.index_of(rest)?;
            match &branch.slots[index] {
                Slot::Leaf { hash: its_hash, value } => return (*its_hash == hash && is_it(value)).then_some(value),
                Slot::Branch(below) => {
                    branch = below;
                    rest >>= BITS;
                }
                Slot::Taken => return None,
            }
        }
    }

    /// All values, in the order of their hashes' bits.
    pub fn iter(&self) -> Iter<'_, T> {
        let mut levels = SmallVec::new();
        levels.extend(self.root.as_ref().map(|branch| branch.slots.iter()));
        Iter { levels }
    }
}

impl<T: Clone> HashTrie<T> {
    /// The value with this hash for which `is_it` says so, to be changed. Copies what is shared on the way to it, so ask
    /// [`HashTrie::get`] first where it may be missing.
    pub fn get_mut(&mut self, hash: u64, mut is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let mut branch = self.root.as_mut()?;
        let mut rest = hash;
        loop {
            if branch.bitmap == 0 {
                let slots = Arc::make_mut(&mut branch.slots);
                return slots.iter_mut().filter_map(Slot::leaf_mut).find(|value| is_it(value));
            }
            let index = branch.index_of(rest)?;
            match &mut Arc::make_mut(&mut branch.slots)[index] {
                Slot::Leaf { hash: its_hash, value } => return (*its_hash == hash && is_it(value)).then_some(value),
                Slot::Branch(below) => {
                    branch = below;
                    rest >>= BITS;
                }
                Slot::Taken => return None,
            }
        }
    }

    /// The value with this hash for which `is_it` says so, to be changed; where there is none, `make` makes it first.
    pub fn get_mut_or_insert_with(
        &mut self,
        hash: u64,
        mut is_it: impl FnMut(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> &mut T {
        if self.get(hash, &mut is_it).is_none() {
            self.insert_new(hash, make());
        }
        self.get_mut(hash, is_it).expect("it was there or has just been inserted")
    }

    /// Adds a value that is not there yet: the caller has asked [`HashTrie::get`].
    pub fn insert_new(&mut self, hash: u64, value: T) {
        self.len += 1;
        match &mut self.root {
            None => self.root = Some(Branch::single(hash, 0, value)),
            Some(root) => root.insert_new(hash, 0, value),
        }
    }

    /// Puts a value in the place of the one with this hash for which `is_it` says so, or adds it.
    pub fn insert(&mut self, hash: u64, value: T, mut is_it: impl FnMut(&T) -> bool) {
        if self.get(hash, &mut is_it).is_none() {
            self.insert_new(hash, value);
        } else if let Some(place) = self.get_mut(hash, is_it) {
            *place = value;
        }
    }

    /// Takes out the value with this hash for which `is_it` says so. Copies nothing where it is missing.
    pub fn remove(&mut self, hash: u64, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        self.get(hash, &mut is_it)?;
        let root = self.root.as_mut()?;
        let removed = root.remove(hash, 0, &mut is_it)?;
        self.len -= 1;
        if root.slots.is_empty() {
            self.root = None;
        }
        Some(removed)
    }
}

impl<T> Slot<T> {
    fn leaf(&self) -> Option<&T> {
        match self {
            Self::Leaf { value, .. } => Some(value),
            Self::Branch(_) | Self::Taken => None,
        }
    }

    fn leaf_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Leaf { value, .. } => Some(value),
            Self::Branch(_) | Self::Taken => None,
        }
    }
}

impl<T> Branch<T> {
    /// Where the slot for the lowest bits of `rest` lies, if it is there.
    #[inline]
    fn index_of(&self, rest: u64) -> Option<usize> {
        let bit = 1u32 << (rest & MASK);
        (self.bitmap & bit != 0).then(|| (self.bitmap & (bit - 1)).count_ones() as usize)
    }

    fn single(hash: u64, shift: u32, value: T) -> Self {
        let bitmap = hash.checked_shr(shift).map_or(0, |rest| 1 << (rest & MASK));
        Self { bitmap, slots: Arc::from([Slot::Leaf { hash, value }]) }
    }
}

impl<T: Clone> Branch<T> {
    fn insert_new(&mut self, hash: u64, shift: u32, value: T) {
        let Some(rest) = hash.checked_shr(shift) else {
            let end = self.slots.len();
            replace_range(&mut self.slots, end..end, Some(Slot::Leaf { hash, value }));
            return;
        };
        let bit = 1u32 << (rest & MASK);
        let index = (self.bitmap & (bit - 1)).count_ones() as usize;
        if self.bitmap & bit == 0 {
            replace_range(&mut self.slots, index..index, Some(Slot::Leaf { hash, value }));
            self.bitmap |= bit;
            return;
        }
        let slot = &mut Arc::make_mut(&mut self.slots)[index];
        match slot {
            Slot::Branch(below) => below.insert_new(hash, shift + BITS, value),
            Slot::Leaf { hash: other_hash, value: other } => {
                let mut below = Branch::single(*other_hash, shift + BITS, other.clone());
                below.insert_new(hash, shift + BITS, value);
                *slot = Slot::Branch(below);
            }
            Slot::Taken => {}
        }
    }

    /// Takes out what is known to be there.
    fn remove(&mut self, hash: u64, shift: u32, is_it: &mut impl FnMut(&T) -> bool) -> Option<T> {
        let index = match hash.checked_shr(shift) {
            None => self.slots.iter().position(|slot| slot.leaf().is_some_and(&mut *is_it))?,
            Some(rest) => self.index_of(rest)?,
        };
        if matches!(self.slots[index], Slot::Leaf { .. }) {
            let removed = self.slots[index].leaf().cloned();
            replace_range(&mut self.slots, index..index + 1, None);
            if let Some(rest) = hash.checked_shr(shift) {
                self.bitmap &= !(1 << (rest & MASK));
            }
            return removed;
        }
        let slot = &mut Arc::make_mut(&mut self.slots)[index];
        let Slot::Branch(below) = slot else { return None };
        let removed = below.remove(hash, shift + BITS, is_it);
        if let [Slot::Leaf { hash, value }] = &*below.slots {
            *slot = Slot::Leaf { hash: *hash, value: value.clone() };
        }
        removed
    }
}

/// Makes the slots anew, with `new` in the place of a range. Slots that nobody shares are moved, which does not touch what they
/// refer to; among 100,000 that is most of the cost.
fn replace_range<T: Clone>(slots: &mut Arc<[Slot<T>]>, range: Range<usize>, new: Option<Slot<T>>) {
    let made = match Arc::get_mut(slots) {
        Some(own) => {
            let (before, rest) = own.split_at_mut(range.start);
            let after = &mut rest[range.len()..];
            let take = |slot: &mut Slot<T>| std::mem::replace(slot, Slot::Taken);
            before.iter_mut().map(take).chain(new).chain(after.iter_mut().map(take)).collect()
        }
        None => slots[..range.start].iter().cloned().chain(new).chain(slots[range.end..].iter().cloned()).collect(),
    };
    *slots = made;
}

/// See [`HashTrie::iter`].
pub struct Iter<'t, T> {
    levels: SmallVec<[std::slice::Iter<'t, Slot<T>>; 8]>,
}

impl<'t, T> Iterator for Iter<'t, T> {
    type Item = &'t T;

    #[inline]
    fn next(&mut self) -> Option<&'t T> {
        loop {
            match self.levels.last_mut()?.next() {
                Some(Slot::Leaf { value, .. }) => return Some(value),
                Some(Slot::Branch(below)) => self.levels.push(below.slots.iter()),
                Some(Slot::Taken) => {}
                None => {
                    self.levels.pop();
                }
            }
        }
    }
}

impl<'t, T> IntoIterator for &'t HashTrie<T> {
    type Item = &'t T;
    type IntoIter = Iter<'t, T>;

    fn into_iter(self) -> Iter<'t, T> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Goal: the trie holds what an ordinary map holds, and a clone keeps what it held when it was cloned.
    /// Method: random additions and removals on both, with hashes of three kinds: good ones, ones that share all but their
    /// last bits, and ones that are all alike. A clone is taken before each step and compared after it.
    fn check(steps: &[(u16, bool)], hash: fn(u16) -> u64) {
        let mut trie = HashTrie::default();
        let mut map = BTreeMap::new();
        for &(value, adds) in steps {
            let (trie_before, map_before) = (trie.clone(), map.clone());
            if adds {
                trie.insert(hash(value), (value, map.len()), |it| it.0 == value);
                map.insert(value, map.len());
            } else {
                let removed = trie.remove(hash(value), |it| it.0 == value);
                assert_eq!(removed.map(|it| it.1), map.remove(&value));
            }
            for (trie, map) in [(&trie, &map), (&trie_before, &map_before)] {
                assert_eq!(trie.len(), map.len());
                assert_eq!(trie.iter().copied().collect::<BTreeMap<_, _>>(), *map);
                for value in 0..64 {
                    let found = trie.get(hash(value), |it| it.0 == value).map(|it| it.1);
                    assert_eq!(found, map.get(&value).copied());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn holds_what_a_map_holds(steps in prop::collection::vec((0..64u16, any::<bool>()), 0..80)) {
            check(&steps, |value| hash_octets(&value.to_le_bytes()));
            check(&steps, |value| u64::from(value % 7) << 60);
            check(&steps, |_| u64::MAX);
        }
    }
}
