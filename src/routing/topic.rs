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
    literals: HashTrie<Edge<D>>,
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

/// What is left of a key: nothing, or a word and what is behind its dot.
type Rest<'k> = Option<&'k [u8]>;

/// All of a key. The empty one has no word.
#[inline]
fn all_of(key: &[u8]) -> Rest<'_> {
    (!key.is_empty()).then_some(key)
}

/// The first word, and what is left.
#[inline]
fn split_word(rest: &[u8]) -> (&[u8], Rest<'_>) {
    match rest.iter().position(|octet| *octet == b'.') {
        Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
        None => (rest, None),
    }
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

    #[inline]
    fn literal(&self, word: &[u8], hash: u64) -> Option<&Edge<D>> {
        self.literals.get(hash, |edge| edge.is_for(word))
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
            for edge in &node.literals {
                match edge {
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
                _ => match node.literal(word, hash_octets(word))? {
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
        self.len += 1;
        Arc::make_mut(&mut self.root).place(binding, 0);
        true
    }

    /// Takes out the one that says the same as `binding`.
    pub fn remove(&mut self, binding: &Binding<D>) -> Option<Arc<Binding<D>>> {
        self.get(binding)?;
        self.len -= 1;
        Arc::make_mut(&mut self.root).remove(all_of(&binding.routing_key), binding)
    }
}

impl<D: Eq + Hash> Node<D> {
    /// Adds a binding that is not there. `start` is where the words of its key begin that lead on from here.
    fn place(&mut self, binding: Arc<Binding<D>>, start: usize) {
        let mut node = self;
        let mut start = start;
        // One behind the last word's end there is no further one; the empty key has none to begin with.
        while start <= binding.routing_key.len() && !binding.routing_key.is_empty() {
            let (word, _) = split_word(&binding.routing_key[start..]);
            let next = start + word.len() + 1;
            node = match word {
                b"*" => Arc::make_mut(node.one_word.get_or_insert_with(|| Arc::new(Self::new(word)))),
                b"#" => Arc::make_mut(node.any_words.get_or_insert_with(|| Arc::new(Self::new(word)))),
                _ => {
                    let hash = hash_octets(word);
                    if node.literal(word, hash).is_none() {
                        let start = u8::try_from(start).expect("a routing key is at most 255 octets");
                        node.literals.insert_new(hash, Edge::Tail { binding, start });
                        return;
                    }
                    let edge = node.literals.get_mut(hash, |edge| edge.is_for(word));
                    edge.expect("it has just been found").node_mut(word, next)
                }
            };
            start = next;
        }
        node.bindings.insert(binding);
    }

    /// Takes a binding that is known to be there out from below, and the nodes that it leaves empty.
    fn remove(&mut self, rest: Rest<'_>, binding: &Binding<D>) -> Option<Arc<Binding<D>>> {
        let Some(words) = rest else { return self.bindings.remove(binding) };
        let (word, further) = split_word(words);
        let wildcard = match word {
            b"*" => &mut self.one_word,
            b"#" => &mut self.any_words,
            _ => {
                let hash = hash_octets(word);
                if let Edge::Node(below) = self.literals.get_mut(hash, |edge| edge.is_for(word))? {
                    let below = Arc::make_mut(below);
                    let removed = below.remove(further, binding);
                    if !below.is_empty() {
                        return removed;
                    }
                    self.literals.remove(hash, |edge| edge.is_for(word));
                    return removed;
                }
                return match self.literals.remove(hash, |edge| edge.is_for(word))? {
                    Edge::Tail { binding, .. } => Some(binding),
                    Edge::Node(_) => None,
                };
            }
        };
        let below = Arc::make_mut(wildcard.as_mut()?);
        let removed = below.remove(further, binding);
        if below.is_empty() {
            *wildcard = None;
        }
        removed
    }
}

impl<D: Eq + Hash> Edge<D> {
    /// The node behind this edge, to be changed. A binding that stood alone gets one; its next word stands at `next`.
    fn node_mut(&mut self, word: &[u8], next: usize) -> &mut Node<D> {
        if let Self::Tail { binding, start } = self {
            let its_next = usize::from(*start) + word.len() + 1;
            debug_assert_eq!(its_next, next, "the same words lead to both");
            let mut node = Node::new(word);
            node.place(Arc::clone(binding), its_next);
            *self = Self::Node(Arc::new(node));
        }
        match self {
            Self::Node(node) => Arc::make_mut(node),
            Self::Tail { .. } => unreachable!("it has just become a node"),
        }
    }
}

/// Whether a pattern's words match a key's. The last `#` that was passed takes one word more wherever the rest does not fit; that
/// earlier ones need not is what makes this quick.
fn is_match(pattern: Rest<'_>, key: Rest<'_>) -> bool {
    let (mut pattern, mut key) = (pattern, key);
    let mut last_any_words: Option<(Rest<'_>, Rest<'_>)> = None;
    loop {
        match (pattern.map(split_word), key.map(split_word)) {
            (None, None) | (Some((b"#", None)), _) => return true,
            (Some((b"#", behind)), _) => {
                last_any_words = Some((behind, key));
                pattern = behind;
            }
            (Some((wanted, behind)), Some((word, further))) if wanted == b"*" || wanted == word => {
                (pattern, key) = (behind, further);
            }
            _ => {
                let Some((behind, Some(words))) = last_any_words else { return false };
                (pattern, key) = (behind, split_word(words).1);
                last_any_words = Some((pattern, key));
            }
        }
    }
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
        match node.literal(word, hash) {
            Some(Edge::Node(below)) => {
                self.next.push(below);
                self.reach_any_words(below, found);
            }
            Some(Edge::Tail { binding, start }) => {
                if is_match(split_word(&binding.routing_key[usize::from(*start)..]).1, further) {
                    found(binding);
                }
            }
            None => {}
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
            for key in &keys {
                let expected = |with_gone: bool| -> BTreeSet<usize> {
                    let is_expected = |(pattern, goes): &(String, bool)| {
                        (with_gone || !goes) && is_naive_match(&all_words(pattern), &all_words(key))
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
