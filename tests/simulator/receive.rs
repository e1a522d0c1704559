//! What a client makes of what the broker sends; most violations are noticed here.

use crate::{
    channel::{Channel, Held, Incoming, Mode, Pending},
    client::{Client, Stage},
    context::Context,
    faults::Mutation,
    ledger::{DeliveryNote, Received},
    ring::message_id,
};
use lepus::protocol::{
    frame::{FrameKind, take_frame},
    method::{Method, channel, connection},
    properties::content_header,
};

/// The least that a broker's frame-max is before it is negotiated, in octets.
const FRAME_MAX_BEFORE: usize = 131_072;

impl Client {
    /// Handles all whole frames that have arrived.
    pub fn handle_input(&mut self, context: &mut Context) {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while !matches!(self.stage, Stage::Idle | Stage::Gone) {
            let frame_max = if self.stage == Stage::Handshake { FRAME_MAX_BEFORE } else { self.frame_max };
            match take_frame(&input[at..], frame_max) {
                Ok(Some((frame, size))) => {
                    at += size;
                    self.handle_frame(context, frame.kind, frame.channel, frame.payload);
                }
                Ok(None) => break,
                Err(exception) => {
                    context.violation(format!("client {} got a broken frame: {}", self.index, exception.text));
                    at = input.len();
                    break;
                }
            }
        }
        self.input = input[at..].to_vec();
    }

    fn handle_frame(&mut self, context: &mut Context, kind: FrameKind, number: u16, payload: &[u8]) {
        match kind {
            FrameKind::Heartbeat => {}
            FrameKind::Method => self.handle_method(context, number, payload),
            FrameKind::Header | FrameKind::Body => {
                let Some(channel) = self.channels.get_mut(&number) else {
                    return self.complain(context, number, "content on a channel that is closed");
                };
                let Some(incoming) = channel.incoming.as_mut() else {
                    return self.complain(context, number, "content without a method");
                };
                if kind == FrameKind::Header {
                    let header = content_header(payload).expect("the broker writes proper headers");
                    incoming.properties = header.properties.to_vec();
                    incoming.body_octets = usize::try_from(header.body_size).expect("it is small");
                    incoming.has_header = true;
                } else {
                    incoming.body.extend_from_slice(payload);
                }
                if incoming.has_header && incoming.body.len() >= incoming.body_octets {
                    let Incoming { method, properties, body, .. } = channel.incoming.take().expect("it was just there");
                    self.handle_content(context, number, method, properties, body);
                }
            }
        }
    }

    fn complain(&self, context: &mut Context, number: u16, what: &str) {
        context.violation(format!("client {} channel {number}: {what}", self.index));
    }

    fn handle_method(&mut self, context: &mut Context, number: u16, payload: &[u8]) {
        let method = Method::decode(payload).expect("the broker writes proper methods");
        if number == 0 {
            return self.handle_connection_method(context, &method);
        }
        if self.stage == Stage::Closing && !method.carries_content() {
            return;
        }
        let Some(channel) = self.channels.get_mut(&number) else {
            let what = format!("{} on a channel that is closed", method.name());
            return self.complain(context, number, &what);
        };
        if method.carries_content() {
            channel.incoming = Some(Incoming {
                method: payload.to_vec(),
                properties: Vec::new(),
                body_octets: 0,
                has_header: false,
                body: Vec::new(),
            });
            return;
        }
        match method {
            Method::BasicAck(ack) => self.handle_confirm(context, number, ack.delivery_tag, ack.multiple, true),
            Method::BasicNack(nack) => self.handle_confirm(context, number, nack.delivery_tag, nack.multiple, false),
            Method::BasicCancel(cancel) => {
                let tag = String::from_utf8_lossy(cancel.consumer_tag).into_owned();
                match channel.consumers.remove(&tag) {
                    Some(consumer) if context.ledger.topology.queues[consumer.queue].may_be_gone => {}
                    _ => self.complain(context, number, "a consumer was cancelled without a reason"),
                }
            }
            Method::ChannelClose(close) => {
                let text = String::from_utf8_lossy(close.reply_text).into_owned();
                self.handle_channel_close(context, number, &text);
            }
            _ => self.handle_answer(context, number, &method),
        }
    }

