//! Methods of the classes basic, confirm and tx, except publish.

use super::{
    Shard,
    exchange_methods::name_of,
    shard_message::{ConsumerHome, QueueRequest},
};
use crate::{
    connection::{Awaiting, Channel, Connection, Consumer, Hold, Mode, QueueHandle, Settlement, Then, Transaction},
    definitions::Action,
    limits::{CONSUMER_WINDOW_OCTETS, CONSUMERS_PER_CHANNEL_MAX},
    protocol::{
        exception::{ChannelException, ConnectionException, Exception},
        field_table::{TableRef, ValueRef},
        frame::{FRAME_HEADER_OCTETS, FrameKind},
        method::{Method, basic, confirm, tx},
        reply_code::ReplyCode,
    },
    queue::{ConsumerKey, ConsumerSettings},
};

impl Shard {
    /// A method on a channel that is open.
    pub(super) fn handle_channel_method(
        &mut self,
        slot: u32,
        number: u16,
        method: &Method<'_>,
    ) -> Result<(), Exception> {
        match method {
            Method::BasicAck(ack) => {
                self.settle_tag(slot, number, ack.delivery_tag, ack.multiple, Settlement::Acknowledged)
            }
            Method::BasicNack(nack) => {
                let settlement = if nack.requeue { Settlement::Requeued } else { Settlement::Rejected };
                self.settle_tag(slot, number, nack.delivery_tag, nack.multiple, settlement)
            }
            Method::BasicReject(reject) => {
                let settlement = if reject.requeue { Settlement::Requeued } else { Settlement::Rejected };
                self.settle_tag(slot, number, reject.delivery_tag, false, settlement)
            }
            Method::BasicQos(qos) => self.set_qos(slot, number, qos),
            Method::BasicConsume(consume) => self.consume(slot, number, consume),
            Method::BasicCancel(cancel) => {
                self.cancel(slot, number, cancel);
                Ok(())
            }
            Method::BasicGet(get) => self.get(slot, number, get),
            Method::BasicRecover(basic::Recover { requeue: true }) => {
                self.requeue_all(slot, number);
                self.send(slot, number, &Method::BasicRecoverOk(basic::RecoverOk {}));
                Ok(())
            }
            Method::BasicRecoverAsync(basic::RecoverAsync { requeue: true }) => {
                self.requeue_all(slot, number);
                Ok(())
            }
            Method::BasicRecover(_) | Method::BasicRecoverAsync(_) => {
                Err(ConnectionException::new(ReplyCode::NotImplemented, "requeue=false").into())
            }
            // A client's answer to the broker's basic.cancel.
            Method::BasicCancelOk(_) | Method::ChannelFlowOk(_) => Ok(()),
            Method::ConfirmSelect(select) => self.select_confirm(slot, number, *select),
            Method::TxSelect(_) => self.select_tx(slot, number),
            Method::TxCommit(_) => self.commit(slot, number),
            Method::TxRollback(_) => self.rollback(slot, number),
            Method::ExchangeDeclare(_)
            | Method::ExchangeDelete(_)
            | Method::ExchangeBind(_)
            | Method::ExchangeUnbind(_) => self.handle_exchange_method(slot, number, method),
            Method::QueueDeclare(_)
            | Method::QueueBind(_)
            | Method::QueueUnbind(_)
            | Method::QueuePurge(_)
            | Method::QueueDelete(_) => self.handle_queue_method(slot, number, method),
            Method::ChannelOpen(_) | Method::ChannelClose(_) | Method::ChannelFlow(_) => {
                self.handle_channel_class(slot, number, method)
            }
            Method::ChannelCloseOk(_) => Ok(()),
            other => {
                let text = format!("{} is not for clients to send on a channel", other.name());
                Err(ConnectionException::new(ReplyCode::CommandInvalid, text).into())
            }
        }
    }

