//! Exchanges, queues and bindings as the clients know them, and where a message must or may go by that.

/// The default exchange, and those that are declared at the start.
pub const EXCHANGES: [(&str, &str); 4] = [("", "direct"), ("fan", "fanout"), ("dir", "direct"), ("top", "topic")];
/// Whatever is published to `top` with a key like this reaches `fan` too.
pub const TOP_TO_FAN: &str = "every.#";
pub const DIRECT_KEYS: [&str; 4] = ["k0", "k1", "k2", "k3"];
pub const TOPIC_WORDS: [&str; 5] = ["a", "b", "c", "every", ""];
pub const TOPIC_PATTERNS: [&str; 8] = ["#", "a.*", "*.b.#", "#.c", "a.b", "*.*.*", "every.*", "b"];

/// A queue as the clients know it.
pub struct QueueNote {
    pub name: String,
    pub exclusive_owner: Option<usize>,
    pub auto_delete: bool,
    /// Consumers may go without acknowledgements here.
    pub allows_no_ack: bool,
    pub is_durable: bool,
    /// Somebody may have got something from it before the broker was started last.
    pub was_touched: bool,
    /// ... or since.
    pub is_touched: bool,
    pub is_declared: bool,
    /// Somebody may have deleted it: nothing can be asked of its messages.
    pub may_be_gone: bool,
    /// Messages may have gone to somebody who is no longer there and need not acknowledge.
    pub is_lossy: bool,
    /// Purges that were asked for and not answered.
    pub purges: u32,
}

/// A binding of a queue.
pub struct BindingNote {
    pub exchange: usize,
    pub queue: usize,
    pub key: String,
    /// It was asked for; it may be there.
    pub may_be: bool,
    /// It is there for certain.
    pub is_certain: bool,
    /// It was asked to go.
    pub is_leaving: bool,
}

#[derive(Default)]
pub struct Topology {
    pub queues: Vec<QueueNote>,
    pub bindings: Vec<BindingNote>,
}

impl Topology {
    pub fn add_queue(
        &mut self,
        exclusive_owner: Option<usize>,
        auto_delete: bool,
        allows_no_ack: bool,
        is_durable: bool,
    ) -> usize {
        let name = format!("q{}", self.queues.len());
        self.queues.push(QueueNote {
            name,
            exclusive_owner,
            auto_delete,
            allows_no_ack,
            is_durable,
            was_touched: false,
            is_touched: false,
            is_declared: false,
            may_be_gone: false,
            is_lossy: false,
            purges: 0,
        });
        self.queues.len() - 1
    }

    /// The queues that a message must (`true`) or may (`false`) reach now.
    pub fn route(&self, exchange: &str, key: &str) -> Vec<(usize, bool)> {
        if exchange.is_empty() {
            let found = self.queues.iter().position(|queue| queue.name == key);
            return found.map(|at| (at, self.is_there(at))).into_iter().collect();
        }
        let at = EXCHANGES.iter().position(|(name, _)| *name == exchange).expect("clients know no others");
        let mut found: Vec<(usize, bool)> = Vec::new();
        self.route_from(at, key, &mut found);
        if exchange == "top" && topic_matches(TOP_TO_FAN, key) {
            self.route_from(1, key, &mut found);
        }
        found
    }

    fn route_from(&self, exchange: usize, key: &str, found: &mut Vec<(usize, bool)>) {
        for binding in self.bindings.iter().filter(|binding| binding.exchange == exchange && binding.may_be) {
            let matches = match EXCHANGES[exchange].1 {
                "fanout" => true,
                "direct" => binding.key == key,
                _ => topic_matches(&binding.key, key),
            };
            if !matches {
                continue;
            }
            let is_certain = binding.is_certain && !binding.is_leaving && self.is_there(binding.queue);
            match found.iter_mut().find(|(queue, _)| *queue == binding.queue) {
                Some((_, before)) => *before |= is_certain,
                None => found.push((binding.queue, is_certain)),
            }
        }
    }

    /// The broker has been started again. Those queues exist that `exists` says.
    pub fn restarted(&mut self, exists: impl Fn(&str) -> bool) {
        for queue in &mut self.queues {
            let is_there = exists(&queue.name);
            queue.is_declared = is_there;
            queue.may_be_gone = !is_there;
            queue.is_lossy = false;
            queue.purges = 0;
            queue.was_touched |= std::mem::take(&mut queue.is_touched);
        }
        let Self { queues, bindings } = self;
        for binding in bindings {
            binding.may_be &= queues[binding.queue].is_declared;
            binding.is_certain &= binding.may_be;
        }
    }

    fn is_there(&self, queue: usize) -> bool {
        self.queues[queue].is_declared && !self.queues[queue].may_be_gone
    }
}

/// Whether a topic pattern matches a routing key, the slow and plain way.
pub fn topic_matches(pattern: &str, key: &str) -> bool {
    fn matches(pattern: &[&str], words: &[&str]) -> bool {
        match pattern.split_first() {
            None => words.is_empty(),
            Some((&"#", rest)) => (0..=words.len()).any(|taken| matches(rest, &words[taken..])),
            Some((&word, rest)) => words
                .split_first()
                .is_some_and(|(first, others)| (word == "*" || word == *first) && matches(rest, others)),
        }
    }
    let words = |text: &str| if text.is_empty() { vec![] } else { text.split('.').map(str::to_owned).collect() };
    let (pattern, key): (Vec<String>, Vec<String>) = (words(pattern), words(key));
    let (pattern, key): (Vec<&str>, Vec<&str>) =
        (pattern.iter().map(String::as_str).collect(), key.iter().map(String::as_str).collect());
    matches(&pattern, &key)
}
