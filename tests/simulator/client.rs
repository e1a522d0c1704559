//! One client: its connection, and what it sends. Whatever it sends is noted, to take effect when the broker has read it.

use crate::{
    channel::{Channel, Op, Pending},
    context::Context,
    wire::{Wire, activity},
};
use lepus::protocol::{
    field_table::TableRef,
    field_value::{FieldTable, FieldValue},
    frame::{FrameKind, put_frame},
    method::{Method, connection},
};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is no connection.
    Idle,
    /// Logging in.
    Handshake,
    Running,
    /// The client has sent `connection.close`, or something that the broker ends the connection for.
    Closing,
    /// The client is gone; the broker may not have noticed.
    Gone,
}

pub struct Client {
    pub index: usize,
    pub stage: Stage,
    pub wire: usize,
    /// What it has to send and has not.
    pub out: Vec<u8>,
    /// Octets that were ever put into `out` for this connection.
    noted: u64,
    ops: VecDeque<(u64, u16, u64, Op)>,
    pub input: Vec<u8>,
    pub channels: BTreeMap<u16, Channel>,
    pub asleep_until: u64,
    pub frame_max: usize,
    pub heartbeat_seconds: u16,
    pub wrote_at: u64,
    /// The broker may end the connection.
    pub may_be_dropped: bool,
    pub tags_given: u64,
    /// How much it writes and reads at once, in octets.
    pub gulp: usize,
    /// How many of a thousand actions are publishes.
    pub publish_share: u64,
}

impl Client {
    pub fn new(context: &mut Context, index: usize) -> Self {
        let random = &mut context.random;
        Self {
            index,
            stage: Stage::Idle,
            wire: usize::MAX,
            out: Vec::new(),
            noted: 0,
            ops: VecDeque::new(),
            input: Vec::new(),
            channels: BTreeMap::new(),
            asleep_until: 0,
            frame_max: 0,
            heartbeat_seconds: 0,
            wrote_at: 0,
            may_be_dropped: false,
            tags_given: 0,
            gulp: random.pick(&[40, 2000, 20_000, 200_000]),
            publish_share: random.pick(&[50, 300, 500, 800]),
        }
    }

    /// Starts a new connection over a new wire.
    pub fn connect(&mut self, context: &mut Context, wire: usize) {
        assert!(self.stage == Stage::Idle && self.channels.is_empty(), "it is connected");
        self.wire = wire;
        self.stage = Stage::Handshake;
        self.noted = 0;
        self.ops.clear();
        self.out.clear();
        self.input.clear();
        self.may_be_dropped = false;
        self.wrote_at = context.now;
        self.frame_max = context.random.pick(&[4096, 4096, 8192, 20_000, 131_072]);
        self.heartbeat_seconds = if context.random.permille(500) { 0 } else { context.random.pick(&[2, 5, 20]) };
        self.append(lepus::protocol::frame::SUPPORTED_HEADER.to_vec());
        context.trace(|| format!("client {} connects over wire {wire}", self.index));
    }

    pub fn append(&mut self, octets: Vec<u8>) {
        self.noted += octets.len() as u64;
        self.out.extend(octets);
    }

    pub fn send(&mut self, channel: u16, method: &Method<'_>) {
        let mut octets = Vec::new();
        method.put(&mut octets, channel);
        self.append(octets);
    }

    /// Notes what was just sent.
    pub fn note(&mut self, number: u16, op: Op) {
        let incarnation = self.channels[&number].incarnation;
        self.ops.push_back((self.noted, number, incarnation, op));
    }

    /// Sends a method that is answered.
    pub fn ask(&mut self, context: &mut Context, number: u16, method: &Method<'_>, pending: Pending) {
        context.trace(|| format!("client {} channel {number} asks {} {pending:?}", self.index, method.name()));
        self.send(number, method);
        let channel = self.channels.get_mut(&number).expect("it is open");
        assert!(channel.pending.is_none() || pending == Pending::Close, "one thing after the other");
        channel.pending = Some(pending.clone());
        self.note(number, Op::Sync(pending));
    }

    /// The broker has read so many octets.
    pub fn handle_used(&mut self, context: &mut Context, used: u64) {
        while self.ops.front().is_some_and(|(end, ..)| *end <= used) {
            let (_, number, incarnation, op) = self.ops.pop_front().expect("it was just seen");
            if let Some(channel) = self.channels.get_mut(&number)
                && channel.incarnation == incarnation
            {
                channel.apply(context, op);
            }
        }
    }

    /// The broker has given the connection up.
    pub fn handle_disconnected(&mut self, context: &mut Context) {
        context.trace(|| format!("client {} has lost its connection", self.index));
        if matches!(self.stage, Stage::Running | Stage::Handshake) && !self.may_be_dropped {
            context.violation(format!("the broker dropped client {} without a reason", self.index));
        }
        for (_, channel) in std::mem::take(&mut self.channels) {
            channel.forget(context);
        }
        for queue in &mut context.ledger.topology.queues {
            queue.may_be_gone |= queue.exclusive_owner == Some(self.index);
        }
        self.stage = Stage::Idle;
        self.ops.clear();
        self.out.clear();
    }

