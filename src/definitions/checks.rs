//! Whether what is declared again is the same, and whether somebody may use an exclusive queue: checks that need no more
//! than a snapshot.
//!
//! Sources: `rabbit_amqqueue.erl`, `assert_equivalence`; `rabbit_exchange.erl`, `assert_equivalence`; `rabbit_misc.erl`,
//! `assert_args_equivalence`.

use crate::definitions::ConnectionId;
use crate::definitions::exchange::{Exchange, ExchangeKind};
use crate::definitions::queue::QueueDefinition;
use crate::definitions::queue_arguments::{QUEUE_TYPE, QueueType};
use crate::definitions::texts::{self, Resource};
use crate::protocol::exception::ChannelException;
use crate::protocol::field_table::{FieldTable, FieldValue, equivalent};
use std::borrow::Cow;
use std::fmt;

/// What the names of queues and exchanges must not begin with where a client creates them.
pub const RESERVED_PREFIX: &str = "amq.";

/// The argument that names an alternate exchange.
pub const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// Queue names that begin so stand for replies, not for queues.
pub const REPLY_TO_PREFIX: &str = "amq.rabbitmq.reply-to";

/// A name without CR and LF, as RabbitMQ strips them from every name that a client sends.
pub fn without_line_ends(name: &str) -> Cow<'_, str> {
    if name.contains(['\r', '\n']) { Cow::Owned(name.replace(['\r', '\n'], "")) } else { Cow::Borrowed(name) }
}

/// Refuses names that clients may not create.
///
/// # Errors
/// 403 `contains reserved prefix`.
pub fn check_name(kind: &str, name: &str) -> Result<(), ChannelException> {
    if name.starts_with(RESERVED_PREFIX) { Err(texts::reserved_name(kind, name)) } else { Ok(()) }
}

/// Whether this connection may use the queue: it is not exclusive, or its own.
///
/// # Errors
/// 405 `cannot obtain exclusive access`.
pub fn check_exclusive(queue: &QueueDefinition, connection: ConnectionId) -> Result<(), ChannelException> {
    match queue.exclusive_owner {
        Some(owner) if owner != connection => Err(texts::locked(queue)),
        _ => Ok(()),
    }
}

/// Whether a queue that exists is what is declared now.
///
/// # Errors
/// 405 where the exclusive owners differ, 406 `inequivalent arg`.
pub fn check_queue_declare(
    existing: &QueueDefinition,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: &FieldTable,
    connection: ConnectionId,
) -> Result<(), ChannelException> {
    let resource = Resource::from(existing);
    if existing.exclusive_owner != exclusive.then_some(connection) {
        return Err(texts::locked(existing));
    }
    check_flag("durable", resource, durable && !exclusive, existing.durable)?;
    check_flag("auto_delete", resource, auto_delete, existing.auto_delete)?;
    for argument in QueueType::of(&existing.arguments).known_arguments() {
        check_argument(argument, resource, arguments, &existing.arguments)?;
    }
    Ok(())
}

/// Whether an exchange that exists is what is declared now.
///
/// # Errors
/// 406 `unknown exchange type` and `inequivalent arg`.
pub fn check_exchange_declare(
    existing: &Exchange,
    kind: &str,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: &FieldTable,
) -> Result<(), ChannelException> {
    let resource = Resource::from(existing);
    let Some(received) = ExchangeKind::named(kind) else { return Err(texts::unknown_exchange_type(kind)) };
    if received != existing.kind {
        let (received, current) = (Quoted(received.name()), Quoted(existing.kind.name()));
        return Err(texts::inequivalent("type", resource, received, current));
    }
    check_flag("durable", resource, durable, existing.durable)?;
    check_flag("auto_delete", resource, auto_delete, existing.auto_delete)?;
    check_flag("internal", resource, internal, existing.internal)?;
    check_argument(ALTERNATE_EXCHANGE, resource, arguments, &existing.arguments)
}

fn check_flag(name: &str, resource: Resource<'_>, received: bool, current: bool) -> Result<(), ChannelException> {
    if received == current {
        return Ok(());
    }
    Err(texts::inequivalent(name, resource, Quoted(received), Quoted(current)))
}

fn check_argument(
    name: &str,
    resource: Resource<'_>,
    received: &FieldTable,
    current: &FieldTable,
) -> Result<(), ChannelException> {
    let classic = FieldValue::LongString(b"classic".to_vec());
    let [received, current] =
        [received, current].map(|table| table.get(name).or((name == QUEUE_TYPE).then_some(&classic)));
    match (received, current) {
        (None, None) => Ok(()),
        (Some(received), Some(current)) if equivalent(received, current) => Ok(()),
        (Some(received), Some(current)) => {
            Err(texts::inequivalent(name, resource, Quoted(Value(received)), Quoted(Value(current))))
        }
        (received, current) => Err(texts::inequivalent(name, resource, Typed(received), Typed(current))),
    }
}

struct Quoted<T>(T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0)
    }
}

struct Typed<'a>(Option<&'a FieldValue>);

impl fmt::Display for Typed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(value) => write!(f, "the value '{}' of type '{}'", Value(value), value.type_name()),
        }
    }
}

/// A value as RabbitMQ prints it, but for tables and arrays, whose Erlang terms nobody reads.
pub(super) struct Value<'a>(pub &'a FieldValue);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FieldValue::LongString(octets) | FieldValue::Bytes(octets) => f.write_str(&String::from_utf8_lossy(octets)),
            FieldValue::Bool(value) => write!(f, "{value}"),
            FieldValue::F32(value) => write!(f, "{value:?}"),
            FieldValue::F64(value) => write!(f, "{value:?}"),
            FieldValue::Decimal { scale, value } => write!(f, "{{{scale},{value}}}"),
            FieldValue::Timestamp(value) => write!(f, "{value}"),
            FieldValue::Void => f.write_str("undefined"),
            FieldValue::Array(values) => write!(f, "[{} values]", values.len()),
            FieldValue::Table(table) => write!(f, "[{} fields]", table.len()),
            integer => write!(f, "{}", integer.as_i64().unwrap_or_default()),
        }
    }
}
