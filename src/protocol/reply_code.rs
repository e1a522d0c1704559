//! The reply codes of AMQP 0-9-1 and their names.
//!
//! Source: AMQP 0-9-1, section 1.2 (domain `reply-code`); the names are those that RabbitMQ begins its reply texts with.

/// Writes the enum, its codes and its names from one list.
macro_rules! reply_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal $name:literal,)*) => {
        /// Why a peer's method, channel or connection came to its end.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ReplyCode {
            $($(#[$doc])* $variant = $code,)*
        }

        impl ReplyCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that begins a reply text, such as `ACCESS_REFUSED`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The code with this number, if there is one.
            pub fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

reply_codes! {
    /// Nothing is wrong: a normal end.
    ReplySuccess = 200 "REPLY_SUCCESS",
    /// The content is larger than the broker takes now.
    ContentTooLarge = 311 "CONTENT_TOO_LARGE",
    /// A mandatory message reached no queue.
    NoRoute = 312 "NO_ROUTE",
    /// An immediate message reached no consumer.
    NoConsumers = 313 "NO_CONSUMERS",
    /// An operator closes the connection.
    ConnectionForced = 320 "CONNECTION_FORCED",
    /// An unknown virtual host.
    InvalidPath = 402 "INVALID_PATH",
    /// The peer has no right to do this.
    AccessRefused = 403 "ACCESS_REFUSED",
    /// What the method names does not exist.
    NotFound = 404 "NOT_FOUND",
    /// What the method names is locked by another connection.
    ResourceLocked = 405 "RESOURCE_LOCKED",
    /// What the method takes for granted is not so.
    PreconditionFailed = 406 "PRECONDITION_FAILED",
    /// A malformed frame.
    FrameError = 501 "FRAME_ERROR",
    /// A frame whose contents are malformed.
    SyntaxError = 502 "SYNTAX_ERROR",
    /// A method that may not come now.
    CommandInvalid = 503 "COMMAND_INVALID",
    /// A channel that is not open, or is open already.
    ChannelError = 504 "CHANNEL_ERROR",
    /// A frame that may not come now.
    UnexpectedFrame = 505 "UNEXPECTED_FRAME",
    /// The broker lacks the means.
    ResourceError = 506 "RESOURCE_ERROR",
    /// Forbidden by the rules of the broker.
    NotAllowed = 530 "NOT_ALLOWED",
    /// Not implemented by the broker.
    NotImplemented = 540 "NOT_IMPLEMENTED",
    /// The broker's own fault.
    InternalError = 541 "INTERNAL_ERROR",
}

impl ReplyCode {
    /// The number on the wire.
    #[inline]
    pub const fn code(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::ReplyCode;

    /// Goal: number and code are each other's inverse, and nothing else is a code.
    /// Method: ask for all 65,536 numbers.
    #[test]
    fn numbers_and_codes_match() {
        let known: Vec<ReplyCode> = (0..=u16::MAX).filter_map(ReplyCode::from_code).collect();
        assert_eq!(known, ReplyCode::ALL);
        assert!(known.iter().all(|code| ReplyCode::from_code(code.code()) == Some(*code)));
        assert_eq!(ReplyCode::AccessRefused.code(), 403);
        assert_eq!(ReplyCode::AccessRefused.name(), "ACCESS_REFUSED");
    }
}
