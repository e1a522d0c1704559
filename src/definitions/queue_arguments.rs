//! The arguments of `queue.declare`: which there are, what is refused, what they ask for.
//!
//! Sources: `rabbit_amqqueue.erl`, `check_declare_arguments`; the `capabilities` of the queue types.
//!
//! A quorum queue is accepted where RabbitMQ would accept it, and served by the same queue as a classic one: on a single node it
//! promises no more than a durable queue does. A stream is not: it can be read again, which a queue cannot.

use crate::definitions::Name;
use crate::definitions::queue::{QueueOptions, QueueOverflow};
use crate::definitions::texts::{self, Resource};
use crate::limits::PRIORITY_MAX;
use crate::protocol::exception::{ChannelException, ConnectionException, Exception};
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::reply_code::ReplyCode;

/// The argument that names the type of a queue.
pub const QUEUE_TYPE: &str = "x-queue-type";
const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";

/// RabbitMQ's bound on every time-out, in milliseconds: ten years.
const EXPIRY_MILLIS_MAX: i64 = 315_360_000_000;

/// The types of queues that can be declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// The ordinary queue.
    Classic,
    /// RabbitMQ's replicated queue; here the same queue under another name.
    Quorum,
}

const CLASSIC_ARGUMENTS: [&str; 14] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-queue-leader-locator",
];

const QUORUM_ARGUMENTS: [&str; 21] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-member-placement-tag",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
    "x-consumer-disconnected-timeout",
    "x-consumer-timeout",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
];

const STREAM_ARGUMENTS: [&str; 4] =
    ["x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes", "x-initial-cluster-size"];

impl QueueType {
    /// The type that arguments which were accepted ask for.
    pub fn of(arguments: &FieldTable) -> Self {
        match arguments.get(QUEUE_TYPE).and_then(FieldValue::as_str) {
            Some("quorum") => Self::Quorum,
            _ => Self::Classic,
        }
    }

    /// The arguments that this type knows: they are compared when a queue is declared again, others are not.
    pub fn known_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Classic => &CLASSIC_ARGUMENTS,
            Self::Quorum => &QUORUM_ARGUMENTS,
        }
    }

    /// RabbitMQ's name of the type in its texts.
    fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
        }
    }
}

/// A queue that is to be made.
#[derive(Clone, Copy)]
pub struct NewQueue<'a> {
    /// How it is called in texts.
    pub resource: Resource<'a>,
    /// Whether the broker is to choose the name.
    pub server_named: bool,
    /// As declared.
    pub durable: bool,
    /// As declared.
    pub exclusive: bool,
    /// As declared.
    pub auto_delete: bool,
    /// As declared.
    pub arguments: &'a FieldTable,
}

