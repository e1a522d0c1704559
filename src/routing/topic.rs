//! The topic exchange: routing keys are words with dots between them, bindings may say `*` for one word and `#` for any
//! number of words, also none.
//!
//! Owns a trie of words, compiled when bindings come and go: one node for each beginning that several bound keys share, with edges
//! for `*` and `#` of their own. Where a literal word leads to one binding only there is no node but the binding itself, whose
//! further words are compared when a message comes by: among a million bindings most end so, which halves the memory and
//! the time of a change. As in RabbitMQ, a key has one word more than it has dots, words may be empty, and the empty key has no word at all.
//!
//! Matching walks all patterns at once, word by word, as a set of nodes that the words so far lead to. A node with `#` on its
//! edge stays in the set once it is there. No node is in the set twice, so that a key costs at most its words times the nodes
//! that it can reach, however many `#` a peer puts into a row. (RabbitMQ refuses bindings with more than two `#`; there is no need to.)

use super::binding::{Binding, BindingSet};
use super::hash_trie::hash_octets;
use super::topic_key::{Rest, Word, all_of, is_match, octet_of, split_word};
use super::trie::{Entry, Lineage, Trie};
use smallvec::SmallVec;
use std::hash::Hash;
use std::sync::Arc;

/// The bindings of a topic exchange.
pub struct TopicMatcher<D> {
    root: Arc<Node<D>>,
    len: usize,
    /// Of the tries in all nodes.
    lineage: Lineage,
}

struct Node<D> {
    /// The word on the edge that leads here.
    word: Word,
    /// Where words lead that are neither `*` nor `#`.
    literals: Trie<Edge<D>>,
    /// Where `*` leads.
    one_word: Option<Arc<Node<D>>>,
    /// Where `#` leads.
    any_words: Option<Arc<Node<D>>>,
    /// The bindings whose key ends here.
    bindings: BindingSet<D>,
}

/// Where a literal word leads.
enum Edge<D> {
    /// To several bindings, or to what is left of them.
    Node(Arc<Node<D>>),
    /// To a single binding; `start` is where the word stands in its key.
    Tail { binding: Arc<Binding<D>>, start: u8 },
}

impl<D> Edge<D> {
    fn is_for(&self, word: &[u8]) -> bool {
        match self {
            Self::Node(node) => node.word.octets() == word,
            Self::Tail { binding, start } => {
                let rest = &binding.routing_key[usize::from(*start)..];
                rest.starts_with(word) && rest.get(word.len()).is_none_or(|octet| *octet == b'.')
            }
        }
    }
}

impl<D> Clone for Edge<D> {
    fn clone(&self) -> Self {
        match self {
            Self::Node(node) => Self::Node(Arc::clone(node)),
            Self::Tail { binding, start } => Self::Tail { binding: Arc::clone(binding), start: *start },
        }
    }
}

impl<D> Node<D> {
    fn new(word: &[u8]) -> Self {
        Self {
            word: Word::new(word),
            literals: Trie::default(),
            one_word: None,
            any_words: None,
            bindings: BindingSet::Empty,
        }
    }

    fn has_edges(&self) -> bool {
        !self.literals.is_empty() || self.one_word.is_some() || self.any_words.is_some()
    }

    fn is_empty(&self) -> bool {
        self.bindings.is_empty() && !self.has_edges()
    }

    #[inline]
    fn literal(&self, now: u64, word: &[u8], hash: u64) -> Option<&Edge<D>> {
        self.literals.get(now, hash, |edge| edge.is_for(word))
    }
}

impl<D> Clone for Node<D> {
    fn clone(&self) -> Self {
        Self {
            word: self.word.clone(),
            literals: self.literals.clone(),
            one_word: self.one_word.clone(),
            any_words: self.any_words.clone(),
            bindings: self.bindings.clone(),
        }
    }
}

impl<D> Default for TopicMatcher<D> {
    fn default() -> Self {
        Self { root: Arc::new(Node::new(b"")), len: 0, lineage: Lineage::default() }
    }
}

impl<D> Clone for TopicMatcher<D> {
    fn clone(&self) -> Self {
        Self { root: Arc::clone(&self.root), len: self.len, lineage: self.lineage.clone() }
    }
}