    fn handle_connection_method(&mut self, context: &mut Context, method: &Method<'_>) {
        match method {
            Method::ConnectionStart(_) => {
                let wants_all = context.random.permille(800);
                self.start_ok(wants_all);
            }
            Method::ConnectionTune(_) => self.tune_ok(),
            Method::ConnectionOpenOk(_) => {
                self.stage = Stage::Running;
                context.activity += 1;
            }
            Method::ConnectionClose(close) => {
                let is_expected = self.stage == Stage::Closing || close.reply_code == 320;
                if !is_expected {
                    let text = String::from_utf8_lossy(close.reply_text);
                    context.violation(format!("client {} was closed: {text}", self.index));
                }
                if self.stage != Stage::Closing {
                    self.note_leaving(context);
                }
                self.stage = Stage::Closing;
                self.send(0, &Method::ConnectionCloseOk(connection::CloseOk {}));
            }
            Method::ConnectionBlocked(blocked) => {
                context.ledger.blocked_by_disk += u64::from(blocked.reason.ends_with(b"disk"));
            }
            _ => {}
        }
    }

    fn handle_channel_close(&mut self, context: &mut Context, number: u16, text: &str) {
        context.trace(|| format!("client {} channel {number} is closed: {text}", self.index));
        let mut channel = self.channels.remove(&number).expect("the caller found it");
        let is_expected = match &channel.pending {
            Some(Pending::Punishment) => true,
            // Somebody else may have deleted the queue, have the exclusive right, or use it.
            Some(pending) => {
                pending.may_fail()
                    && ["NOT_FOUND", "RESOURCE_LOCKED", "in exclusive use", "in use", "not empty"]
                        .iter()
                        .any(|reason| text.contains(reason))
            }
            None => false,
        };
        if !is_expected {
            let what = format!("the channel was closed: {text}, waiting for {:?}", channel.pending);
            self.complain(context, number, &what);
        }
        channel.is_void = true;
        channel.forget(context);
        self.send(number, &Method::ChannelCloseOk(channel::CloseOk {}));
    }

    fn handle_answer(&mut self, context: &mut Context, number: u16, method: &Method<'_>) {
        context.activity += 1;
        context.trace(|| format!("client {} channel {number} gets {}", self.index, method.name()));
        let channel = self.channels.get_mut(&number).expect("the caller found it");
        let Some(pending) = channel.pending.take() else {
            let what = format!("{} answers nothing", method.name());
            return self.complain(context, number, &what);
        };
        context.ledger.uncertain_channels.remove(&channel.incarnation);
        match (pending, method) {
            (Pending::Open, Method::ChannelOpenOk(_)) => {
                channel.is_open = true;
                self.select(context, number);
            }
            (Pending::Declare(queue), Method::QueueDeclareOk(_)) => {
                context.ledger.topology.queues[queue].is_declared = true;
            }
            (Pending::Bind(at), Method::QueueBindOk(_)) => context.ledger.topology.bindings[at].is_certain = true,
            (Pending::Unbind(at), Method::QueueUnbindOk(_)) => context.ledger.topology.bindings[at].may_be = false,
            (Pending::Cancel(tag), Method::BasicCancelOk(_)) => {
                channel.consumers.remove(&tag);
            }
            (Pending::Purge(queue), Method::QueuePurgeOk(_)) => {
                context.ledger.purged(queue);
                context.ledger.topology.queues[queue].purges -= 1;
            }
            (Pending::Qos { count, is_of_channel }, Method::BasicQosOk(_)) => {
                if is_of_channel {
                    channel.prefetch_of_channel = count;
                    if count > 1 && context.strikes(Mutation::LowerChannelPrefetch) {
                        channel.prefetch_of_channel -= 1;
                    }
                } else {
                    channel.prefetch_per_consumer = count;
                }
            }
            (Pending::Commit, Method::TxCommitOk(_)) => {
                for id in std::mem::take(&mut channel.committing) {
                    context.ledger.confirmed(id);
                }
            }
            (Pending::Recover, Method::BasicRecoverOk(_)) => channel.is_void = false,
            (Pending::Close, Method::ChannelCloseOk(_)) => {
                let channel = self.channels.remove(&number).expect("the caller found it");
                channel.forget(context);
            }
            (Pending::Select, Method::ConfirmSelectOk(_) | Method::TxSelectOk(_))
            | (Pending::Other, Method::ExchangeDeclareOk(_) | Method::ExchangeBindOk(_))
            | (Pending::Consume(_), Method::BasicConsumeOk(_))
            | (Pending::Get { .. }, Method::BasicGetEmpty(_))
            | (Pending::Delete, Method::QueueDeleteOk(_))
            | (Pending::Rollback, Method::TxRollbackOk(_)) => {}
            (pending, method) => {
                let what = format!("{pending:?} was answered with {}", method.name());
                self.complain(context, number, &what);
            }
        }
    }

    fn handle_confirm(&mut self, context: &mut Context, number: u16, tag: u64, multiple: bool, accepted: bool) {
        if context.strikes(Mutation::LoseConfirm) {
            return;
        }
        self.take_confirm(context, number, tag, multiple, accepted);
        if context.strikes(Mutation::DuplicateConfirm) {
            self.take_confirm(context, number, tag, multiple, accepted);
        }
    }

