//! The topic exchange: routing keys are words with dots between them, bindings may say `*` for one word and `#` for any
//! number of words, also none.
//!
//! Owns a trie of words, compiled when bindings come and go: one node for each beginning of a bound key, with edges for
//! `*` and `#` of their own, so that a match never looks at a pattern. As in RabbitMQ, a key has one word more than it has
//! dots, words may be empty, and the empty key has no word at all.
//!
//! Matching walks all patterns at once, word by word, as a set of nodes that the words so far lead to. A node with `#` on its
//! edge stays in the set once it is there. No node is in the set twice, so that a key costs at most its words times the nodes
//! that it can reach, however many `#` a peer puts into a row. (RabbitMQ refuses bindings with more than two `#`; there is no need to.)

use super::binding::{Binding, BindingSet};
use super::hash_trie::{HashTrie, hash_octets};
use smallvec::SmallVec;
use std::hash::Hash;
use std::sync::Arc;

/// The bindings of a topic exchange.
pub struct TopicMatcher<D> {
    root: Arc<Node<D>>,
    len: usize,
}

struct Node<D> {
    /// The word on the edge that leads here.
    word: Word,
    /// Where words lead that are neither `*` nor `#`.
    literals: HashTrie<Arc<Node<D>>>,
    /// Where `*` leads.
    one_word: Option<Arc<Node<D>>>,
    /// Where `#` leads.
    any_words: Option<Arc<Node<D>>>,
    /// The bindings whose key ends here.
    bindings: BindingSet<D>,
}