impl NewQueue<'_> {
    /// Checks everything that RabbitMQ checks before it makes a queue, and reads what the arguments ask for.
    ///
    /// # Errors
    /// 406 `invalid arg`, `invalid property`, `invalid type`; 540 for a stream.
    pub fn options(&self) -> Result<QueueOptions, Exception> {
        if let Some(value) = self.arguments.get(DEAD_LETTER_EXCHANGE)
            && !matches!(value, FieldValue::LongString(_))
        {
            let type_name = value.type_name();
            return Err(texts::invalid_argument_type(DEAD_LETTER_EXCHANGE, self.resource, type_name).into());
        }
        let queue_type = self.queue_type()?;
        let options = self.read_options(queue_type)?;
        let foreign = self.arguments.0.iter().find(|(name, _)| {
            let is_known = |known: &[&str]| known.iter().any(|known| known.as_bytes() == name);
            let all = [&CLASSIC_ARGUMENTS[..], &QUORUM_ARGUMENTS, &STREAM_ARGUMENTS];
            all.into_iter().any(is_known) && !is_known(queue_type.known_arguments())
        });
        if let Some((name, _)) = foreign {
            let name = String::from_utf8_lossy(name);
            let text = format_args!("invalid arg '{name}' for {} of queue type {}", self.resource, queue_type.module());
            return Err(texts::precondition_failed(text).into());
        }
        if queue_type == QueueType::Quorum {
            self.check_quorum()?;
        }
        Ok(options)
    }

    fn queue_type(&self) -> Result<QueueType, Exception> {
        match self.arguments.get(QUEUE_TYPE) {
            None => Ok(QueueType::Classic),
            Some(FieldValue::LongString(name)) => match &name[..] {
                b"" | b"undefined" | b"classic" => Ok(QueueType::Classic),
                b"quorum" => Ok(QueueType::Quorum),
                b"stream" => {
                    let text = format_args!("queue type 'stream' is not supported: cannot declare {}", self.resource);
                    Err(ConnectionException::new(ReplyCode::NotImplemented, text).into())
                }
                other => {
                    let reason = format!("\"unsupported queue type '{}'\"", String::from_utf8_lossy(other));
                    Err(self.invalid(QUEUE_TYPE, reason).into())
                }
            },
            Some(other) => Err(self.invalid(QUEUE_TYPE, unacceptable_type(other)).into()),
        }
    }

    /// What RabbitMQ asks of a quorum queue.
    fn check_quorum(&self) -> Result<(), ChannelException> {
        if self.server_named {
            let text = "Cannot declare a server-named queue for type rabbit_quorum_queue";
            return Err(texts::precondition_failed(text));
        }
        for (is_wrong, property) in
            [(self.auto_delete, "auto-delete"), (self.exclusive, "exclusive-owner"), (!self.durable, "non-durable")]
        {
            if is_wrong {
                let text = format_args!("invalid property '{property}' for {}", self.resource);
                return Err(texts::precondition_failed(text));
            }
        }
        Ok(())
    }

    fn read_options(&self, queue_type: QueueType) -> Result<QueueOptions, ChannelException> {
        let mut options = QueueOptions {
            expires_millis: self.read("x-expires", expires)?,
            message_ttl_millis: self.read("x-message-ttl", expiry)?,
            dead_letter_exchange: self.read(DEAD_LETTER_EXCHANGE, name)?,
            dead_letter_routing_key: self.read("x-dead-letter-routing-key", name)?,
            length_max: self.read("x-max-length", non_negative)?,
            octets_max: self.read("x-max-length-bytes", non_negative)?,
            overflow: self.read("x-overflow", overflow)?.unwrap_or_default(),
            ..QueueOptions::default()
        };
        if options.dead_letter_routing_key.is_some() && options.dead_letter_exchange.is_none() {
            return Err(self.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"));
        }
        if queue_type == QueueType::Classic {
            options.priority_max = self.read("x-max-priority", priority)?;
            self.read("x-queue-version", version)?;
        } else {
            self.read("x-delivery-limit", integer)?;
            self.read("x-max-in-memory-length", non_negative)?;
            self.read("x-max-in-memory-bytes", non_negative)?;
        }
        options.single_active_consumer = self.read("x-single-active-consumer", boolean)?.unwrap_or_default();
        Ok(options)
    }

    fn read<T>(
        &self,
        argument: &str,
        read: impl FnOnce(&FieldValue) -> Result<T, String>,
    ) -> Result<Option<T>, ChannelException> {
        let Some(value) = self.arguments.get(argument) else { return Ok(None) };
        read(value).map(Some).map_err(|reason| self.invalid(argument, reason))
    }

    fn invalid(&self, argument: &str, reason: impl std::fmt::Display) -> ChannelException {
        texts::invalid_argument(argument, self.resource, reason)
    }
}

// What follows reads one value; its errors are Erlang terms, as RabbitMQ prints them.

fn unacceptable_type(value: &FieldValue) -> String {
    format!("{{unacceptable_type,{}}}", value.type_name())
}

fn integer(value: &FieldValue) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("\"expected integer, got {}\"", value.type_name()))
}

fn non_negative(value: &FieldValue) -> Result<u64, String> {
    let value = integer(value)?;
    u64::try_from(value).map_err(|_| format!("{{value_negative,{value}}}"))
}

fn expiry(value: &FieldValue) -> Result<u64, String> {
    match integer(value)? {
        too_large if too_large > EXPIRY_MILLIS_MAX => Err(format!("{{value_too_large,{too_large}}}")),
        _ => non_negative(value),
    }
}

fn expires(value: &FieldValue) -> Result<u64, String> {
    match integer(value)? {
        0 => Err("{value_zero,0}".to_owned()),
        _ => expiry(value),
    }
}

fn priority(value: &FieldValue) -> Result<u8, String> {
    let priority = non_negative(value)?;
    match u8::try_from(priority) {
        Ok(accepted) if priority <= u64::from(PRIORITY_MAX) => Ok(accepted),
        _ => Err(format!("{{max_value_exceeded,{priority}}}")),
    }
}

fn version(value: &FieldValue) -> Result<(), String> {
    match non_negative(value)? {
        2 => Ok(()),
        other => Err(format!("\"unsupported queue version '{other}'\"")),
    }
}

fn boolean(value: &FieldValue) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| unacceptable_type(value))
}

fn name(value: &FieldValue) -> Result<Name, String> {
    match value {
        FieldValue::LongString(octets) => match std::str::from_utf8(octets) {
            Ok(name) => Ok(name.into()),
            Err(_) => Err("not_utf8".to_owned()),
        },
        _ => Err(unacceptable_type(value)),
    }
}