impl<D> TopicMatcher<D> {
    /// Hands all bindings whose pattern matches this routing key to `found`; some perhaps more than once.
    #[inline]
    pub fn for_each_match<'t>(&'t self, routing_key: &[u8], mut found: impl FnMut(&'t Arc<Binding<D>>)) {
        let mut walk = Walk::new(self.lineage.version());
        walk.reach(&self.root, &mut found);
        let mut rest = all_of(routing_key);
        while let Some(words) = rest {
            let (word, further) = split_word(words);
            if !walk.step(word, further, &mut found) {
                return;
            }
            rest = further;
        }
        for node in walk.reached {
            node.bindings.for_each(&mut found);
        }
    }

    /// Hands all bindings to `found`.
    pub fn for_each_binding<'t>(&'t self, found: &mut impl FnMut(&'t Arc<Binding<D>>)) {
        let mut nodes = vec![&*self.root];
        while let Some(node) = nodes.pop() {
            node.bindings.for_each(found);
            nodes.extend(node.one_word.iter().chain(&node.any_words).map(|node| &**node));
            for entry in node.literals.iter(self.lineage.version()) {
                match &entry.value {
                    Edge::Node(node) => nodes.push(node),
                    Edge::Tail { binding, .. } => found(binding),
                }
            }
        }
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

impl<D: Eq + Hash> TopicMatcher<D> {
    /// The binding that says the same as `binding`.
    pub fn get(&self, binding: &Binding<D>) -> Option<&Arc<Binding<D>>> {
        let mut node = &self.root;
        let mut rest = all_of(&binding.routing_key);
        while let Some(words) = rest {
            let (word, further) = split_word(words);
            node = match word {
                b"*" => node.one_word.as_ref()?,
                b"#" => node.any_words.as_ref()?,
                _ => match node.literal(self.lineage.version(), word, hash_octets(word))? {
                    Edge::Node(below) => below,
                    Edge::Tail { binding: tail, .. } => return tail.is_same(binding).then_some(tail),
                },
            };
            rest = further;
        }
        node.bindings.get(binding)
    }

    /// Adds a binding. Returns false, changing nothing, where the same is there.
    pub fn insert(&mut self, binding: Arc<Binding<D>>) -> bool {
        if self.get(&binding).is_some() {
            return false;
        }
        if !self.lineage.advance() {
            self.leave_lineage();
        }
        self.len += 1;
        let now = self.lineage.version();
        if let Err(binding) = self.append(binding) {
            Arc::make_mut(&mut self.root).place(now, binding, 0);
        }
        true
    }

    /// Takes out the one that says the same as `binding`.
    pub fn remove(&mut self, binding: &Binding<D>) -> Option<Arc<Binding<D>>> {
        self.get(binding)?;
        self.len -= 1;
        Arc::make_mut(&mut self.root).remove(self.lineage.version(), all_of(&binding.routing_key), binding)
    }

    /// Adds a binding without copying anything, where a node that is there has room for a new literal edge. Gives it back where
    /// there is no such node.
    fn append(&self, binding: Arc<Binding<D>>) -> Result<(), Arc<Binding<D>>> {
        let now = self.lineage.version();
        let mut node = &self.root;
        let mut start = 0;
        while start < binding.routing_key.len() {
            let (word, _) = split_word(&binding.routing_key[start..]);
            let below = match word {
                b"*" => node.one_word.as_ref(),
                b"#" => node.any_words.as_ref(),
                _ => {
                    let hash = hash_octets(word);
                    match node.literal(now, word, hash) {
                        Some(Edge::Node(below)) => Some(below),
                        Some(Edge::Tail { .. }) => None,
                        None => {
                            let value = Edge::Tail { start: octet_of(start), binding };
                            let refused = node.literals.append(Entry { hash, since: now, value });
                            return refused.map_err(|entry| match entry.value {
                                Edge::Tail { binding, .. } => binding,
                                Edge::Node(_) => unreachable!("it is the edge that was just made"),
                            });
                        }
                    }
                }
            };
            let Some(below) = below else { return Err(binding) };
            node = below;
            start += word.len() + 1;
        }
        Err(binding)
    }

    /// Builds all of it anew, since another clone was added to.
    #[cold]
    fn leave_lineage(&mut self) {
        let mut own = Self::default();
        self.for_each_binding(&mut |binding| {
            own.insert(Arc::clone(binding));
        });
        let is_newest = own.lineage.advance();
        assert!(is_newest, "nobody else holds a new lineage");
        *self = own;
    }
}

impl<D: Eq + Hash> Node<D> {
    /// Adds a binding that is not there, with version `now`. `start` is where the words of its key begin that lead on from here.
    fn place(&mut self, now: u64, binding: Arc<Binding<D>>, start: usize) {
        let key = &binding.routing_key;
        // One behind the last word's end there is no further one; the empty key has none to begin with.
        if start > key.len() || key.is_empty() {
            self.bindings.insert(binding);
            return;
        }
        let (word, _) = split_word(&key[start..]);
        let next = start + word.len() + 1;
        let wildcard = match word {
            b"*" => &mut self.one_word,
            b"#" => &mut self.any_words,
            _ => {
                let hash = hash_octets(word);
                if self.literal(now, word, hash).is_none() {
                    let value = Edge::Tail { start: octet_of(start), binding };
                    self.literals.insert(Entry { hash, since: now, value });
                    return;
                }
                let copy = Arc::clone(&binding);
                let word = split_word(&copy.routing_key[start..]).0;
                let placed = self.literals.update(
                    now,
                    hash,
                    |edge| edge.is_for(word),
                    |edge| edge.node_mut(now, word).place(now, binding, next),
                );
                return placed.expect("it has just been found");
            }
        };
        let below = wildcard.get_or_insert_with(|| Arc::new(Self::new(word)));
        Arc::make_mut(below).place(now, binding, next);
    }

    /// Takes a binding that is known to be there out from below, and the nodes that it leaves empty.
    fn remove(&mut self, now: u64, rest: Rest<'_>, binding: &Binding<D>) -> Option<Arc<Binding<D>>> {
        let Some(words) = rest else { return self.bindings.remove(binding) };
        let (word, further) = split_word(words);
        let wildcard = match word {
            b"*" => &mut self.one_word,
            b"#" => &mut self.any_words,
            _ => {
                let hash = hash_octets(word);
                if let Edge::Tail { .. } = self.literal(now, word, hash)? {
                    return match self.literals.remove(now, hash, |edge| edge.is_for(word))? {
                        Edge::Tail { binding, .. } => Some(binding),
                        Edge::Node(_) => None,
                    };
                }
                let is_it = |edge: &Edge<D>| edge.is_for(word);
                let (removed, is_empty) = self.literals.update(now, hash, is_it, |edge| {
                    let below = edge.node_mut(now, word);
                    (below.remove(now, further, binding), below.is_empty())
                })?;
                if is_empty {
                    self.literals.remove(now, hash, is_it);
                }
                return removed;
            }
        };
        let below = Arc::make_mut(wildcard.as_mut()?);
        let removed = below.remove(now, further, binding);
        if below.is_empty() {
            *wildcard = None;
        }
        removed
    }
}

impl<D: Eq + Hash> Edge<D> {
    /// The node behind this edge, to be changed. A binding that stood alone gets one.
    fn node_mut(&mut self, now: u64, word: &[u8]) -> &mut Node<D> {
        if let Self::Tail { binding, start } = self {
            let next = usize::from(*start) + word.len() + 1;
            let mut node = Node::new(word);
            node.place(now, Arc::clone(binding), next);
            *self = Self::Node(Arc::new(node));
        }
        match self {
            Self::Node(node) => Arc::make_mut(node),
            Self::Tail { .. } => unreachable!("it has just become a node"),
        }
    }
}

/// Where the words that were looked at so far lead to.
struct Walk<'t, D> {
    /// The version that is walked.
    now: u64,
    /// Nodes that exactly these words reach.
    reached: SmallVec<[&'t Node<D>; 16]>,
    /// The same after the next word, while it is being made.
    next: SmallVec<[&'t Node<D>; 16]>,
    /// Nodes behind a `#` that have edges of their own: once reached, every further word keeps them reached.
    lasting: SmallVec<[&'t Node<D>; 8]>,
}

impl<'t, D> Walk<'t, D> {
    #[inline]
    fn new(now: u64) -> Self {
        Self { now, reached: SmallVec::new(), next: SmallVec::new(), lasting: SmallVec::new() }
    }

    /// Takes one word, behind which there are `further` ones. Returns whether these can lead anywhere still.
    #[inline]
    fn step(&mut self, word: &[u8], further: Rest<'_>, found: &mut impl FnMut(&'t Arc<Binding<D>>)) -> bool {
        let reached = std::mem::take(&mut self.reached);
        let hash = hash_octets(word);
        let lasting_count = self.lasting.len();
        for &node in &reached {
            self.follow(node, (word, hash), further, found);
        }
        for index in 0..lasting_count {
            self.follow(self.lasting[index], (word, hash), further, found);
        }
        self.reached = std::mem::replace(&mut self.next, reached);
        self.next.clear();
        !(self.reached.is_empty() && self.lasting.is_empty())
    }

    #[inline]
    fn follow(
        &mut self,
        node: &'t Node<D>,
        (word, hash): (&[u8], u64),
        further: Rest<'_>,
        found: &mut impl FnMut(&'t Arc<Binding<D>>),
    ) {
        match node.literal(self.now, word, hash) {
            Some(Edge::Node(below)) => {
                self.next.push(below);
                self.reach_any_words(below, found);
            }
            Some(Edge::Tail { binding, start })
                if is_match(split_word(&binding.routing_key[usize::from(*start)..]).1, further) =>
            {
                found(binding);
            }
            _ => {}
        }
        if let Some(below) = &node.one_word {
            self.next.push(below);
            self.reach_any_words(below, found);
        }
    }

    /// Starts at `root`.
    #[inline]
    fn reach(&mut self, root: &'t Node<D>, found: &mut impl FnMut(&'t Arc<Binding<D>>)) {
        self.reached.push(root);
        self.reach_any_words(root, found);
    }

    /// Follows the `#` of a node that was just reached, and a `#` behind that one: they match no words, too.
    #[inline]
    fn reach_any_words(&mut self, node: &'t Node<D>, found: &mut impl FnMut(&'t Arc<Binding<D>>)) {
        let mut from = node;
        while let Some(below) = &from.any_words {
            if below.has_edges() {
                if self.lasting.iter().any(|it| std::ptr::eq(*it, &raw const **below)) {
                    return;
                }
                self.lasting.push(below);
            }
            below.bindings.for_each(found);
            from = below;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::field_table::FieldTable;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn binding(key: &str, destination: usize) -> Arc<Binding<usize>> {
        Arc::new(Binding::new(destination, key.as_bytes(), FieldTable::default(), 0))
    }

    fn matches(matcher: &TopicMatcher<usize>, key: &str) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        matcher.for_each_match(key.as_bytes(), |binding| {
            found.insert(binding.destination);
        });
        found
    }

    /// What a pattern means, as plainly as it can be said.
    fn is_naive_match(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&b"#", rest)), _) => {
                is_naive_match(rest, key) || key.split_first().is_some_and(|(_, key)| is_naive_match(pattern, key))
            }
            (Some((&b"*", rest)), Some((_, key))) => is_naive_match(rest, key),
            (Some((literal, rest)), Some((word, key))) => literal == word && is_naive_match(rest, key),
            _ => false,
        }
    }

    fn all_words(key: &str) -> Vec<&[u8]> {
        key.split('.').map(str::as_bytes).take(if key.is_empty() { 0 } else { 255 }).collect()
    }

    /// Goal: the cases that implementations get wrong.
    /// Method: single patterns, keys that they match and keys that they do not.
    #[test]
    fn patterns_match_whole_keys_only() {
        for (pattern, matching, others) in [
            ("#", &["", "a", "a.b", ".", ".."][..], &[][..]),
            ("*", &["a", "b"], &["", "a.b", "."]),
            ("", &[""], &["a", "."]),
            ("a", &["a"], &["", "a.", ".a", "ab", "a.a"]),
            ("a.#", &["a", "a.", "a.b.c"], &["", "ab", "b.a"]),
            ("#.a", &["a", ".a", "b.c.a"], &["", "a.b", "ba"]),
            ("*.*", &[".", "a.b", "a."], &["a", "a.b.c", ""]),
            ("a.*.#.b", &["a.x.b", "a..y.z.b"], &["a.b", "a.x"]),
            ("#.#", &["", "a", "a.b"], &[]),
            ("#.*", &["a", "a.b", "."], &[""]),
            (".", &["."], &["", "a", ".."]),
            ("#.a.#.a", &["a.a", "x.a.y.a", "a.a.a"], &["a", "a.b"]),
        ] {
            let mut matcher = TopicMatcher::default();
            matcher.insert(binding(pattern, 1));
            for (keys, expected) in [(matching, true), (others, false)] {
                for key in keys {
                    assert_eq!(!matches(&matcher, key).is_empty(), expected, "{pattern} and {key}");
                    assert_eq!(
                        is_naive_match(&all_words(pattern), &all_words(key)),
                        expected,
                        "naive: {pattern} and {key}"
                    );
                }
            }
        }
    }

    /// Goal: a peer cannot make a match costly by many `#` in a row or in turn with words that repeat.
    /// Method: the worst such keys that fit into 255 octets; a matcher that tries one way after the other would need more
    /// steps than there are atoms.
    #[test]
    fn many_wildcards_are_matched_in_time() {
        let mut matcher = TopicMatcher::default();
        for (destination, pattern) in
            ["#.".repeat(127) + "b", "#.a.".repeat(63) + "b", "#.a.*.".repeat(42) + "#"].iter().enumerate()
        {
            assert!(pattern.len() <= 255);
            matcher.insert(binding(pattern, destination));
        }
        let key = "a.".repeat(127) + "c";
        assert_eq!(matches(&matcher, &key), [2].into());
    }

    /// Goal: what is the same is there once; what is not there can be taken out; nothing is left behind.
    /// Method: add, add again, take out, take out again.
    #[test]
    fn a_binding_is_there_once() {
        let mut matcher = TopicMatcher::default();
        assert!(matcher.insert(binding("a.*.#", 1)));
        assert!(!matcher.insert(binding("a.*.#", 1)));
        assert!(matcher.insert(binding("a.*.#", 2)));
        assert!(matcher.remove(&binding("a.*", 1)).is_none());
        assert!(matcher.remove(&binding("a.*.#", 1)).is_some());
        assert!(matcher.remove(&binding("a.*.#", 1)).is_none());
        assert_eq!((matcher.len(), matches(&matcher, "a.b")), (1, [2].into()));
        assert!(matcher.remove(&binding("a.*.#", 2)).is_some());
        assert!(matcher.is_empty() && matcher.root.is_empty());
    }

    fn key(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(words), 0..6).prop_map(|words| words.join("."))
    }

    proptest! {
        /// Goal: the trie finds what the plain reading of the patterns finds, and a clone is not touched by later changes.
        /// Method: random patterns and keys over few words; some bindings are taken out again after a clone was made.
        #[test]
        fn finds_what_the_patterns_say(
            patterns in prop::collection::vec((key(&["a", "b", "", "*", "#", "#"]), any::<bool>()), 0..24),
            keys in prop::collection::vec(key(&["a", "b", "", "c"]), 1..12),
        ) {
            let mut matcher = TopicMatcher::default();
            for (destination, (pattern, _)) in patterns.iter().enumerate() {
                prop_assert!(matcher.insert(binding(pattern, destination)));
            }
            let before = matcher.clone();
            for (destination, (pattern, goes)) in patterns.iter().enumerate() {
                if *goes {
                    prop_assert!(matcher.remove(&binding(pattern, destination)).is_some());
                }
            }
            // Both clones are added to from here on; only one of them is the newest.
            let mut other = before.clone();
            prop_assert!(other.insert(binding("c.#", patterns.len())));
            prop_assert!(matcher.insert(binding("#.c", patterns.len())));
            for key in &keys {
                let expected = |with_gone: bool| -> BTreeSet<usize> {
                    let is_expected = |(pattern, goes): &(String, bool)| {
                        (with_gone || !goes) && is_naive_match(&all_words(pattern), &all_words(key))
                    };
                    (0..patterns.len()).filter(|&index| is_expected(&patterns[index])).collect()
                };
                prop_assert_eq!(matches(&before, key), expected(true));
                let with = |pattern: &str, mut found: BTreeSet<usize>| {
                    found.extend(is_naive_match(&all_words(pattern), &all_words(key)).then_some(patterns.len()));
                    found
                };
                prop_assert_eq!(matches(&matcher, key), with("#.c", expected(false)));
                prop_assert_eq!(matches(&other, key), with("c.#", expected(true)));
            }
            let mut count = 0;
            matcher.for_each_binding(&mut |_| count += 1);
            prop_assert_eq!(count, matcher.len());
        }
    }
}
