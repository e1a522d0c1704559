//! All classes and methods of AMQP 0-9-1 and of RabbitMQ's extensions, both ways, from one table.
//!
//! `method_table` explains how the table reads and makes everything of it: in each class's module a struct for each
//! method, and [`Method`] over all of them.
//!
//! Sources: AMQP 0-9-1, section 1 of its XML specification; <https://www.rabbitmq.com/docs/extensions>.

use crate::protocol::exception::ConnectionException;
use crate::protocol::frame::{FrameKind, put_frame_of};
use crate::protocol::method_table::{ArgumentReader, ArgumentWriter, methods};
use crate::protocol::reply_code::ReplyCode;
use crate::protocol::wire::{SyntaxFault, TRUNCATED, put_u16};
use std::fmt::{self, Display};

methods! {
    /// The connection itself, on channel 0.
    connection 10 {
        /// The broker proposes how to log in.
        10 "connection.start" ConnectionStart Start<'a> {
            version_major: octet, version_minor: octet, server_properties: table, mechanisms: long_string,
            locales: long_string
        }
        /// The client chooses a mechanism, and logs in.
        11 "connection.start-ok" ConnectionStartOk StartOk<'a> {
            client_properties: table, mechanism: short_string, response: long_string, locale: short_string
        }
        /// The broker asks for more, to log in.
        20 "connection.secure" ConnectionSecure Secure<'a> { challenge: long_string }
        /// The client's answer.
        21 "connection.secure-ok" ConnectionSecureOk SecureOk<'a> { response: long_string }
        /// The broker proposes limits.
        30 "connection.tune" ConnectionTune Tune { channel_max: short, frame_max: long, heartbeat: short }
        /// The client sets them.
        31 "connection.tune-ok" ConnectionTuneOk TuneOk { channel_max: short, frame_max: long, heartbeat: short }
        /// The client chooses a virtual host.
        40 "connection.open" ConnectionOpen Open<'a> { virtual_host: short_string; [short_string] [bit] }
        /// The connection may be used.
        41 "connection.open-ok" ConnectionOpenOk OpenOk {; [short_string] }
        /// Either side ends the connection.
        50 "connection.close" ConnectionClose Close<'a> {
            reply_code: short, reply_text: short_string, class_id: short, method_id: short
        }
        /// The end is confirmed.
        51 "connection.close-ok" ConnectionCloseOk CloseOk {}
        /// The broker takes no more messages for now (RabbitMQ).
        60 "connection.blocked" ConnectionBlocked Blocked<'a> { reason: short_string }
        /// The broker takes messages again (RabbitMQ).
        61 "connection.unblocked" ConnectionUnblocked Unblocked {}
        /// The client renews its credentials (RabbitMQ).
        70 "connection.update-secret" ConnectionUpdateSecret UpdateSecret<'a> {
            new_secret: long_string, reason: short_string
        }
        /// They are taken over (RabbitMQ).
        71 "connection.update-secret-ok" ConnectionUpdateSecretOk UpdateSecretOk {}
    }

    /// Channels, several on one connection.
    channel 20 {
        /// Opens a channel.
        10 "channel.open" ChannelOpen Open {; [short_string] }
        /// The channel may be used.
        11 "channel.open-ok" ChannelOpenOk OpenOk {; [long_string] }
        /// Stops or restarts the flow of messages.
        20 "channel.flow" ChannelFlow Flow { active: bit }
        /// How the flow is now.
        21 "channel.flow-ok" ChannelFlowOk FlowOk { active: bit }
        /// Either side ends the channel.
        40 "channel.close" ChannelClose Close<'a> {
            reply_code: short, reply_text: short_string, class_id: short, method_id: short
        }
        /// The end is confirmed.
        41 "channel.close-ok" ChannelCloseOk CloseOk {}
    }

    /// Exchanges: where messages are published to.
    exchange 40 {
        /// Creates an exchange, or checks that it is there.
        10 "exchange.declare" ExchangeDeclare Declare<'a> {
            [short] exchange: short_string, kind: short_string, passive: bit, durable: bit, auto_delete: bit,
            internal: bit, no_wait: bit, arguments: table
        }
        /// It is there.
        11 "exchange.declare-ok" ExchangeDeclareOk DeclareOk {}
        /// Deletes an exchange.
        20 "exchange.delete" ExchangeDelete Delete<'a> { [short] exchange: short_string, if_unused: bit, no_wait: bit }
        /// It is gone.
        21 "exchange.delete-ok" ExchangeDeleteOk DeleteOk {}
        /// Binds an exchange to an exchange (RabbitMQ).
        30 "exchange.bind" ExchangeBind Bind<'a> {
            [short] destination: short_string, source: short_string, routing_key: short_string, no_wait: bit,
            arguments: table
        }
        /// It is bound (RabbitMQ).
        31 "exchange.bind-ok" ExchangeBindOk BindOk {}
        /// Takes such a binding back (RabbitMQ).
        40 "exchange.unbind" ExchangeUnbind Unbind<'a> {
            [short] destination: short_string, source: short_string, routing_key: short_string, no_wait: bit,
            arguments: table
        }
        /// It is gone (RabbitMQ; 51, not 41).
        51 "exchange.unbind-ok" ExchangeUnbindOk UnbindOk {}
    }

    /// Queues: where messages wait.
    queue 50 {
        /// Creates a queue, or checks that it is there.
        10 "queue.declare" QueueDeclare Declare<'a> {
            [short] queue: short_string, passive: bit, durable: bit, exclusive: bit, auto_delete: bit, no_wait: bit,
            arguments: table
        }
        /// It is there.
        11 "queue.declare-ok" QueueDeclareOk DeclareOk<'a> {
            queue: short_string, message_count: long, consumer_count: long
        }
        /// Binds a queue to an exchange.
        20 "queue.bind" QueueBind Bind<'a> {
            [short] queue: short_string, exchange: short_string, routing_key: short_string, no_wait: bit,
            arguments: table
        }
        /// It is bound.
        21 "queue.bind-ok" QueueBindOk BindOk {}
        /// Drops all messages that are ready.
        30 "queue.purge" QueuePurge Purge<'a> { [short] queue: short_string, no_wait: bit }
        /// They are gone.
        31 "queue.purge-ok" QueuePurgeOk PurgeOk { message_count: long }
        /// Deletes a queue.
        40 "queue.delete" QueueDelete Delete<'a> {
            [short] queue: short_string, if_unused: bit, if_empty: bit, no_wait: bit
        }
        /// It is gone.
        41 "queue.delete-ok" QueueDeleteOk DeleteOk { message_count: long }
        /// Takes a binding back.
        50 "queue.unbind" QueueUnbind Unbind<'a> {
            [short] queue: short_string, exchange: short_string, routing_key: short_string, arguments: table
        }
        /// It is gone.
        51 "queue.unbind-ok" QueueUnbindOk UnbindOk {}
    }

    /// Messages.
    basic 60 {
        /// Limits what is unacknowledged.
        10 "basic.qos" BasicQos Qos { prefetch_size: long, prefetch_count: short, global: bit }
        /// The limit holds.
        11 "basic.qos-ok" BasicQosOk QosOk {}
        /// Starts a consumer.
        20 "basic.consume" BasicConsume Consume<'a> {
            [short] queue: short_string, consumer_tag: short_string, no_local: bit, no_ack: bit, exclusive: bit,
            no_wait: bit, arguments: table
        }
        /// It is started.
        21 "basic.consume-ok" BasicConsumeOk ConsumeOk<'a> { consumer_tag: short_string }
        /// Ends a consumer; from the broker where the queue is gone (RabbitMQ).
        30 "basic.cancel" BasicCancel Cancel<'a> { consumer_tag: short_string, no_wait: bit }
        /// It is ended.
        31 "basic.cancel-ok" BasicCancelOk CancelOk<'a> { consumer_tag: short_string }
        /// Publishes a message.
        40 "basic.publish" BasicPublish Publish<'a> {
            [short] exchange: short_string, routing_key: short_string, mandatory: bit, immediate: bit
        } content
        /// A message that reached no queue comes back.
        50 "basic.return" BasicReturn Return<'a> {
            reply_code: short, reply_text: short_string, exchange: short_string, routing_key: short_string
        } content
        /// A message for a consumer.
        60 "basic.deliver" BasicDeliver Deliver<'a> {
            consumer_tag: short_string, delivery_tag: longlong, redelivered: bit, exchange: short_string,
            routing_key: short_string
        } content
        /// Asks for one message.
        70 "basic.get" BasicGet Get<'a> { [short] queue: short_string, no_ack: bit }
        /// Here it is.
        71 "basic.get-ok" BasicGetOk GetOk<'a> {
            delivery_tag: longlong, redelivered: bit, exchange: short_string, routing_key: short_string,
            message_count: long
        } content
        /// There is none.
        72 "basic.get-empty" BasicGetEmpty GetEmpty {; [short_string] }
        /// Acknowledges messages; from the broker: confirms them (RabbitMQ).
        80 "basic.ack" BasicAck Ack { delivery_tag: longlong, multiple: bit }
        /// Refuses a message.
        90 "basic.reject" BasicReject Reject { delivery_tag: longlong, requeue: bit }
        /// Asks for all unacknowledged messages again, without an answer.
        100 "basic.recover-async" BasicRecoverAsync RecoverAsync { requeue: bit }
        /// Asks for all unacknowledged messages again.
        110 "basic.recover" BasicRecover Recover { requeue: bit }
        /// They are on their way.
        111 "basic.recover-ok" BasicRecoverOk RecoverOk {}
        /// Refuses messages; from the broker: it did not take them (RabbitMQ).
        120 "basic.nack" BasicNack Nack { delivery_tag: longlong, multiple: bit, requeue: bit }
    }

    /// Publisher confirms (RabbitMQ).
    confirm 85 {
        /// From here on publishes are confirmed (RabbitMQ).
        10 "confirm.select" ConfirmSelect Select { no_wait: bit }
        /// They are (RabbitMQ).
        11 "confirm.select-ok" ConfirmSelectOk SelectOk {}
    }

    /// Transactions on a channel.
    tx 90 {
        /// From here on publishes and acknowledgements wait for a commit.
        10 "tx.select" TxSelect Select {}
        /// They do.
        11 "tx.select-ok" TxSelectOk SelectOk {}
        /// Carries out what waits.
        20 "tx.commit" TxCommit Commit {}
        /// It is carried out.
        21 "tx.commit-ok" TxCommitOk CommitOk {}
        /// Forgets what waits.
        30 "tx.rollback" TxRollback Rollback {}
        /// It is forgotten.
        31 "tx.rollback-ok" TxRollbackOk RollbackOk {}
    }
}