fn overflow(value: &FieldValue) -> Result<QueueOverflow, String> {
    match value {
        FieldValue::LongString(name) => match &name[..] {
            b"drop-head" => Ok(QueueOverflow::DropHead),
            b"reject-publish" => Ok(QueueOverflow::RejectPublish),
            b"reject-publish-dlx" => Ok(QueueOverflow::RejectPublishDeadLetter),
            _ => Err("invalid_overflow".to_owned()),
        },
        _ => Err(unacceptable_type(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::fixture::{check_refused, declared, queue, registry_after, text};

    fn check(arguments: &[(&str, FieldValue)], expected: &str) {
        check_refused(&mut registry_after([]), queue("q", arguments), expected);
    }

    fn options(arguments: &[(&str, FieldValue)]) -> QueueOptions {
        declared(registry_after([]).apply(queue("q", arguments))).options.clone()
    }

    /// Goal: every argument that is wrong is refused in RabbitMQ's words.
    /// Method: values just outside of each bound, and of wrong types.
    #[test]
    fn arguments_are_refused_in_the_words_of_rabbitmq() {
        let number = FieldValue::I64;
        for (name, value, reason) in [
            ("x-expires", number(0), "{value_zero,0}"),
            ("x-expires", number(-1), "{value_negative,-1}"),
            ("x-expires", number(315_360_000_001), "{value_too_large,315360000001}"),
            ("x-message-ttl", number(-1), "{value_negative,-1}"),
            ("x-message-ttl", text("1"), "\"expected integer, got longstr\""),
            ("x-max-length", number(-1), "{value_negative,-1}"),
            ("x-max-length-bytes", FieldValue::Bool(true), "\"expected integer, got bool\""),
            ("x-max-priority", number(256), "{max_value_exceeded,256}"),
            ("x-max-priority", number(-1), "{value_negative,-1}"),
            ("x-overflow", text("spill"), "invalid_overflow"),
            ("x-overflow", number(1), "{unacceptable_type,long}"),
            ("x-dead-letter-routing-key", text("k"), "routing_key_but_no_dlx_defined"),
            ("x-single-active-consumer", number(1), "{unacceptable_type,long}"),
            ("x-queue-version", number(1), "\"unsupported queue version '1'\""),
            ("x-queue-type", text("strange"), "\"unsupported queue type 'strange'\""),
            ("x-queue-type", number(1), "{unacceptable_type,long}"),
        ] {
            let expected = format!("PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '/': {reason}");
            check(&[(name, value)], &expected);
        }
        check(
            &[("x-dead-letter-exchange", FieldValue::I32(1))],
            "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'",
        );
        check(
            &[("x-max-age", text("1D"))],
            "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue",
        );
        check(
            &[("x-queue-type", text("stream"))],
            "NOT_IMPLEMENTED - queue type 'stream' is not supported: cannot declare queue 'q' in vhost '/'",
        );
    }

    /// Goal: what is asked for is what the queue gets.
    /// Method: all arguments at their bounds.
    #[test]
    fn arguments_become_options() {
        let asked = options(&[
            ("x-expires", FieldValue::U8(1)),
            ("x-message-ttl", FieldValue::I32(0)),
            ("x-max-length", FieldValue::I64(0)),
            ("x-max-length-bytes", FieldValue::U32(7)),
            ("x-overflow", text("reject-publish-dlx")),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text("k")),
            ("x-max-priority", FieldValue::I16(255)),
            ("x-single-active-consumer", FieldValue::Bool(true)),
            ("x-queue-mode", text("lazy")),
            ("x-queue-version", FieldValue::I32(2)),
            ("x-queue-type", text("classic")),
            ("whatever", FieldValue::Void),
        ]);
        let expected = QueueOptions {
            message_ttl_millis: Some(0),
            expires_millis: Some(1),
            length_max: Some(0),
            octets_max: Some(7),
            overflow: QueueOverflow::RejectPublishDeadLetter,
            dead_letter_exchange: Some("".into()),
            dead_letter_routing_key: Some("k".into()),
            priority_max: Some(255),
            single_active_consumer: true,
        };
        assert_eq!(asked, expected);
        assert_eq!(options(&[]), QueueOptions::default());
    }

    /// Goal: quorum queues are made where RabbitMQ would make them, and told apart from classic ones.
    /// Method: declare one, declare it again as classic; each property that it must not have.
    #[test]
    fn quorum_queues_are_durable_and_shared() {
        let quorum = [("x-queue-type", text("quorum"))];
        let registry = &mut registry_after([queue("q", &quorum), queue("q", &quorum)]);
        check_refused(
            registry,
            queue("q", &[]),
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'classic' but \
             current is 'quorum'",
        );
        check(
            &[("x-queue-type", text("quorum")), ("x-max-priority", FieldValue::U8(1))],
            "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type \
             rabbit_quorum_queue",
        );
        let arguments = crate::definitions::fixture::table(&quorum);
        let resource = Resource::queue("/", "q");
        let good = NewQueue {
            resource,
            server_named: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: &arguments,
        };
        assert!(good.options().is_ok());
        for (wrong, property) in [
            (NewQueue { durable: false, ..good }, "invalid property 'non-durable'"),
            (NewQueue { exclusive: true, ..good }, "invalid property 'exclusive-owner'"),
            (NewQueue { auto_delete: true, ..good }, "invalid property 'auto-delete'"),
            (NewQueue { server_named: true, ..good }, "Cannot declare a server-named queue"),
        ] {
            let refused = wrong.options().unwrap_err();
            assert!(refused.text().contains(property), "{refused}");
        }
    }
}