    fn set_qos(&mut self, slot: u32, number: u16, qos: &basic::Qos) -> Result<(), Exception> {
        if qos.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", qos.prefetch_size);
            return Err(ConnectionException::new(ReplyCode::NotImplemented, text).into());
        }
        let channel = self.channel_mut(slot, number);
        if qos.global {
            channel.prefetch_of_channel = qos.prefetch_count;
        } else {
            channel.prefetch_per_consumer = qos.prefetch_count;
        }
        self.send(slot, number, &Method::BasicQosOk(basic::QosOk {}));
        self.release_held_back(slot, number);
        Ok(())
    }

    fn consume(&mut self, slot: u32, number: u16, consume: &basic::Consume<'_>) -> Result<(), Exception> {
        if consume.queue == super::direct_reply::REPLY_TO_QUEUE {
            return self.consume_replies(slot, number, consume);
        }
        let name = self.queue_name(slot, number, consume.queue)?;
        self.require_named(slot, Action::Read, "queue", name.as_bytes())?;
        let definition = self.usable_queue(slot, &name)?;
        let settings = ConsumerSettings {
            priority: consumer_priority(&consume.arguments)?,
            exclusive: consume.exclusive,
            acknowledges: !consume.no_ack,
            credit: self.consumer_credit(slot, number, consume.no_ack),
        };
        let queue = Some(QueueHandle { home: definition.home, slot: u32::MAX, id: definition.id });
        let index = self.add_consumer(slot, number, consume, queue)?;
        let connection = self.connections.get(slot).expect("a method has a connection");
        let serial = connection.consumer_serial;
        let home = ConsumerHome {
            connection: connection.id,
            channel: number,
            index,
            serial,
            window_octets: i64::from(CONSUMER_WINDOW_OCTETS),
            is_held: false,
        };
        let then = Then::Consume { index };
        let awaiting = Awaiting { channel: number, method: basic::Consume::IDS, no_wait: consume.no_wait, then };
        self.ask_and_wait(slot, awaiting, &definition, QueueRequest::Consume { home, settings });
        Ok(())
    }

    /// How many deliveries a new consumer may have outstanding; `None` = as many as it likes.
    fn consumer_credit(&mut self, slot: u32, number: u16, no_ack: bool) -> Option<u32> {
        let prefetch = self.channel_mut(slot, number).prefetch_per_consumer;
        (!no_ack && prefetch > 0).then(|| u32::from(prefetch))
    }

    /// Notes a consumer; what its queue calls it is not known yet.
    pub(super) fn add_consumer(
        &mut self,
        slot: u32,
        number: u16,
        consume: &basic::Consume<'_>,
        queue: Option<QueueHandle>,
    ) -> Result<u32, Exception> {
        let tag: Box<[u8]> = if consume.consumer_tag.is_empty() {
            format!("amq.ctag-{}", self.generated_text()).into_bytes().into()
        } else {
            name_of(consume.consumer_tag)?.as_bytes().into()
        };
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        let channel = connection.channel(number).expect("a method has a channel");
        if channel.consumers.contains_key(&tag) {
            let text = format!("attempt to reuse consumer tag '{}'", String::from_utf8_lossy(&tag));
            return Err(ConnectionException::new(ReplyCode::NotAllowed, text).into());
        }
        if channel.consumers.len() >= CONSUMERS_PER_CHANNEL_MAX {
            let text = format!("a channel may have {CONSUMERS_PER_CHANNEL_MAX} consumers at most");
            return Err(ChannelException::new(ReplyCode::PreconditionFailed, text).into());
        }
        connection.consumer_serial += 1;
        let consumer = Consumer {
            channel: number,
            delivery_prefix: delivery_prefix(number, &tag),
            tag: tag.clone(),
            queue,
            key: ConsumerKey { slot: u32::MAX, generation: 0 },
            owed_octets: 0,
            hold: Hold::None,
            serial: connection.consumer_serial,
        };
        let index = connection.add_consumer(consumer);
        self.channel_mut(slot, number).consumers.insert(tag, index);
        Ok(index)
    }

    fn cancel(&mut self, slot: u32, number: u16, cancel: &basic::Cancel<'_>) {
        let index = self.channel_mut(slot, number).consumers.get(cancel.consumer_tag).copied();
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        let consumer = index.and_then(|index| connection.consumers[index as usize].as_ref());
        let (Some(index), Some(consumer)) = (index, consumer) else {
            // Whoever is not there need not be cancelled.
            let consumer_tag = cancel.consumer_tag;
            if !cancel.no_wait {
                self.send(slot, number, &Method::BasicCancelOk(basic::CancelOk { consumer_tag }));
            }
            return;
        };
        let (queue, key, asker) = (consumer.queue, consumer.key, connection.asker(number));
        let then = Then::Cancel { index, tag: consumer.tag.clone() };
        let awaiting = Awaiting { channel: number, method: basic::Cancel::IDS, no_wait: cancel.no_wait, then };
        self.await_answer(slot, awaiting);
        match queue {
            Some(queue) => self.ask_queue(asker, queue, QueueRequest::Cancel(key)),
            None => self.finish_cancel(slot),
        }
    }

    fn get(&mut self, slot: u32, number: u16, get: &basic::Get<'_>) -> Result<(), Exception> {
        let name = self.queue_name(slot, number, get.queue)?;
        self.require_named(slot, Action::Read, "queue", name.as_bytes())?;
        let definition = self.usable_queue(slot, &name)?;
        let awaiting = Awaiting { channel: number, method: basic::Get::IDS, no_wait: false, then: Then::Get };
        self.ask_and_wait(slot, awaiting, &definition, QueueRequest::Get { acknowledges: !get.no_ack });
        Ok(())
    }

    fn select_confirm(&mut self, slot: u32, number: u16, select: confirm::Select) -> Result<(), Exception> {
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        let confirms = connection.new_confirms();
        let channel = self.channel_mut(slot, number);
        match &channel.mode {
            Mode::Transactional { .. } => return Err(precondition("cannot switch from tx to confirm mode")),
            Mode::Plain => channel.mode = Mode::Confirm(confirms),
            Mode::Confirm(_) => {}
        }
        if !select.no_wait {
            self.send(slot, number, &Method::ConfirmSelectOk(confirm::SelectOk {}));
        }
        Ok(())
    }

    fn select_tx(&mut self, slot: u32, number: u16) -> Result<(), Exception> {
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        let commit = connection.new_confirms();
        let channel = self.channel_mut(slot, number);
        match &channel.mode {
            Mode::Confirm(_) => return Err(precondition("cannot switch from confirm to tx mode")),
            Mode::Plain => channel.mode = Mode::Transactional { pending: Transaction::default(), commit },
            Mode::Transactional { .. } => {}
        }
        self.send(slot, number, &Method::TxSelectOk(tx::SelectOk {}));
        Ok(())
    }

    pub(super) fn channel_mut(&mut self, slot: u32, number: u16) -> &mut Channel {
        let connection: &mut Connection = self.connections.get_mut(slot).expect("a method has a connection");
        connection.channel(number).expect("a method has a channel")
    }
}

