//! A peer's mistake, as a value: what closes its channel or its connection.
//!
//! Two types, so that a caller cannot forget which of both it is. The text is complete and fits a short string.

use crate::limits::SHORT_STRING_OCTETS_MAX;
use crate::protocol::reply_code::ReplyCode;
use std::fmt::{self, Display};

/// What ends a text that was cut.
const ELLIPSIS: &str = "...";

/// Closes the channel on which the mistake was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelException {
    /// The `reply-code` of `channel.close`.
    pub code: ReplyCode,
    /// The `reply-text` of `channel.close`, such as `NOT_FOUND - no queue 'q' in vhost '/'`; at most 255 octets.
    pub text: String,
}

/// Closes the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionException {
    /// The `reply-code` of `connection.close`.
    pub code: ReplyCode,
    /// The `reply-text` of `connection.close`, such as `FRAME_ERROR - ...`; at most 255 octets.
    pub text: String,
}

/// Either; what a handler returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exception {
    /// Closes the channel.
    Channel(ChannelException),
    /// Closes the connection.
    Connection(ConnectionException),
}

impl ChannelException {
    /// An exception whose text is the code's name and the `explanation`.
    ///
    /// A text of more than 255 octets is cut and ends in `...`, as RabbitMQ does, but never within a character.
    #[cold]
    pub fn new(code: ReplyCode, explanation: impl Display) -> Self {
        Self { code, text: reply_text(code, &explanation) }
    }
}

impl ConnectionException {
    /// An exception whose text is the code's name and the `explanation`.
    ///
    /// A text of more than 255 octets is cut and ends in `...`, as RabbitMQ does, but never within a character.
    #[cold]
    pub fn new(code: ReplyCode, explanation: impl Display) -> Self {
        Self { code, text: reply_text(code, &explanation) }
    }
}

impl Exception {
    /// The reply code.
    pub fn code(&self) -> ReplyCode {
        match self {
            Self::Channel(exception) => exception.code,
            Self::Connection(exception) => exception.code,
        }
    }

    /// The reply text.
    pub fn text(&self) -> &str {
        match self {
            Self::Channel(exception) => &exception.text,
            Self::Connection(exception) => &exception.text,
        }
    }
}

impl From<ChannelException> for Exception {
    fn from(exception: ChannelException) -> Self {
        Self::Channel(exception)
    }
}

impl From<ConnectionException> for Exception {
    fn from(exception: ConnectionException) -> Self {
        Self::Connection(exception)
    }
}

impl Display for ChannelException {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.code.code(), self.text)
    }
}

impl Display for ConnectionException {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.code.code(), self.text)
    }
}

impl Display for Exception {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(exception) => exception.fmt(formatter),
            Self::Connection(exception) => exception.fmt(formatter),
        }
    }
}

impl std::error::Error for ChannelException {}
impl std::error::Error for ConnectionException {}
impl std::error::Error for Exception {}

fn reply_text(code: ReplyCode, explanation: &dyn Display) -> String {
    let mut text = format!("{} - {explanation}", code.name());
    if text.len() > SHORT_STRING_OCTETS_MAX {
        let room = SHORT_STRING_OCTETS_MAX - ELLIPSIS.len();
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(ELLIPSIS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{ChannelException, ConnectionException, Exception};
    use crate::protocol::reply_code::ReplyCode;

    /// Goal: a text begins with the code's name.
    /// Method: one of RabbitMQ's texts, letter for letter.
    #[test]
    fn text_begins_with_the_name() {
        let exception = ChannelException::new(ReplyCode::NotFound, "no queue 'q' in vhost '/'");
        assert_eq!(exception.text, "NOT_FOUND - no queue 'q' in vhost '/'");
        assert_eq!(Exception::from(exception).code().code(), 404);
    }

    fn check(explanation: &str, text: &str) {
        let exception = ConnectionException::new(ReplyCode::NotAllowed, explanation);
        assert_eq!(exception.text, text);
        assert!(text.len() <= 255);
    }

    /// Goal: a text is cut where it is longer than 255 octets, and not within a character.
    /// Method: both sides of the limit; then two-octet characters that lie across the cut.
    #[test]
    fn text_is_cut_at_a_character() {
        let room = 255 - "NOT_ALLOWED - ".len();
        let full = "x".repeat(room);
        check(&full, &format!("NOT_ALLOWED - {full}"));
        check(&"x".repeat(room + 1), &format!("NOT_ALLOWED - {}...", "x".repeat(room - 3)));
        let wide = "ä".repeat(room);
        check(&wide, &format!("NOT_ALLOWED - {}...", "ä".repeat((room - 3) / 2)));
        check(&format!("x{wide}"), &format!("NOT_ALLOWED - x{}...", "ä".repeat((room - 4) / 2)));
    }
}
