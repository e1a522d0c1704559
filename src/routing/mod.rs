//! From an exchange's bindings to the destinations of a message: direct, fanout, topic and headers.
//!
//! Owns the matchers, which are persistent: a clone is O(1) and shares everything with the original, a change costs the
//! depth of what it touches. Knows no vhosts, users, exchanges or queues: a destination is whatever the caller says.
//!
//! A matcher is a set of bindings, each once: destination, routing key and arguments together say whether two are the same.
//! A destination that is bound several times may be found several times for one message; the caller counts it once.

mod binding;
mod direct;
mod fanout;
mod hash_trie;
mod headers;
mod topic;
mod topic_key;
mod trie;

pub use binding::Binding;
pub use direct::DirectMatcher;
pub use fanout::FanoutMatcher;
pub use hash_trie::{HashTrie, hash_octets, hash_value};
pub use headers::{HeadersMatcher, MatchMode};
pub use topic::TopicMatcher;
