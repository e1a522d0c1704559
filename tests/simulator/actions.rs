//! What a client does next.

use crate::{
    channel::{Channel, ConsumerNote, How, Mode, Op, Pending},
    client::{Client, Stage},
    context::Context,
    faults::Mutation,
    ledger::{Message, body_of},
    topology::{BindingNote, DIRECT_KEYS, EXCHANGES, TOPIC_PATTERNS, TOPIC_WORDS},
    wire::Wire,
};
use lepus::protocol::{
    content::put_content,
    field_table::TableRef,
    field_value::{FieldTable, FieldValue},
    frame::{FrameKind, put_frame},
    method::{Method, basic, channel, confirm, connection, queue, tx},
    properties::Properties,
};
use std::collections::HashMap;

const CHANNELS: usize = 3;

impl Client {
    /// Does something, if it can.
    pub fn act(&mut self, context: &mut Context, wire: &mut Wire) {
        if self.stage != Stage::Running || self.out.len() > 600_000 {
            return;
        }
        if context.random.permille(4) {
            return self.act_badly(context, wire);
        }
        let number = u16::try_from(context.random.between(1, CHANNELS)).expect("few");
        let Some(state) = self.channels.get(&number) else {
            self.open(context, number);
            return;
        };
        let lets_publish = state.is_open && state.pending.as_ref().is_some_and(Pending::lets_publish);
        if !state.is_free() {
            if lets_publish && context.random.permille(self.publish_share) {
                self.publish(context, number);
            }
            return;
        }
        if context.random.permille(self.publish_share) {
            for _ in 0..context.random.pick(&[1, 1, 3, 10]) {
                self.publish(context, number);
            }
        } else if !self.channels[&number].outstanding.is_empty() && context.random.permille(600) {
            self.settle(context, number);
        } else {
            self.act_on_channel(context, number);
        }
    }

    fn act_badly(&mut self, context: &mut Context, wire: &mut Wire) {
        match context.random.below(10) {
            0..4 => self.vanish(context, wire),
            4 => {
                let close = connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
                self.close_connection(context, &Method::ConnectionClose(close));
            }
            5 => {
                // A frame of a kind that there is none of.
                self.append(vec![7, 0, 0, 0, 0, 0, 0, 0xCE]);
                self.note_leaving(context);
                self.stage = Stage::Closing;
                context.trace(|| format!("client {} sends rubbish", self.index));
                self.note_end();
            }
            _ => {
                let steps = context.random.pick(&[20, 200, 1000]);
                self.asleep_until = context.step + steps;
                context.trace(|| format!("client {} sleeps for {steps} steps", self.index));
            }
        }
    }

    pub fn close_connection(&mut self, context: &mut Context, method: &Method<'_>) {
        context.trace(|| format!("client {} closes its connection", self.index));
        self.send(0, method);
        self.note_leaving(context);
        self.stage = Stage::Closing;
        self.note_end();
    }

