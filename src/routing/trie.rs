//! The trie under [`HashTrie`](super::hash_trie::HashTrie) and under the nodes of a topic matcher: branches of thirty-two ways, and
//! buckets of entries at their ends.
//!
//! Persistent, and yet most additions copy nothing. A bucket has room for entries to come, an entry carries the version that it
//! came with, and whoever looks says which version it looks at: so an addition is written into the place that it will have in
//! all later versions, and who holds an earlier one passes over it. Copied is what is on the way to a bucket that is full (one
//! addition in four), or to an entry that changes or goes. The plain persistent trie that was here before copied four nodes of sixteen
//! slots for each addition among 100,000, and with them counted 64 references up and, later, down: two microseconds.
//!
//! Versions must be of one line: after an addition to one of two clones the other must not be added to with the same version. That
//! is what [`Lineage`] is for.
//!
//! A bucket that is full is split by one bit of the hash; until a branch's five bits are used up several of its slots share
//! a bucket (extendible hashing), which keeps buckets two thirds full.

use smallvec::SmallVec;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const BITS: u32 = 5;
const WAYS: usize = 1 << BITS;
/// How many entries a bucket holds before it is split.
const BUCKET_ENTRIES_MAX: usize = 8;

/// Which version of a trie somebody holds, and whether it is the newest.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    version: u64,
    newest: Arc<AtomicU64>,
}

impl Lineage {
    /// The version that is held.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Goes on to the next version. Returns false, changing nothing, where another clone has done so before: then what is held
    /// must be built anew, with a lineage of its own, before it can be added to.
    #[must_use]
    pub fn advance(&mut self) -> bool {
        let next = self.version + 1;
        let is_newest = self.newest.compare_exchange(self.version, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_newest {
            self.version = next;
        }
        is_newest
    }
}

/// A value in a trie.
#[derive(Clone)]
pub struct Entry<T> {
    /// Under which hash it is found.
    pub hash: u64,
    /// The first version that it is in.
    pub since: u64,
    /// The value.
    pub value: T,
}

/// The entries, in the order in which they came; behind them empty places.
type Bucket<T> = Arc<[OnceLock<Entry<T>>]>;

/// What a branch leads to.
type Slots<T> = [Node<T>; WAYS];

/// See the module.
pub struct Trie<T> {
    root: Option<Node<T>>,
}

enum Node<T> {
    Branch(Arc<Slots<T>>),
    /// `depth` is how many of the bits of the branch above tell this bucket from its neighbours: all slots whose lowest `depth` bits
    /// are the same share it. Exactly one slot does where it is [`BITS`]; at the root it means nothing.
    Bucket {
        bucket: Bucket<T>,
        depth: u32,
    },
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<T> Clone for Trie<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone() }
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Branch(slots) => Self::Branch(Arc::clone(slots)),
            Self::Bucket { bucket, depth } => Self::Bucket { bucket: Arc::clone(bucket), depth: *depth },
        }
    }
}

impl<T> Trie<T> {
    /// Whether nothing is in it, in any version.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The value with this hash for which `is_it` says so, in version `now`.
    #[inline]
    pub fn get(&self, now: u64, hash: u64, mut is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        let entries = self.bucket(hash)?.iter().map_while(OnceLock::get);
        for entry in entries {
            if entry.hash == hash && entry.since <= now && is_it(&entry.value) {
                return Some(&entry.value);
            }
        }
        None
    }

    /// All entries of version `now`.
    pub fn iter(&self, now: u64) -> Iter<'_, T> {
        let mut iter = Iter { branches: SmallVec::new(), entries: [].iter(), now };
        match &self.root {
            Some(Node::Branch(slots)) => iter.branches.push((slots, 0)),
            Some(Node::Bucket { bucket, .. }) => iter.entries = bucket.iter(),
            None => {}
        }
        iter
    }

    /// Adds an entry where there is room for it, without copying anything. Gives it back where there is none.
    #[inline]
    pub fn append(&self, entry: Entry<T>) -> Result<(), Entry<T>> {
        let place = self.bucket(entry.hash).and_then(|bucket| bucket.iter().find(|place| place.get().is_none()));
        match place {
            Some(place) => place.set(entry),
            None => Err(entry),
        }
    }

    /// How many nodes lie on the longest way down.
    #[cfg(test)]
    pub fn depth(&self) -> usize {
        fn depth_of<T>(node: &Node<T>) -> usize {
            match node {
                Node::Bucket { .. } => 1,
                Node::Branch(slots) => 1 + slots.iter().map(depth_of).max().unwrap_or(0),
            }
        }
        self.root.as_ref().map_or(0, depth_of)
    }

    #[inline]
    fn bucket(&self, hash: u64) -> Option<&[OnceLock<Entry<T>>]> {
        let mut node = self.root.as_ref()?;
        let mut rest = hash;
        loop {
            match node {
                Node::Bucket { bucket, .. } => return Some(bucket),
                Node::Branch(slots) => {
                    node = &slots[slot_of(rest)];
                    rest >>= BITS;
                }
            }
        }
    }

    /// The bucket for a hash, where nobody else holds it or anything on the way to it, and no other slot shares it.
    fn own_bucket(&mut self, hash: u64) -> Option<&mut [OnceLock<Entry<T>>]> {
        let mut node = self.root.as_mut()?;
        let mut rest = hash;
        loop {
            match node {
                Node::Bucket { bucket, .. } => return Arc::get_mut(bucket),
                Node::Branch(slots) => {
                    node = &mut Arc::get_mut(slots)?[slot_of(rest)];
                    rest >>= BITS;
                }
            }
        }
    }
}

