//! The words in which definitions are refused: RabbitMQ's, since clients match on them.

use crate::definitions::exchange::Exchange;
use crate::definitions::permissions::Action;
use crate::definitions::queue::QueueDefinition;
use crate::protocol::exception::{ChannelException, ConnectionException};
use crate::protocol::reply_code::ReplyCode;
use std::fmt;

/// A queue or an exchange, as it is called in texts: `queue 'q' in vhost '/'`.
#[derive(Clone, Copy)]
pub struct Resource<'a> {
    kind: &'static str,
    name: &'a str,
    vhost: &'a str,
}

impl<'a> Resource<'a> {
    /// A queue.
    pub fn queue(vhost: &'a str, name: &'a str) -> Self {
        Self { kind: "queue", name, vhost }
    }

    /// An exchange.
    pub fn exchange(vhost: &'a str, name: &'a str) -> Self {
        Self { kind: "exchange", name, vhost }
    }
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}' in vhost '{}'", self.kind, self.name, self.vhost)
    }
}

impl<'a> From<&'a QueueDefinition> for Resource<'a> {
    fn from(queue: &'a QueueDefinition) -> Self {
        Self::queue(&queue.vhost, &queue.name)
    }
}

impl<'a> From<&'a Exchange> for Resource<'a> {
    fn from(exchange: &'a Exchange) -> Self {
        Self::exchange(&exchange.vhost, &exchange.name)
    }
}

/// 404: what is not there.
pub fn not_found(resource: Resource<'_>) -> ChannelException {
    ChannelException::new(ReplyCode::NotFound, format_args!("no {resource}"))
}

/// 404
pub fn no_queue(vhost: &str, name: &str) -> ChannelException {
    not_found(Resource::queue(vhost, name))
}

/// 404
pub fn no_exchange(vhost: &str, name: &str) -> ChannelException {
    not_found(Resource::exchange(vhost, name))
}

/// 530, to a connection whose virtual host is not there (any more).
pub fn no_vhost(name: &str) -> ConnectionException {
    ConnectionException::new(ReplyCode::NotAllowed, format_args!("vhost {name} not found"))
}

/// 530
pub fn vhost_access_refused(vhost: &str, user: &str) -> ConnectionException {
    let text = format_args!("access to vhost '{vhost}' refused for user '{user}'");
    ConnectionException::new(ReplyCode::NotAllowed, text)
}

/// 403. The default exchange is named `amq.default` here.
pub fn access_refused(action: Action, mut resource: Resource<'_>, user: &str) -> ChannelException {
    if resource.kind == "exchange" && resource.name.is_empty() {
        resource.name = "amq.default";
    }
    let text = format_args!("{} access to {resource} refused for user '{user}'", action.name());
    ChannelException::new(ReplyCode::AccessRefused, text)
}

/// 403
pub fn not_on_the_default_exchange() -> ChannelException {
    ChannelException::new(ReplyCode::AccessRefused, "operation not permitted on the default exchange")
}

/// 403
pub fn reserved_name(kind: &str, name: &str) -> ChannelException {
    let text = format_args!("{kind} name '{name}' contains reserved prefix 'amq.*'");
    ChannelException::new(ReplyCode::AccessRefused, text)
}

/// 403
pub fn system_exchange(vhost: &str, name: &str) -> ChannelException {
    let exchange = Resource::exchange(vhost, name);
    ChannelException::new(ReplyCode::AccessRefused, format_args!("deletion of system {exchange} not allowed"))
}

/// 403
pub fn internal_exchange(exchange: &Exchange) -> ChannelException {
    let text = format_args!("cannot publish to internal {}", Resource::from(exchange));
    ChannelException::new(ReplyCode::AccessRefused, text)
}

/// 403
pub fn not_for_reply_queues() -> ChannelException {
    let text = "cannot bind or unbind to a volatile (direct reply-to) queue";
    ChannelException::new(ReplyCode::AccessRefused, text)
}

/// 405
pub fn locked(queue: &QueueDefinition) -> ChannelException {
    let text = format_args!(
        "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
         exclusive property value does not match that of the original declaration.",
        Resource::from(queue)
    );
    ChannelException::new(ReplyCode::ResourceLocked, text)
}

/// 403: an exclusive consumer has it.
pub fn in_exclusive_use(queue: &QueueDefinition) -> ChannelException {
    ChannelException::new(ReplyCode::AccessRefused, format_args!("{} in exclusive use", Resource::from(queue)))
}

/// 406
pub fn in_use(resource: Resource<'_>) -> ChannelException {
    precondition_failed(format_args!("{resource} in use"))
}

/// 406
pub fn not_empty(queue: &QueueDefinition) -> ChannelException {
    precondition_failed(format_args!("{} not empty", Resource::from(queue)))
}

/// 406
pub fn unknown_exchange_type(kind: &str) -> ChannelException {
    precondition_failed(format_args!("unknown exchange type '{kind}'"))
}

/// 406
pub fn inequivalent(
    argument: &str,
    resource: Resource<'_>,
    received: impl fmt::Display,
    current: impl fmt::Display,
) -> ChannelException {
    let text =
        format_args!("inequivalent arg '{argument}' for {resource}: received {received} but current is {current}");
    precondition_failed(text)
}

/// 406. `reason` is as RabbitMQ prints its Erlang terms.
pub fn invalid_argument(argument: &str, resource: Resource<'_>, reason: impl fmt::Display) -> ChannelException {
    precondition_failed(format_args!("invalid arg '{argument}' for {resource}: {reason}"))
}

/// 406: an argument that must name an exchange is no string.
pub fn invalid_argument_type(argument: &str, resource: Resource<'_>, type_name: &str) -> ChannelException {
    precondition_failed(format_args!("invalid type '{type_name}' for arg '{argument}' in {resource}"))
}

/// 404: the empty queue name means the last one that was declared, and there was none.
pub fn no_previous_queue() -> ChannelException {
    ChannelException::new(ReplyCode::NotFound, "no previously declared queue")
}

/// 406: names are UTF-8 here, other than in RabbitMQ.
pub fn name_is_not_utf8(kind: &str) -> ChannelException {
    precondition_failed(format_args!("{kind} name is not valid UTF-8"))
}

/// 406
pub fn precondition_failed(explanation: impl fmt::Display) -> ChannelException {
    ChannelException::new(ReplyCode::PreconditionFailed, explanation)
}