impl<D> Node<D> {
    fn new(word: &[u8]) -> Self {
        Self {
            word: Word::new(word),
            literals: HashTrie::default(),
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

    fn edge(&self, word: &[u8]) -> Option<&Arc<Node<D>>> {
        match word {
            b"*" => self.one_word.as_ref(),
            b"#" => self.any_words.as_ref(),
            _ => self.literals.get(hash_octets(word), |node| node.word.octets() == word),
        }
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
        Self { root: Arc::new(Node::new(b"")), len: 0 }
    }
}

impl<D> Clone for TopicMatcher<D> {
    fn clone(&self) -> Self {
        Self { root: Arc::clone(&self.root), len: self.len }
    }
}

impl<D> TopicMatcher<D> {
    /// Hands all bindings whose pattern matches this routing key to `found`; some perhaps more than once.
    #[inline]
    pub fn for_each_match<'t>(&'t self, routing_key: &[u8], mut found: impl FnMut(&'t Arc<Binding<D>>)) {
        let mut walk = Walk::<D>::default();
        walk.reach(&self.root, &mut found);
        for word in words(routing_key) {
            if !walk.step(word, &mut found) {
                return;
            }
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
            nodes.extend(node.literals.iter().chain(&node.one_word).chain(&node.any_words).map(|node| &**node));
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
        for word in words(&binding.routing_key) {
            node = node.edge(word)?;
        }
        node.bindings.get(binding)
    }

    /// Adds a binding. Returns false, changing nothing, where the same is there.
    pub fn insert(&mut self, binding: Arc<Binding<D>>) -> bool {
        if self.get(&binding).is_some() {
            return false;
        }
        let mut node = &mut self.root;
        for word in words(&binding.routing_key) {
            let Node { literals, one_word, any_words, .. } = Arc::make_mut(node);
            node = match word {
                b"*" => one_word.get_or_insert_with(|| Arc::new(Node::new(word))),
                b"#" => any_words.get_or_insert_with(|| Arc::new(Node::new(word))),
                _ => literals.get_mut_or_insert_with(
                    hash_octets(word),
                    |node| node.word.octets() == word,
                    || Arc::new(Node::new(word)),
                ),
            };
        }
        self.len += 1;
        let key_end = Arc::make_mut(node);
        key_end.bindings.insert(binding)
    }

    /// Takes out the one that says the same as `binding`.
    pub fn remove(&mut self, binding: &Binding<D>) -> Option<Arc<Binding<D>>> {
        self.get(binding)?;
        let words: SmallVec<[&[u8]; 16]> = words(&binding.routing_key).collect();
        self.len -= 1;
        remove_below(&mut self.root, &words, binding)
    }
}

/// Takes a binding that is known to be there out of the node that `words` lead to, and the nodes that it leaves empty.
fn remove_below<D: Eq + Hash>(
    node: &mut Arc<Node<D>>,
    words: &[&[u8]],
    binding: &Binding<D>,
) -> Option<Arc<Binding<D>>> {
    let node = Arc::make_mut(node);
    let Some((&word, rest)) = words.split_first() else { return node.bindings.remove(binding) };
    let edge = match word {
        b"*" => &mut node.one_word,
        b"#" => &mut node.any_words,
        _ => {
            let hash = hash_octets(word);
            let below = node.literals.get_mut(hash, |below| below.word.octets() == word)?;
            let removed = remove_below(below, rest, binding);
            if below.is_empty() {
                node.literals.remove(hash, |below| below.word.octets() == word);
            }
            return removed;
        }
    };
    let below = edge.as_mut()?;
    let removed = remove_below(below, rest, binding);
    if below.is_empty() {
        *edge = None;
    }
    removed
}

/// The words of a key: none in the empty one, else one more than it has dots.
#[inline]
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|octet| *octet == b'.').take(if key.is_empty() { 0 } else { usize::MAX })
}

/// Where the words that were looked at so far lead to.
struct Walk<'t, D> {
    /// Nodes that exactly these words reach.
    reached: SmallVec<[&'t Node<D>; 16]>,
    /// The same after the next word, while it is being made.
    next: SmallVec<[&'t Node<D>; 16]>,
    /// Nodes behind a `#` that have edges of their own: once reached, every further word keeps them reached.
    lasting: SmallVec<[&'t Node<D>; 8]>,
}

impl<D> Default for Walk<'_, D> {
    fn default() -> Self {
        Self { reached: SmallVec::new(), next: SmallVec::new(), lasting: SmallVec::new() }
    }
}

impl<'t, D> Walk<'t, D> {
    /// Takes one word. Returns whether it can lead anywhere still.
    #[inline]
    fn step(&mut self, word: &[u8], found: &mut impl FnMut(&'t Arc<Binding<D>>)) -> bool {
        let reached = std::mem::take(&mut self.reached);
        let hash = hash_octets(word);
        let lasting_count = self.lasting.len();
        for &node in &reached {
            self.follow(node, word, hash, found);
        }
        for index in 0..lasting_count {
            self.follow(self.lasting[index], word, hash, found);
        }
        self.reached = std::mem::replace(&mut self.next, reached);
        self.next.clear();
        !(self.reached.is_empty() && self.lasting.is_empty())
    }

    #[inline]
    fn follow(&mut self, node: &'t Node<D>, word: &[u8], hash: u64, found: &mut impl FnMut(&'t Arc<Binding<D>>)) {
        if let Some(below) = node.literals.get(hash, |below| below.word.octets() == word) {
            self.next.push(below);
            self.reach_any_words(below, found);
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

/// A word, without an allocation where it is short.
#[derive(Clone)]
enum Word {
    Short { len: u8, octets: [u8; Self::SHORT_OCTETS_MAX] },
    Long(Box<[u8]>),
}

impl Word {
    const SHORT_OCTETS_MAX: usize = 22;

    fn new(word: &[u8]) -> Self {
        let mut octets = [0; Self::SHORT_OCTETS_MAX];
        match (octets.get_mut(..word.len()), u8::try_from(word.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(word);
                Self::Short { len, octets }
            }
            _ => Self::Long(word.into()),
        }
    }

    #[inline]
    fn octets(&self) -> &[u8] {
        match self {
            Self::Short { len, octets } => &octets[..usize::from(*len)],
            Self::Long(octets) => octets,
        }
    }
}

const _: () = assert!(size_of::<Word>() == 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::field_table::FieldTable;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn binding(key: &str, destination: usize) -> Arc<Binding<usize>> {
        Arc::new(Binding::new(destination, key.as_bytes().into(), FieldTable::default(), 0))
    }

    fn matches(matcher: &TopicMatcher<usize>, key: &str) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        matcher.for_each_match(key.as_bytes(), |binding| {
            found.insert(binding.destination);
        });
        found
    }

    /// What a pattern means, as plainly as it can be said.
    fn is_match(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&b"#", rest)), _) => {
                is_match(rest, key) || key.split_first().is_some_and(|(_, key)| is_match(pattern, key))
            }
            (Some((&b"*", rest)), Some((_, key))) => is_match(rest, key),
            (Some((literal, rest)), Some((word, key))) => literal == word && is_match(rest, key),
            _ => false,
        }
    }

    fn all_words(key: &str) -> Vec<&[u8]> {
        words(key.as_bytes()).collect()
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
                    assert_eq!(is_match(&all_words(pattern), &all_words(key)), expected, "naive: {pattern} and {key}");
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
            for key in &keys {
                let expected = |with_gone: bool| -> BTreeSet<usize> {
                    let is_expected = |(pattern, goes): &(String, bool)| {
                        (with_gone || !goes) && is_match(&all_words(pattern), &all_words(key))
                    };
                    (0..patterns.len()).filter(|&index| is_expected(&patterns[index])).collect()
                };
                prop_assert_eq!(matches(&before, key), expected(true));
                prop_assert_eq!(matches(&matcher, key), expected(false));
            }
            let mut count = 0;
            matcher.for_each_binding(&mut |_| count += 1);
            prop_assert_eq!(count, matcher.len());
        }
    }
}