pub(super) fn precondition(text: &str) -> Exception {
    ChannelException::new(ReplyCode::PreconditionFailed, text).into()
}

/// `x-priority` of `basic.consume`: higher ones are served first; 0 where there is none.
fn consumer_priority(arguments: &TableRef<'_>) -> Result<i32, Exception> {
    match arguments.get(b"x-priority") {
        None => Ok(0),
        Some(value) => match value_as_i32(&value) {
            Some(priority) => Ok(priority),
            None => Err(precondition("invalid arg 'x-priority' for consumer: it must be an integer")),
        },
    }
}

fn value_as_i32(value: &ValueRef<'_>) -> Option<i32> {
    i32::try_from(value.to_owned_value().as_i64()?).ok()
}

/// The start of `basic.deliver` up to the delivery tag, with the frame's size left zero.
fn delivery_prefix(channel: u16, tag: &[u8]) -> Box<[u8]> {
    let mut prefix = Vec::with_capacity(FRAME_HEADER_OCTETS + 5 + tag.len());
    prefix.push(FrameKind::Method as u8);
    prefix.extend_from_slice(&channel.to_be_bytes());
    prefix.extend_from_slice(&[0; 4]);
    let (class_id, method_id) = basic::Deliver::IDS;
    prefix.extend_from_slice(&class_id.to_be_bytes());
    prefix.extend_from_slice(&method_id.to_be_bytes());
    crate::protocol::wire::put_short_string(&mut prefix, tag);
    prefix.into()
}