impl<T: Clone> Trie<T> {
    /// Adds an entry that is not there yet.
    pub fn insert(&mut self, entry: Entry<T>) {
        let Err(entry) = self.append(entry) else { return };
        match &mut self.root {
            None => self.root = Some(Node::Bucket { bucket: bucket_of([entry], 1), depth: 0 }),
            Some(root) => insert_below(root, 0, entry),
        }
    }

    /// Lets `change` change the value with this hash for which `is_it` says so. `None` where it is not there.
    pub fn update<R>(
        &mut self,
        now: u64,
        hash: u64,
        mut is_it: impl FnMut(&T) -> bool,
        change: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let mut is_entry = |entry: &Entry<T>| entry.hash == hash && entry.since <= now && is_it(&entry.value);
        if let Some(bucket) = self.own_bucket(hash) {
            let entry = bucket.iter_mut().filter_map(OnceLock::get_mut).find(|entry| is_entry(entry))?;
            return Some(change(&mut entry.value));
        }
        // Taken out and put back, so that what is in the value is not shared with the old bucket, if nobody else holds that.
        let mut entry = self.remove_entry(now, hash, is_entry)?;
        let result = change(&mut entry.value);
        self.insert(entry);
        Some(result)
    }

    /// Takes out the value with this hash for which `is_it` says so.
    pub fn remove(&mut self, now: u64, hash: u64, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let is_entry = |entry: &Entry<T>| entry.hash == hash && entry.since <= now && is_it(&entry.value);
        let removed = self.remove_entry(now, hash, is_entry)?;
        if let Some(Node::Bucket { bucket, .. }) = &self.root
            && bucket.iter().all(|place| place.get().is_none())
        {
            self.root = None;
        }
        Some(removed.value)
    }

    /// Takes out an entry. What other versions have in the same bucket stays behind with them.
    fn remove_entry(&mut self, now: u64, hash: u64, mut is_entry: impl FnMut(&Entry<T>) -> bool) -> Option<Entry<T>> {
        let bucket = self.bucket(hash)?;
        let at = bucket.iter().position(|place| place.get().is_some_and(&mut is_entry))?;
        let removed = bucket[at].get()?.clone();
        let left = bucket.iter().enumerate().filter(|(index, _)| *index != at).filter_map(|(_, place)| place.get());
        let left = left.filter(|entry| entry.since <= now);
        let left = bucket_of(left.cloned(), bucket.len());
        replace_bucket(self.root.as_mut()?, 0, hash, left);
        Some(removed)
    }
}

/// Which of a branch's slots the lowest bits of `rest` mean.
#[inline]
fn slot_of(rest: u64) -> usize {
    usize::from(rest.to_le_bytes()[0]) % WAYS
}

/// A bucket with these entries and places for `places` in all, if not more.
fn bucket_of<T>(entries: impl IntoIterator<Item = Entry<T>>, places: usize) -> Bucket<T> {
    let mut bucket = Vec::with_capacity(places);
    bucket.extend(entries.into_iter().map(OnceLock::from));
    bucket.resize_with(places.max(bucket.len()), OnceLock::new);
    bucket.into()
}