    /// With what was just sent every channel is over.
    fn note_end(&mut self) {
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            self.note(number, Op::Sync(Pending::Close));
        }
    }

    pub fn open(&mut self, context: &mut Context, number: u16) {
        let mode = context.random.pick(&[Mode::Plain, Mode::Confirm, Mode::Confirm, Mode::Transactional]);
        self.open_as(context, number, mode);
    }

    pub fn open_as(&mut self, context: &mut Context, number: u16, mode: Mode) {
        context.trace(|| format!("client {} opens channel {number} as {mode:?}", self.index));
        self.channels.insert(number, Channel::new(context.incarnation(), mode));
        self.send(number, &Method::ChannelOpen(channel::Open {}));
        self.note(number, Op::Sync(Pending::Open));
    }

    /// The channel is open: the mode is chosen.
    pub fn select(&mut self, context: &mut Context, number: u16) {
        match self.channels[&number].mode {
            Mode::Plain => {}
            Mode::Confirm => {
                self.ask(context, number, &Method::ConfirmSelect(confirm::Select { no_wait: false }), Pending::Select);
            }
            Mode::Transactional => self.ask(context, number, &Method::TxSelect(tx::Select {}), Pending::Select),
        }
    }

    fn act_on_channel(&mut self, context: &mut Context, number: u16) {
        match context.random.below(100) {
            0..30 => self.consume(context, number),
            30..38 => self.cancel(context, number),
            38..50 => self.get(context, number),
            50..60 => self.qos(context, number),
            60..64 => {
                self.ask(context, number, &Method::BasicRecover(basic::Recover { requeue: true }), Pending::Recover);
            }
            64..67 => self.close_channel(context, number),
            67..69 => self.misbehave(context, number),
            69..73 => self.declare(context, number),
            73..78 => self.bind(context, number),
            78..80 => self.unbind(context, number),
            80..81 => self.purge(context, number),
            81..83 => self.delete(context, number),
            _ if self.channels[&number].mode == Mode::Transactional => {
                if context.random.permille(750) {
                    self.ask(context, number, &Method::TxCommit(tx::Commit {}), Pending::Commit);
                } else {
                    self.ask(context, number, &Method::TxRollback(tx::Rollback {}), Pending::Rollback);
                }
            }
            _ => {}
        }
    }

    pub fn close_channel(&mut self, context: &mut Context, number: u16) {
        self.channels[&number].note_leaving(context);
        let close = channel::Close { reply_code: 200, reply_text: b"", class_id: 0, method_id: 0 };
        self.ask(context, number, &Method::ChannelClose(close), Pending::Close);
    }

    /// Makes the broker close the channel.
    fn misbehave(&mut self, context: &mut Context, number: u16) {
        self.channels[&number].note_leaving(context);
        let mut octets = Vec::new();
        let method = if context.random.permille(500) {
            Method::BasicAck(basic::Ack { delivery_tag: 1 << 40, multiple: context.random.permille(500) })
        } else {
            Method::BasicPublish(basic::Publish { exchange: b"nowhere", routing_key: b"", ..basic::Publish::default() })
        };
        if method.carries_content() {
            method.put(&mut octets, number);
            put_content(&mut octets, number, &[0, 0], b"", self.frame_max);
            self.append(octets);
            context.trace(|| format!("client {} channel {number} publishes to no exchange", self.index));
            self.channels.get_mut(&number).expect("open").pending = Some(Pending::Punishment);
            self.note(number, Op::Sync(Pending::Punishment));
        } else {
            self.ask(context, number, &method, Pending::Punishment);
        }
    }

    /// A queue that this client may use; now and then one that may be gone.
    fn choose_queue(&self, context: &mut Context) -> Option<usize> {
        let gone_too = context.random.permille(30);
        let queues = &context.ledger.topology.queues;
        let may_use = |queue: &crate::topology::QueueNote| {
            queue.is_declared
                && queue.exclusive_owner.is_none_or(|owner| owner == self.index)
                && (gone_too || !queue.may_be_gone)
        };
        let usable: Vec<usize> = (0..queues.len()).filter(|at| may_use(&queues[*at])).collect();
        if usable.is_empty() { None } else { Some(context.random.pick(&usable)) }
    }

    fn consume(&mut self, context: &mut Context, number: u16) {
        if self.channels[&number].consumers.len() >= 4 {
            return;
        }
        let Some(queue) = self.choose_queue(context) else { return };
        let no_ack = context.ledger.topology.queues[queue].allows_no_ack && context.random.permille(600);
        let is_exclusive = context.random.permille(40);
        self.consume_from(context, number, queue, no_ack, is_exclusive);
    }

    pub fn consume_from(&mut self, context: &mut Context, number: u16, queue: usize, no_ack: bool, is_exclusive: bool) {
        self.tags_given += 1;
        let tag = format!("c{}.{}", self.index, self.tags_given);
        let note = &mut context.ledger.topology.queues[queue];
        note.is_touched = true;
        let name = note.name.clone();
        let channel = self.channels.get_mut(&number).expect("it is open");
        let mut prefetch = if no_ack { 0 } else { channel.prefetch_per_consumer };
        if prefetch > 1 && context.strikes(Mutation::LowerPrefetch) {
            prefetch -= 1;
        }
        let consumer = ConsumerNote { queue, no_ack, prefetch, is_audit: false, last_sequence: HashMap::new() };
        channel.consumers.insert(tag.clone(), consumer);
        let method = basic::Consume {
            queue: name.as_bytes(),
            consumer_tag: tag.as_bytes(),
            no_local: false,
            no_ack,
            exclusive: is_exclusive,
            no_wait: false,
            arguments: TableRef::EMPTY,
        };
        context
            .trace(|| format!("client {} consumes {name} as {tag}, no_ack {no_ack}, prefetch {prefetch}", self.index));
        self.ask(context, number, &Method::BasicConsume(method), Pending::Consume(tag.clone()));
    }

    /// Consumes all that is in a queue, as the first to do so since the broker was started.
    pub fn audit(&mut self, context: &mut Context, number: u16, queue: usize) {
        self.consume_from(context, number, queue, false, false);
        let consumers = &mut self.channels.get_mut(&number).expect("it is open").consumers;
        consumers.values_mut().for_each(|consumer| consumer.is_audit = true);
    }

    fn cancel(&mut self, context: &mut Context, number: u16) {
        let tags: Vec<String> = self.channels[&number].consumers.keys().cloned().collect();
        if tags.is_empty() {
            return;
        }
        let tag = tags[context.random.below(tags.len())].clone();
        let queue = self.channels[&number].consumers[&tag].queue;
        let note = &mut context.ledger.topology.queues[queue];
        note.may_be_gone |= note.auto_delete;
        let cancel = basic::Cancel { consumer_tag: tag.as_bytes(), no_wait: false };
        self.ask(context, number, &Method::BasicCancel(cancel), Pending::Cancel(tag.clone()));
    }

    fn get(&mut self, context: &mut Context, number: u16) {
        let Some(queue) = self.choose_queue(context) else { return };
        let note = &mut context.ledger.topology.queues[queue];
        note.is_touched = true;
        let (name, allows_no_ack) = (note.name.clone(), note.allows_no_ack);
        let no_ack = allows_no_ack && context.random.permille(500);
        let get = Method::BasicGet(basic::Get { queue: name.as_bytes(), no_ack });
        self.ask(context, number, &get, Pending::Get { queue, no_ack });
    }

    fn qos(&mut self, context: &mut Context, number: u16) {
        let is_of_channel = context.random.permille(400);
        let count = context.random.pick(&[0, 1, 2, 3, 5, 20]);
        let qos = basic::Qos { prefetch_size: 0, prefetch_count: count, global: is_of_channel };
        self.ask(context, number, &Method::BasicQos(qos), Pending::Qos { count, is_of_channel });
    }

    fn declare(&mut self, context: &mut Context, number: u16) {
        if context.ledger.topology.queues.len() > 14 {
            return;
        }
        let is_exclusive = context.random.permille(500);
        let auto_delete = context.random.permille(400);
        let owner = is_exclusive.then_some(self.index);
        let allows_no_ack = context.random.permille(300);
        let is_durable = context.is_durable && !is_exclusive && context.random.permille(800);
        let queue = context.ledger.topology.add_queue(owner, auto_delete, allows_no_ack, is_durable);
        choose_priorities(context, queue);
        self.declare_queue(context, number, queue);
    }

    pub fn declare_queue(&mut self, context: &mut Context, number: u16, queue: usize) {
        let note = &context.ledger.topology.queues[queue];
        let (name, exclusive, auto_delete) = (note.name.clone(), note.exclusive_owner.is_some(), note.auto_delete);
        let mut table = FieldTable::default();
        if note.priority_max > 0 {
            table.insert("x-max-priority", FieldValue::U8(note.priority_max));
        }
        let octets = table.to_octets();
        let method = queue::Declare {
            queue: name.as_bytes(),
            passive: false,
            durable: note.is_durable,
            exclusive,
            auto_delete,
            no_wait: false,
            arguments: TableRef::new(&octets).expect("well-formed"),
        };
        self.ask(context, number, &Method::QueueDeclare(method), Pending::Declare(queue));
    }

    fn bind(&mut self, context: &mut Context, number: u16) {
        let Some(queue) = self.choose_queue(context) else { return };
        let exchange = context.random.between(1, EXCHANGES.len() - 1);
        self.bind_to(context, number, queue, exchange);
    }

    pub fn bind_to(&mut self, context: &mut Context, number: u16, queue: usize, exchange: usize) {
        let key = match exchange {
            2 => context.random.pick(&DIRECT_KEYS),
            3 => context.random.pick(&TOPIC_PATTERNS),
            _ => "",
        };
        let bindings = &mut context.ledger.topology.bindings;
        if bindings.iter().any(|other| other.queue == queue && other.exchange == exchange && other.key == key) {
            return;
        }
        let note = BindingNote { exchange, queue, key: key.into(), may_be: true, is_certain: false, is_leaving: false };
        bindings.push(note);
        let at = bindings.len() - 1;
        let name = context.ledger.topology.queues[queue].name.clone();
        let method = queue::Bind {
            queue: name.as_bytes(),
            exchange: EXCHANGES[exchange].0.as_bytes(),
            routing_key: key.as_bytes(),
            no_wait: false,
            arguments: TableRef::EMPTY,
        };
        context.trace(|| format!("client {} binds {name} to {} with '{key}'", self.index, EXCHANGES[exchange].0));
        self.ask(context, number, &Method::QueueBind(method), Pending::Bind(at));
    }

    fn unbind(&mut self, context: &mut Context, number: u16) {
        let topology = &context.ledger.topology;
        let is_own = |queue: usize| topology.queues[queue].exclusive_owner.is_none_or(|owner| owner == self.index);
        let candidates: Vec<usize> = (0..topology.bindings.len())
            .filter(|at| {
                let binding = &topology.bindings[*at];
                binding.is_certain && !binding.is_leaving && is_own(binding.queue)
            })
            .collect();
        if candidates.is_empty() {
            return;
        }
        let at = context.random.pick(&candidates);
        let binding = &mut context.ledger.topology.bindings[at];
        binding.is_leaving = true;
        let (key, exchange) = (binding.key.clone(), EXCHANGES[binding.exchange].0);
        let name = context.ledger.topology.queues[binding.queue].name.clone();
        let method = queue::Unbind {
            queue: name.as_bytes(),
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            arguments: TableRef::EMPTY,
        };
        self.ask(context, number, &Method::QueueUnbind(method), Pending::Unbind(at));
    }

    fn purge(&mut self, context: &mut Context, number: u16) {
        let Some(queue) = self.choose_queue(context) else { return };
        let note = &mut context.ledger.topology.queues[queue];
        note.purges += 1;
        let name = note.name.clone();
        let purge = queue::Purge { queue: name.as_bytes(), no_wait: false };
        self.ask(context, number, &Method::QueuePurge(purge), Pending::Purge(queue));
    }

    fn delete(&mut self, context: &mut Context, number: u16) {
        let Some(queue) = self.choose_queue(context) else { return };
        self.delete_queue(context, number, queue);
    }

    pub fn delete_queue(&mut self, context: &mut Context, number: u16, queue: usize) {
        let note = &mut context.ledger.topology.queues[queue];
        note.may_be_gone = true;
        let name = note.name.clone();
        let (if_unused, if_empty) = if context.is_healthy {
            (false, false)
        } else {
            (context.random.permille(200), context.random.permille(200))
        };
        let method = queue::Delete { queue: name.as_bytes(), if_unused, if_empty, no_wait: false };
        context.trace(|| format!("client {} deletes {name}", self.index));
        self.ask(context, number, &Method::QueueDelete(method), Pending::Delete);
    }

    /// Settles something that the channel holds.
    fn settle(&mut self, context: &mut Context, number: u16) {
        let channel = self.channels.get_mut(&number).expect("it is open");
        let open: Vec<u64> =
            channel.outstanding.iter().filter(|(_, held)| !held.is_settled).map(|(tag, _)| *tag).collect();
        if open.is_empty() {
            return;
        }
        let tag = context.random.pick(&open);
        let multiple = context.random.permille(400);
        let how = match context.random.below(10) {
            _ if context.is_healthy => How::Acknowledge,
            0 => How::Reject,
            1 | 2 => How::Requeue,
            _ => How::Acknowledge,
        };
        self.settle_tag(context, number, tag, multiple, how);
    }

    pub fn settle_tag(&mut self, context: &mut Context, number: u16, tag: u64, multiple: bool, how: How) {
        let is_single = !multiple && context.random.permille(500);
        let requeue = how == How::Requeue;
        let method = match how {
            How::Acknowledge => Method::BasicAck(basic::Ack { delivery_tag: tag, multiple }),
            _ if is_single => Method::BasicReject(basic::Reject { delivery_tag: tag, requeue }),
            _ => Method::BasicNack(basic::Nack { delivery_tag: tag, multiple, requeue }),
        };
        context.trace(|| format!("client {} channel {number}: {how:?} {tag}, multiple {multiple}", self.index));
        self.send(number, &method);
        let channel = self.channels.get_mut(&number).expect("it is open");
        let first = if multiple { 0 } else { tag };
        for (_, held) in channel.outstanding.range_mut(first..=tag) {
            held.is_settled = true;
        }
        self.note(number, Op::Settle { tag, multiple, how });
    }

    /// Acknowledges all that is held and commits, as long as something is left to do.
    pub fn finish(&mut self, context: &mut Context) {
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            let channel = &self.channels[&number];
            if !channel.is_free() {
                continue;
            }
            let last = channel.outstanding.iter().rev().find(|(_, held)| !held.is_settled).map(|(tag, _)| *tag);
            let is_transactional = channel.mode == Mode::Transactional;
            let holds = !channel.pending_settlements.is_empty() || !channel.pending_publishes.is_empty();
            if let Some(tag) = last {
                self.settle_tag(context, number, tag, true, How::Acknowledge);
            } else if is_transactional && holds {
                self.ask(context, number, &Method::TxCommit(tx::Commit {}), Pending::Commit);
            }
        }
    }

    fn publish(&mut self, context: &mut Context, number: u16) {
        let (exchange, key) = choose_target(context);
        let octets = match context.random.below(20) {
            6.. if context.is_heavy => context.random.between(8000, 40_960),
            0 => 0,
            1..10 => context.random.between(1, 64),
            10..15 => context.random.between(65, 1024),
            15..18 => context.random.between(1025, 8191),
            _ => context.random.between(8192, 40_960),
        };
        let is_mandatory = context.random.permille(200);
        let mut message = Message::new(exchange, &key, octets, is_mandatory);
        let id = context.ledger.next_id();
        (message.properties, message.is_persistent, message.priority) = choose_properties(context, id, octets);
        let channel = self.channels.get_mut(&number).expect("it is open");
        channel.sequence += 1;
        (message.publisher, message.sequence) = (channel.incarnation, channel.sequence);
        let confirm = (channel.mode == Mode::Confirm).then(|| {
            channel.confirm_last += 1;
            channel.confirms.insert(channel.confirm_last, (id, false));
            channel.confirm_last
        });
        let mut out = Vec::new();
        let method = basic::Publish {
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            mandatory: is_mandatory,
            immediate: false,
        };
        Method::BasicPublish(method).put(&mut out, number);
        let body = body_of(id, octets);
        let most = if context.random.permille(200) { 4096 } else { self.frame_max };
        if octets > 1 && context.random.permille(100) {
            put_in_pieces(context, &mut out, number, &message.properties, &body, most);
        } else {
            put_content(&mut out, number, &message.properties, &body, most);
        }
        context.trace(|| {
            let (who, mode) = (self.index, self.channels[&number].mode);
            format!("client {who} channel {number} ({mode:?}) publishes {id} to '{exchange}' '{key}', {octets} octets")
        });
        context.ledger.add_message(message);
        self.append(out);
        self.note(number, Op::Publish(id, confirm));
    }
}