    fn take_confirm(&mut self, context: &mut Context, number: u16, tag: u64, multiple: bool, accepted: bool) {
        context.activity += 1;
        let channel = self.channels.get_mut(&number).expect("the caller found it");
        if matches!(channel.pending, Some(Pending::Close | Pending::Punishment)) {
            return;
        }
        let first = if multiple { 0 } else { tag };
        let tags: Vec<u64> = channel.confirms.range(first..=tag).map(|(tag, _)| *tag).collect();
        let mut complaints = Vec::new();
        if tags.is_empty() {
            complaints.push(format!("confirm {tag} (multiple: {multiple}) confirms nothing"));
        }
        if !accepted {
            complaints.push(format!("publish {tag} was refused"));
        }
        for tag in tags {
            let (id, is_processed) = channel.confirms.remove(&tag).expect("it was just seen");
            context.ledger.confirms += 1;
            context.ledger.confirmed(id);
            if !is_processed {
                complaints.push(format!("publish {tag} was confirmed before the broker had read it"));
            }
            if let Some(copies) = context.under_way.get(&id) {
                complaints
                    .push(format!("publish {tag} (message {id}) was confirmed while {copies} copies are under way"));
            }
            let is_returned = context.ledger.message(id).is_some_and(|message| message.is_returned);
            if context.ledger.must_be_returned(id) && !is_returned {
                complaints.push(format!("message {id} was confirmed and not returned"));
            }
        }
        for what in complaints {
            self.complain(context, number, &what);
        }
    }

    fn handle_content(
        &mut self,
        context: &mut Context,
        number: u16,
        method: Vec<u8>,
        properties: Vec<u8>,
        mut body: Vec<u8>,
    ) {
        context.activity += 1;
        if body.len() > 8 && context.strikes(Mutation::CorruptBody) {
            body[8] ^= 1;
        }
        let channel = self.channels.get_mut(&number).expect("the caller found it");
        let is_delivery = matches!(Method::decode(&method), Ok(Method::BasicDeliver(_)));
        if is_delivery && !channel.is_void {
            if let Some(first) = channel.swapped.take() {
                let (earlier, later) = with_tags_swapped(&first.0, &method);
                self.take_content(context, number, &earlier, &properties, &body);
                self.take_content(context, number, &later, &first.1, &first.2);
                return;
            }
            if context.strikes(Mutation::SwapDeliveries) {
                channel.swapped = Some((method, properties, body));
                return;
            }
        }
        self.take_content(context, number, &method, &properties, &body);
        if is_delivery && context.strikes(Mutation::DuplicateDelivery) {
            self.channels.get_mut(&number).expect("the caller found it").tag_last -= 1;
            self.take_content(context, number, &method, &properties, &body);
        }
    }

    fn take_content(&mut self, context: &mut Context, number: u16, method: &[u8], properties: &[u8], body: &[u8]) {
        let method = Method::decode(method).expect("it was read before");
        let (exchange, routing_key) = match &method {
            Method::BasicDeliver(deliver) => (deliver.exchange, deliver.routing_key),
            Method::BasicGetOk(got) => (got.exchange, got.routing_key),
            Method::BasicReturn(returned) => (returned.exchange, returned.routing_key),
            other => unreachable!("{} carries no content", other.name()),
        };
        let received = Received { exchange, routing_key, properties, body };
        let Some(id) = message_id(properties, body) else {
            return self.complain(context, number, "a message without its number");
        };
        if let Some(what) = context.ledger.check_content(id, &received) {
            let what = format!("{} of message {id}: {what}", method.name());
            return self.complain(context, number, &what);
        }
        match method {
            Method::BasicDeliver(deliver) => {
                let tag = String::from_utf8_lossy(deliver.consumer_tag).into_owned();
                self.take_delivery(context, number, &tag, deliver.delivery_tag, deliver.redelivered, id);
            }
            Method::BasicGetOk(got) => self.take_got(context, number, got.delivery_tag, got.redelivered, id),
            _ => {
                context.trace(|| format!("client {} channel {number}: {id} is returned", self.index));
                if let Err(what) = context.ledger.returned(id) {
                    self.complain(context, number, &what);
                }
            }
        }
    }