/// Adds an entry below a node where its bucket is full. The node's bits begin at `shift`.
fn insert_below<T: Clone>(node: &mut Node<T>, shift: u32, entry: Entry<T>) {
    match node {
        Node::Bucket { bucket, .. } if bucket.len() < BUCKET_ENTRIES_MAX || shift + BITS > u64::BITS => {
            let places = bucket.len() * 2;
            *bucket = bucket_of(bucket.iter().filter_map(OnceLock::get).cloned().chain([entry]), places);
        }
        Node::Bucket { bucket, .. } => {
            let slots = std::array::from_fn(|_| Node::Bucket { bucket: Arc::clone(bucket), depth: 0 });
            *node = Node::Branch(Arc::new(slots));
            insert_below(node, shift, entry);
        }
        Node::Branch(slots) => {
            let slots = Arc::make_mut(slots);
            let slot = slot_of(entry.hash >> shift);
            let mut entry = entry;
            while let Node::Bucket { depth: 0..BITS, .. } = &slots[slot] {
                split_bucket(slots, slot, shift);
                let Node::Bucket { bucket, .. } = &slots[slot] else { return };
                let Some(place) = bucket.iter().find(|place| place.get().is_none()) else { continue };
                match place.set(entry) {
                    Ok(()) => return,
                    Err(refused) => entry = refused,
                }
            }
            insert_below(&mut slots[slot], shift + BITS, entry);
        }
    }
}

/// Splits the bucket of a slot by the next bit, for all slots that share it.
fn split_bucket<T: Clone>(slots: &mut Slots<T>, slot: usize, shift: u32) {
    let Node::Bucket { bucket, depth } = slots[slot].clone() else { return };
    let halves = [0, 1].map(|half| {
        let entries = bucket.iter().filter_map(OnceLock::get);
        let entries = entries.filter(|entry| (entry.hash >> (shift + depth)) & 1 == half);
        Node::Bucket { bucket: bucket_of(entries.cloned(), BUCKET_ENTRIES_MAX), depth: depth + 1 }
    });
    for (index, sharing) in sharing_slots(slots, slot, depth) {
        *sharing = halves[(index >> depth) & 1].clone();
    }
}

/// The slots that share a bucket of this depth with `slot`.
fn sharing_slots<T>(slots: &mut Slots<T>, slot: usize, depth: u32) -> impl Iterator<Item = (usize, &mut Node<T>)> {
    let step = 1 << depth;
    slots.iter_mut().enumerate().skip(slot % step).step_by(step)
}

/// Puts a bucket in the place of the one for this hash. Where it is empty and its neighbours nearly so, they become one.
fn replace_bucket<T: Clone>(node: &mut Node<T>, shift: u32, hash: u64, new: Bucket<T>) {
    match node {
        Node::Bucket { bucket, .. } => *bucket = new,
        Node::Branch(slots) => {
            let is_empty = new.iter().all(|place| place.get().is_none());
            let slots = Arc::make_mut(slots);
            let slot = slot_of(hash >> shift);
            match &slots[slot] {
                Node::Bucket { depth, .. } => {
                    let depth = *depth;
                    for (_, sharing) in sharing_slots(slots, slot, depth) {
                        *sharing = Node::Bucket { bucket: Arc::clone(&new), depth };
                    }
                }
                Node::Branch(_) => replace_bucket(&mut slots[slot], shift + BITS, hash, new),
            }
            if is_empty && let Some(bucket) = gathered(slots) {
                // A branch has a slot of the branch above for itself.
                *node = Node::Bucket { bucket, depth: BITS };
            }
        }
    }
}

/// The entries below a branch in one bucket, where they fill no more than half of it.
fn gathered<T: Clone>(slots: &Slots<T>) -> Option<Bucket<T>> {
    let mut entries: SmallVec<[&Entry<T>; BUCKET_ENTRIES_MAX]> = SmallVec::new();
    for (index, slot) in slots.iter().enumerate() {
        let Node::Bucket { bucket, depth } = slot else { return None };
        if index < 1 << depth {
            entries.extend(bucket.iter().filter_map(OnceLock::get));
        }
        if entries.len() > BUCKET_ENTRIES_MAX / 2 {
            return None;
        }
    }
    Some(bucket_of(entries.into_iter().cloned(), BUCKET_ENTRIES_MAX))
}

/// See [`Trie::iter`].
pub struct Iter<'t, T> {
    /// The branches that are being walked, and the next slot of each.
    branches: SmallVec<[(&'t Slots<T>, usize); 8]>,
    entries: std::slice::Iter<'t, OnceLock<Entry<T>>>,
    now: u64,
}

impl<'t, T> Iterator for Iter<'t, T> {
    type Item = &'t Entry<T>;

    #[inline]
    fn next(&mut self) -> Option<&'t Entry<T>> {
        loop {
            while let Some(entry) = self.entries.next().and_then(OnceLock::get) {
                if entry.since <= self.now {
                    return Some(entry);
                }
            }
            let (slots, next) = self.branches.last_mut()?;
            match slots.get(*next) {
                None => {
                    self.branches.pop();
                }
                Some(Node::Branch(below)) => {
                    *next += 1;
                    self.branches.push((below, 0));
                }
                Some(Node::Bucket { bucket, depth }) => {
                    if *next < 1 << depth {
                        self.entries = bucket.iter();
                    }
                    *next += 1;
                }
            }
        }
    }
}