/// A content with body frames that are smaller than they need be.
fn put_in_pieces(context: &mut Context, out: &mut Vec<u8>, number: u16, properties: &[u8], body: &[u8], most: usize) {
    lepus::protocol::content::put_content_header(out, number, properties, body.len() as u64);
    let mut at = 0;
    while at < body.len() {
        let end = (at + context.random.between(1, most - 8)).min(body.len());
        put_frame(out, FrameKind::Body, number, &body[at..end]);
        at = end;
    }
}

/// Some durable queues have priorities.
pub fn choose_priorities(context: &mut Context, queue: usize) {
    let has_priorities = context.ledger.topology.queues[queue].is_durable && context.random.permille(250);
    context.ledger.topology.queues[queue].priority_max = if has_priorities { 6 } else { 0 };
}

fn choose_target(context: &mut Context) -> (&'static str, String) {
    match context.random.below(10) {
        0..5 => {
            let count = context.ledger.topology.queues.len();
            let name = |at: usize| context.ledger.topology.queues[at].name.clone();
            let at = context.random.below(count + 1);
            ("", if at < count { name(at) } else { "nobody".into() })
        }
        5 | 6 => ("fan", "any".into()),
        7 => ("dir", context.random.pick(&DIRECT_KEYS).into()),
        _ => {
            let words: Vec<&str> =
                (0..context.random.between(1, 3)).map(|_| context.random.pick(&TOPIC_WORDS)).collect();
            ("top", words.join("."))
        }
    }
}

/// The raw properties; they carry the message's number if the body can't.
fn choose_properties(context: &mut Context, id: u64, octets: usize) -> (Vec<u8>, bool, u8) {
    let text = id.to_string();
    let is_durable = context.is_durable;
    let random = &mut context.random;
    let mut properties = Properties::default();
    if octets < 8 || random.permille(300) {
        properties.message_id = Some(text.as_bytes());
    }
    if is_durable && random.permille(900) {
        properties.delivery_mode = Some(2);
    } else if random.permille(300) {
        properties.delivery_mode = Some(random.pick(&[1, 2]));
    }
    if random.permille(100) {
        properties.content_type = Some(b"application/octet-stream");
    }
    if random.permille(if is_durable { 500 } else { 100 }) {
        properties.priority = Some(random.pick(&[0, 5, 9]));
    }
    let mut table = FieldTable::default();
    table.insert("x", FieldValue::LongString(text.clone().into_bytes()));
    let octets = table.to_octets();
    if random.permille(150) {
        properties.headers = TableRef::new(&octets).ok();
    }
    let mut raw = Vec::new();
    properties.encode(&mut raw);
    (raw, properties.delivery_mode == Some(2), properties.priority.unwrap_or(0))
}