    /// The broker has ended. What had reached the client was read.
    pub fn cut(&mut self, context: &mut Context) {
        for (_, channel) in std::mem::take(&mut self.channels) {
            channel.forget(context);
        }
        self.stage = Stage::Idle;
        self.wire = usize::MAX;
        self.ops.clear();
        self.out.clear();
        self.input.clear();
    }

    /// The client vanishes, perhaps in the middle of what it was sending.
    pub fn vanish(&mut self, context: &mut Context, wire: &mut Wire) {
        let written = context.random.below(self.out.len() + 1);
        wire.to_broker.extend(self.out.drain(..written));
        if context.random.permille(500) {
            wire.to_broker.truncate(context.random.below(wire.to_broker.len() + 1));
        }
        wire.client_is_gone = true;
        wire.to_client.clear();
        self.out.clear();
        self.stage = Stage::Gone;
        context.trace(|| format!("client {} vanishes", self.index));
        self.note_leaving(context);
    }

    /// All that the connection holds is going to be given back.
    pub fn note_leaving(&mut self, context: &mut Context) {
        for channel in self.channels.values() {
            channel.note_leaving(context);
        }
        for queue in &mut context.ledger.topology.queues {
            queue.may_be_gone |= queue.exclusive_owner == Some(self.index);
        }
    }

    /// Writes some of what is to be sent.
    pub fn write(&mut self, context: &mut Context, wire: &mut Wire) {
        if wire.broker_is_gone || self.stage == Stage::Gone {
            return;
        }
        let interval = u64::from(self.heartbeat_seconds) * 1000;
        if interval > 0
            && self.stage == Stage::Running
            && self.out.is_empty()
            && context.now > self.wrote_at + interval / 3
        {
            let mut heartbeat = Vec::new();
            put_frame(&mut heartbeat, FrameKind::Heartbeat, 0, &[]);
            self.append(heartbeat);
        }
        if self.out.is_empty() {
            return;
        }
        let most = if context.is_healthy { usize::MAX } else { context.random.between(1, self.gulp) };
        let octets = most.min(self.out.len());
        wire.to_broker.extend(self.out.drain(..octets));
        context.activity += activity(octets);
        self.wrote_at = context.now;
    }

    /// Reads some of what is there.
    pub fn read(&mut self, context: &mut Context, wire: &mut Wire) {
        let most = if context.is_healthy { usize::MAX } else { context.random.between(1, self.gulp) };
        let octets = most.min(wire.to_client.len());
        self.input.extend(wire.to_client.drain(..octets));
        context.activity += activity(octets);
    }

    /// Whether it sleeps: neither reads nor writes.
    pub fn is_asleep(&mut self, context: &Context) -> bool {
        if self.asleep_until > context.step && !context.is_healthy {
            let interval = u64::from(self.heartbeat_seconds) * 1000;
            self.may_be_dropped |= interval > 0 && context.now > self.wrote_at + interval;
            return true;
        }
        false
    }

    pub fn start_ok(&mut self, wants_all: bool) {
        let mut capabilities = FieldTable::default();
        for name in ["consumer_cancel_notify", "connection.blocked", "basic.nack", "authentication_failure_close"] {
            capabilities.insert(name, FieldValue::Bool(wants_all));
        }
        let mut properties = FieldTable::default();
        properties.insert("capabilities", FieldValue::Table(capabilities));
        let octets = properties.to_octets();
        let client_properties = TableRef::new(&octets).expect("well-formed");
        let method = connection::StartOk {
            client_properties,
            mechanism: b"PLAIN",
            response: b"\0guest\0guest",
            locale: b"en_US",
        };
        self.send(0, &Method::ConnectionStartOk(method));
    }

    pub fn tune_ok(&mut self) {
        let method = connection::TuneOk {
            channel_max: 100,
            frame_max: u32::try_from(self.frame_max).expect("it is small"),
            heartbeat: self.heartbeat_seconds,
        };
        self.send(0, &Method::ConnectionTuneOk(method));
        self.send(0, &Method::ConnectionOpen(connection::Open { virtual_host: b"/" }));
    }

    /// What the client still waits for, if it does.
    pub fn waits_for(&self) -> Option<String> {
        if matches!(self.stage, Stage::Idle | Stage::Gone) {
            return None;
        }
        if self.stage != Stage::Running {
            return Some(format!("client {} is {:?}", self.index, self.stage));
        }
        if !self.out.is_empty() || !self.ops.is_empty() {
            return Some(format!("client {}: {} things are unread", self.index, self.ops.len()));
        }
        for (number, channel) in &self.channels {
            let who = format!("client {} channel {number}", self.index);
            if let Some(pending) = &channel.pending {
                return Some(format!("{who} waits for {pending:?}"));
            }
            if let Some((confirm, (id, _))) = channel.confirms.first_key_value() {
                return Some(format!("{who} waits for confirm {confirm} of message {id}"));
            }
            if !channel.outstanding.is_empty() || !channel.pending_settlements.is_empty() {
                return Some(format!("{who} holds {} deliveries", channel.outstanding.len()));
            }
        }
        None
    }
}
