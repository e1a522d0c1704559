//! `amqp://user:password@host:port/vhost`, as RabbitMQ's URI specification has it.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};

/// Where and as whom to connect.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUri {
    /// Name or address; IPv6 without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Virtual host; `/` where the URI has no path.
    pub vhost: String,
}

/// Why a URI is none of ours; a whole sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriFault(&'static str);

impl fmt::Display for UriFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for UriFault {}

/// Without the password.
impl fmt::Display for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "amqp://{}@{open}{}{close}:{}/{}", self.user, self.host, self.port, self.vhost.replace('/', "%2F"))
    }
}

impl fmt::Debug for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AmqpUri {
    type Err = UriFault;

    fn from_str(text: &str) -> Result<Self, UriFault> {
        if text.starts_with("amqps:") {
            return Err(UriFault("TLS (amqps) is not supported yet: use amqp://"));
        }
        let rest = text.strip_prefix("amqp://").ok_or(UriFault("it has to begin with amqp://"))?;
        if rest.contains(['?', '#']) {
            return Err(UriFault("parameters behind '?' or '#' are not supported"));
        }
        let (authority, vhost) = match rest.split_once('/') {
            // As most clients do, and unlike the letter of the specification, an empty path means the default.
            None | Some((_, "")) => (rest.trim_end_matches('/'), "/".to_owned()),
            Some((authority, path)) => (authority, decoded(path)?),
        };
        let (login, place) =
            authority.rsplit_once('@').map_or((None, authority), |(login, place)| (Some(login), place));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (decoded(user)?, decoded(password)?),
            None => ("guest".to_owned(), "guest".to_owned()),
        };
        let (host, port) = host_and_port(place)?;
        Ok(Self { host, port, user, password, vhost })
    }
}

/// Reads URIs from the command line. What is said of a wrong one does not repeat it, since it may have a password.
#[derive(Clone)]
pub struct UriParser;

impl TypedValueParser for UriParser {
    type Value = AmqpUri;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<AmqpUri, clap::Error> {
        parse_in_secret(command, argument, value)
    }
}

/// Parses a value. What is said of a wrong one is the parser's sentence alone.
///
/// # Errors
/// Where it cannot be parsed.
pub fn parse_in_secret<T: FromStr<Err: fmt::Display>>(
    command: &Command,
    argument: Option<&Arg>,
    value: &OsStr,
) -> Result<T, clap::Error> {
    let parsed = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
    parsed.and_then(|text| text.parse::<T>().map_err(|fault| fault.to_string())).map_err(|fault| {
        let name = argument.map_or_else(String::new, |argument| format!(" for '{argument}'"));
        clap::Error::raw(ErrorKind::ValueValidation, format!("invalid value{name}: {fault}\n")).with_cmd(command)
    })
}

fn host_and_port(place: &str) -> Result<(String, u16), UriFault> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(UriFault("the bracket of the IPv6 address is not closed"))?;
        (host, after.strip_prefix(':'))
    } else {
        place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)))
    };
    let port = match port {
        None | Some("") => 5672,
        Some(port) => port.parse().map_err(|_| UriFault("the port is a number from 0 to 65535"))?,
    };
    let host = if host.is_empty() { "localhost".to_owned() } else { decoded(host)? };
    Ok((host, port))
}

/// Takes percent-encoding away.
fn decoded(text: &str) -> Result<String, UriFault> {
    const FAULT: UriFault = UriFault("'%' needs two hexadecimal digits behind it, and the whole has to be UTF-8");
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            octets.push(*first);
            continue;
        }
        let [high, low, behind @ ..] = behind else { return Err(FAULT) };
        let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(FAULT);
        octets.push(digit(*high)? << 4 | digit(*low)?);
        rest = behind;
    }
    String::from_utf8(octets).map_err(|_| FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, user: &str, password: &str, host: &str, port: u16, vhost: &str) {
        let uri: AmqpUri = text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"));
        let found = (uri.user.as_str(), uri.password.as_str(), uri.host.as_str(), uri.port, uri.vhost.as_str());
        assert_eq!(found, (user, password, host, port, vhost), "{text}");
    }

    /// Goal: each part is found, or has its default.
    #[test]
    fn parts_and_defaults() {
        check("amqp://", "guest", "guest", "localhost", 5672, "/");
        check("amqp://localhost", "guest", "guest", "localhost", 5672, "/");
        check("amqp://u:p@host:99/", "u", "p", "host", 99, "/");
        check("amqp://u:p@host:99/%2F", "u", "p", "host", 99, "/");
        check("amqp://u:p@host/orders", "u", "p", "host", 5672, "orders");
        check("amqp://u@host:/a%2fb", "u", "", "host", 5672, "a/b");
        check("amqp://a%40b:c%3Ad%C3%A4@h", "a@b", "c:dä", "h", 5672, "/");
        check("amqp://[::1]:5673/v", "guest", "guest", "::1", 5673, "v");
        check("amqp://[::1]", "guest", "guest", "::1", 5672, "/");
    }

    /// Goal: what cannot be meant is refused with its reason.
    #[test]
    fn faults() {
        for text in [
            "",
            "localhost",
            "http://x",
            "amqps://x",
            "amqp://x:y",
            "amqp://x:70000",
            "amqp://[::1",
            "amqp://%2",
            "amqp://%zz",
            "amqp://x/%ff",
            "amqp://x?heartbeat=1",
        ] {
            assert!(AmqpUri::from_str(text).is_err(), "{text}");
        }
    }

    /// Goal: a password is never shown.
    #[test]
    fn no_password_in_messages() {
        let uri: AmqpUri = "amqp://u:secret@h/%2F".parse().expect("well-formed");
        assert_eq!(uri.to_string(), "amqp://u@h:5672/%2F");
        assert!(!format!("{uri:?}").contains("secret"));
    }
}
