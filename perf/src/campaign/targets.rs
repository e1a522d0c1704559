//! Brokers that are compared: `lepus=amqp://127.0.0.1:5672,pid=123`.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::{Arg, Command};

use crate::options::uri::{AmqpUri, parse_in_secret};

/// A broker under test.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetSpec {
    /// As the user calls it; `None`: as it calls itself.
    pub name: Option<String>,
    /// Where it is.
    pub uri: AmqpUri,
    /// As it was written; the URI's own text has no password.
    uri_text: String,
    /// Its process, where that runs here.
    pub pid: Option<u32>,
}

impl TargetSpec {
    /// From its parts.
    ///
    /// # Errors
    /// Where the URI is none.
    pub fn new(name: Option<String>, uri_text: &str, pid: Option<u32>) -> Result<Self, String> {
        let uri = uri_text.parse().map_err(|fault| format!("the URI: {fault}"))?;
        Ok(Self { name, uri, uri_text: uri_text.to_owned(), pid })
    }

    /// Options of `run` that lead there, with their values.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let pid = self.pid.map(|pid| ("broker-pid", pid.to_string()));
        [("uri", self.uri_text.clone())].into_iter().chain(pid).collect()
    }

    /// How it is called before it has said its own name.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{}:{}", self.uri.host, self.uri.port))
    }
}

/// Without the password.
impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        write!(f, "{}", self.uri)?;
        if let Some(pid) = self.pid {
            write!(f, ",pid={pid}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads targets from the command line. What is said of a wrong one does not repeat it, since it may have a password.
#[derive(Clone)]
pub struct TargetParser;

impl TypedValueParser for TargetParser {
    type Value = TargetSpec;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<TargetSpec, clap::Error> {
        parse_in_secret(command, argument, value)
    }
}

impl FromStr for TargetSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "a target is NAME=amqp://user:password@host:port/vhost, or the URI alone, and may end with ,pid=N";
        let at = text.find("amqp").ok_or(FORM)?;
        let (name, rest) = text.split_at(at);
        let name = match name {
            "" => None,
            name => Some(name.strip_suffix('=').filter(|name| !name.is_empty()).ok_or(FORM)?.to_owned()),
        };
        let mut parts = rest.split(',');
        let uri_text = parts.next().unwrap_or_default();
        let mut pid = None;
        for part in parts {
            let value = part.strip_prefix("pid=").ok_or_else(|| format!("behind the comma is not pid=N; {FORM}"))?;
            pid = Some(value.parse().map_err(|_| "pid= is not the number of a process".to_owned())?);
        }
        Self::new(name, uri_text, pid)
    }
}

/// Finds targets whose runs could not be told apart.
///
/// # Errors
/// A sentence for the user.
pub fn check_names(targets: &[TargetSpec]) -> Result<(), String> {
    for (index, target) in targets.iter().enumerate() {
        let is_same = |other: &&TargetSpec| other.label() == target.label();
        if let Some(other) = targets[..index].iter().find(is_same) {
            return Err(format!(
                "two targets are called {}: give each a name of its own, NAME=amqp://…",
                other.label()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let check = |text: &str, name: Option<&str>, port, pid, label: &str| {
            let found: TargetSpec = text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(
                (found.name.as_deref(), found.uri.port, found.pid, found.label().as_str()),
                (name, port, pid, label)
            );
        };
        check("amqp://", None, 5672, None, "localhost:5672");
        check("lepus=amqp://h:99", Some("lepus"), 99, None, "lepus");
        check("lepus=amqp://u:p@h:99/v,pid=12", Some("lepus"), 99, Some(12), "lepus");
        check("my broker=amqp://h,pid=1", Some("my broker"), 5672, Some(1), "my broker");
    }

    #[test]
    fn faults() {
        for (text, reason) in [
            ("", "a target is"),
            ("lepus", "a target is"),
            ("=amqp://h", "a target is"),
            ("lepus amqp://h", "a target is"),
            ("lepus=amqp://h,pid=x", "not the number"),
            ("lepus=amqp://h,cpu=1", "behind the comma is not pid=N"),
            ("lepus=amqps://h", "the URI: TLS"),
            ("lepus=amqp://h:x", "the URI: the port"),
        ] {
            let fault = text.parse::<TargetSpec>().expect_err(text);
            assert!(fault.contains(reason), "{text}: {fault}");
        }
    }

    /// Goal: targets are shown without passwords, and runs get them with it.
    #[test]
    fn passwords_are_not_shown() {
        let target: TargetSpec = "a=amqp://u:secret@h,pid=7".parse().expect("well-formed");
        assert_eq!(target.to_string(), "a=amqp://u@h:5672/%2F,pid=7");
        assert!(!format!("{target:?}").contains("secret"));
        assert_eq!(target.options()[0], ("uri", "amqp://u:secret@h".to_owned()));
    }

    #[test]
    fn equal_names() {
        let targets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("well-formed")).collect::<Vec<_>>();
        assert!(check_names(&targets(&["amqp://h", "a=amqp://h", "amqp://h:1"])).is_ok());
        assert!(check_names(&targets(&["amqp://h:1", "amqp://h:1"])).is_err());
        assert!(check_names(&targets(&["a=amqp://h:1", "a=amqp://h:2"])).is_err());
    }
}