    fn take_delivery(
        &mut self,
        context: &mut Context,
        number: u16,
        consumer_tag: &str,
        tag: u64,
        redelivered: bool,
        id: u64,
    ) {
        let channel = self.channels.get_mut(&number).expect("the caller found it");
        context.trace(|| {
            let (who, void) = (self.index, if channel.is_void { ", void" } else { "" });
            format!("client {who} channel {number} {consumer_tag}: tag {tag} is message {id}, redelivered {redelivered}{void}")
        });
        let mut complaints = Vec::new();
        if tag != channel.tag_last + 1 {
            complaints.push(format!("tag {tag} follows {}", channel.tag_last));
        }
        channel.tag_last = tag;
        let is_closing = channel.is_void || self.stage == Stage::Closing;
        if !is_closing && channel.pending == Some(Pending::Consume(consumer_tag.to_owned())) {
            complaints.push("a delivery came before consume-ok".into());
        }
        let (mut is_void, incarnation) = (channel.is_void, channel.incarnation);
        match channel.consumers.get_mut(consumer_tag) {
            None if is_void => {}
            None => complaints.push(format!("a delivery came to {consumer_tag}, which is no consumer")),
            Some(consumer) => {
                // What needs no acknowledgement is not put back by `basic.recover`.
                is_void &= !(consumer.no_ack && channel.pending == Some(Pending::Recover));
                let (queue, no_ack, prefetch) = (consumer.queue, consumer.no_ack, usize::from(consumer.prefetch));
                let note = DeliveryNote { queue, id, redelivered, is_void, channel: incarnation, is_held: !no_ack };
                complaints.extend(context.ledger.delivered(&note).err());
                let note = &context.ledger.topology.queues[queue];
                if consumer.is_audit && redelivered && !note.was_touched {
                    complaints
                        .push(format!("message {id} comes back redelivered, and nobody ever consumed {}", note.name));
                }
                if (!redelivered || consumer.is_audit) && !is_void {
                    let message = context.ledger.message(id).expect("its content was checked");
                    let before = consumer.last_sequence.insert(message.publisher, message.sequence);
                    if before.is_some_and(|before| before >= message.sequence) {
                        complaints.push(format!(
                            "message {id}, number {} of its channel, came after number {}",
                            message.sequence,
                            before.unwrap_or(0)
                        ));
                    }
                }
                if !no_ack && !is_void {
                    complaints.extend(channel.check_prefetch(consumer_tag, prefetch));
                    let consumer = Some(consumer_tag.to_owned());
                    channel.outstanding.insert(tag, Held { queue, id, consumer, is_settled: false });
                }
            }
        }
        for what in complaints {
            self.complain(context, number, &what);
        }
    }

    fn take_got(&mut self, context: &mut Context, number: u16, tag: u64, redelivered: bool, id: u64) {
        let channel = self.channels.get_mut(&number).expect("the caller found it");
        context.trace(|| format!("client {} channel {number} gets message {id} as {tag}", self.index));
        let mut complaints = Vec::new();
        if tag != channel.tag_last + 1 {
            complaints.push(format!("tag {tag} follows {}", channel.tag_last));
        }
        channel.tag_last = tag;
        let (is_void, incarnation) = (channel.is_void, channel.incarnation);
        if let Some(Pending::Get { queue, no_ack }) = channel.pending.clone() {
            channel.pending = None;
            context.ledger.uncertain_channels.remove(&incarnation);
            let note = DeliveryNote { queue, id, redelivered, is_void, channel: incarnation, is_held: !no_ack };
            complaints.extend(context.ledger.delivered(&note).err());
            if !no_ack && !is_void {
                channel.outstanding.insert(tag, Held { queue, id, consumer: None, is_settled: false });
            }
        } else if !is_void {
            complaints.push("get-ok answers nothing".into());
        }
        for what in complaints {
            self.complain(context, number, &what);
        }
    }
}

/// The second of two deliveries with the tag of the first, and the first with the tag of the second.
fn with_tags_swapped(first: &[u8], second: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (Ok(Method::BasicDeliver(mut one)), Ok(Method::BasicDeliver(mut two))) =
        (Method::decode(first), Method::decode(second))
    else {
        unreachable!("both were read before");
    };
    std::mem::swap(&mut one.delivery_tag, &mut two.delivery_tag);
    let (mut earlier, mut later) = (Vec::new(), Vec::new());
    Method::BasicDeliver(two).encode(&mut earlier);
    Method::BasicDeliver(one).encode(&mut later);
    (earlier, later)
}

impl Channel {
    /// One more is going to be held: whether that is one too many.
    fn check_prefetch(&self, consumer_tag: &str, prefetch: usize) -> Option<String> {
        let of_consumer =
            self.outstanding.values().filter(|held| held.consumer.as_deref() == Some(consumer_tag)).count();
        if prefetch > 0 && of_consumer >= prefetch {
            return Some(format!(
                "{consumer_tag} holds {of_consumer} and gets one more; its prefetch count is {prefetch}"
            ));
        }
        let limit = usize::from(self.prefetch_of_channel);
        if limit > 0 && self.outstanding.len() >= limit && self.mode != Mode::Transactional {
            return Some(format!(
                "the channel holds {} and gets one more; its limit is {limit}",
                self.outstanding.len()
            ));
        }
        None
    }
}