/// A method frame that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodFault {
    /// There is no such method.
    Unknown {
        /// The class id.
        class_id: u16,
        /// The method id.
        method_id: u16,
    },
    /// Its arguments are malformed.
    Malformed {
        /// The class id; 0 where the payload is too short for both ids.
        class_id: u16,
        /// The method id; 0 where the payload is too short for both ids.
        method_id: u16,
        /// What is wrong.
        fault: SyntaxFault,
    },
}

impl MethodFault {
    /// The class id and the method id, which `connection.close` repeats.
    pub fn ids(&self) -> (u16, u16) {
        match *self {
            Self::Unknown { class_id, method_id } | Self::Malformed { class_id, method_id, .. } => {
                (class_id, method_id)
            }
        }
    }
}

impl Display for MethodFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { class_id, method_id } => write!(formatter, "unknown method {class_id},{method_id}"),
            Self::Malformed { class_id, method_id, fault } => {
                write!(formatter, "malformed arguments of method {class_id},{method_id}: {fault}")
            }
        }
    }
}

impl std::error::Error for MethodFault {}

impl From<MethodFault> for ConnectionException {
    fn from(fault: MethodFault) -> Self {
        let code = match fault {
            MethodFault::Unknown { .. } => ReplyCode::NotImplemented,
            MethodFault::Malformed { .. } => ReplyCode::SyntaxError,
        };
        Self::new(code, fault)
    }
}

