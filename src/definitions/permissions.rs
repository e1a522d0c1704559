//! What users may do: patterns that the names of queues and exchanges are matched with.

use crate::definitions::Name;
use fancy_regex::Regex;

/// What is done to a queue or an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Declare or delete it, or change what it is.
    Configure,
    /// Put messages into it.
    Write,
    /// Take messages out of it.
    Read,
}

impl Action {
    /// The word for it in reply texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// A pattern, compiled when it is set.
///
/// As in RabbitMQ it is searched for anywhere in the name, and the empty pattern matches nothing but the empty name. The
/// expressions are those of Perl as far as `fancy_regex` goes, since RabbitMQ's own examples look ahead (`^(?!amq\.).*`).
#[derive(Debug)]
pub struct Pattern {
    text: String,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    All,
    OnlyEmpty,
    Expression(Box<Regex>),
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(text: &str) -> Result<Self, String> {
        let rule = match text {
            "" | "^$" => Rule::OnlyEmpty,
            ".*" | "^.*$" | "^.*" | ".*$" => Rule::All,
            _ => Rule::Expression(Box::new(Regex::new(text).map_err(|error| error.to_string())?)),
        };
        Ok(Self { text: text.to_owned(), rule })
    }

    /// The pattern as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches. An expression that takes too many steps does not.
    pub fn is_match(&self, name: &str) -> bool {
        match &self.rule {
            Rule::All => true,
            Rule::OnlyEmpty => name.is_empty(),
            Rule::Expression(expression) => expression.is_match(name).unwrap_or(false),
        }
    }
}

/// What one user may do in one virtual host.
#[derive(Debug)]
pub struct Permissions {
    /// The user.
    pub user: Name,
    /// The virtual host.
    pub vhost: Name,
    /// What it may configure.
    pub configure: Pattern,
    /// What it may write to.
    pub write: Pattern,
    /// What it may read from.
    pub read: Pattern,
}

impl Permissions {
    /// Whether they allow to do this with the queue or exchange of this name.
    pub fn allow(&self, action: Action, resource: &str) -> bool {
        let pattern = match action {
            Action::Configure => &self.configure,
            Action::Write => &self.write,
            Action::Read => &self.read,
        };
        pattern.is_match(if resource.is_empty() { "amq.default" } else { resource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: patterns mean what they mean in RabbitMQ.
    /// Method: each kind of pattern, with names on both sides.
    #[test]
    fn patterns_match_as_in_rabbitmq() {
        for (pattern, matching, others) in [
            ("", &[""][..], &["a"][..]),
            ("^$", &[""], &["a"]),
            (".*", &["", "a"], &[]),
            ("q", &["q", "aqb"], &["", "a"]),
            ("^q", &["q", "q1"], &["aq"]),
            ("^(a|b)$", &["a", "b"], &["ab", ""]),
            (r"^(?!amq\.).*", &["orders", ""], &["amq.topic"]),
        ] {
            let compiled = Pattern::new(pattern).unwrap();
            assert_eq!(compiled.text(), pattern);
            for (names, expected) in [(matching, true), (others, false)] {
                for name in names {
                    assert_eq!(compiled.is_match(name), expected, "{pattern} and {name}");
                }
            }
        }
        assert!(Pattern::new("(").is_err());
    }
}