impl<'a> Method<'a> {
    /// Reads a method frame's payload: class id, method id and all arguments, nothing more.
    ///
    /// # Errors
    /// Where there is no such method, where an argument is malformed, or where octets follow.
    pub fn decode(payload: &'a [u8]) -> Result<Self, MethodFault> {
        let Some((id, arguments)) = payload.split_first_chunk() else {
            return Err(MethodFault::Malformed { class_id: 0, method_id: 0, fault: TRUNCATED });
        };
        let (class_id, method_id) = (u16::from_be_bytes([id[0], id[1]]), u16::from_be_bytes([id[2], id[3]]));
        let mut reader = ArgumentReader::new(arguments);
        Self::decode_arguments(u32::from_be_bytes(*id), &mut reader)
            .ok_or(MethodFault::Unknown { class_id, method_id })?
            .and_then(|method| reader.finish().map(|()| method))
            .map_err(|fault| MethodFault::Malformed { class_id, method_id, fault })
    }

    /// Appends the payload: class id, method id, arguments.
    ///
    /// # Panics
    /// Where a short string has more than 255 octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (class_id, method_id) = self.ids();
        put_u16(out, class_id);
        put_u16(out, method_id);
        self.encode_arguments(&mut ArgumentWriter::new(out));
    }

    /// Appends the whole frame.
    ///
    /// # Panics
    /// Where a short string has more than 255 octets.
    pub fn put(&self, out: &mut Vec<u8>, channel: u16) {
        put_frame_of(out, FrameKind::Method, channel, |out| self.encode(out));
    }
}

/// Reads `basic.publish` alone, without building a [`Method`].
///
/// Returns `None` where the payload is not a well-formed `basic.publish`; [`Method::decode`] then tells what it is.
#[inline]
pub fn peek_publish(payload: &[u8]) -> Option<basic::Publish<'_>> {
    // Both ids, the reserved short, and the length of the exchange's name.
    let (&[c0, c1, m0, m1, _, _, exchange_octets], rest) = payload.split_first_chunk()?;
    if u32::from_be_bytes([c0, c1, m0, m1]) != basic::Publish::ID {
        return None;
    }
    let (exchange, rest) = rest.split_at_checked(usize::from(exchange_octets))?;
    let (&routing_key_octets, rest) = rest.split_first()?;
    let (routing_key, rest) = rest.split_at_checked(usize::from(routing_key_octets))?;
    let &[bits] = rest else { return None };
    Some(basic::Publish { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
}
