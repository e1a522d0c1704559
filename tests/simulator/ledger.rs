//! The books on every message: where it went, who saw it, what became of it. Whatever does not add up is a violation.

use crate::topology::Topology;
use std::collections::{BTreeMap, HashSet};

pub type MessageId = u64;
/// Index into the queues of the topology.
pub type QueueIndex = usize;

/// Whether a publish was handled by the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The client has sent it, or means to.
    Sent,
    /// The broker has read all of it (and, in a transaction, the commit).
    Processed,
    /// It never counted: rolled back.
    RolledBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// In the queue, or on its way into it or out of it.
    Waiting,
    /// A client has it on the channel with this incarnation and has not settled it.
    Held(u64),
    /// Settled, or delivered without acknowledgement.
    Done(&'static str),
}

/// One message in one queue.
pub struct Copy {
    /// Whether it must be there.
    is_certain: bool,
    state: CopyState,
    /// Channels that hold it if the one in `state` turns out to have been closed before it read the delivery.
    rivals: Vec<u64>,
    /// Whether a client has seen it.
    is_seen: bool,
    /// Deliveries without `redelivered`.
    fresh_deliveries: u32,
    /// A purge may have taken it.
    may_be_lost: bool,
    /// It is gone for good: no restart of the broker brings it back.
    is_over: bool,
}

/// What becomes of a queue when the broker ends.
pub struct Survival {
    /// It is there afterwards.
    pub is_there: bool,
    /// Messages may be missing: it was being deleted or purged, or somebody got some without acknowledgement.
    pub is_at_risk: bool,
}

pub struct Message {
    pub exchange: String,
    pub routing_key: String,
    pub properties: Vec<u8>,
    pub body_octets: usize,
    /// Incarnation of the channel that published it, and the number on that channel.
    pub publisher: u64,
    pub sequence: u64,
    pub is_persistent: bool,
    /// The publisher was told that the broker has it.
    pub is_confirmed: bool,
    pub is_mandatory: bool,
    pub is_returned: bool,
    pub fate: Fate,
    copies: BTreeMap<QueueIndex, Copy>,
}

/// A message as a client has received it.
pub struct Received<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub properties: &'a [u8],
    pub body: &'a [u8],
}

/// A delivery as the ledger sees it.
pub struct DeliveryNote {
    pub queue: QueueIndex,
    pub id: MessageId,
    pub redelivered: bool,
    /// The channel had been closed, or its deliveries put back, before this was read: it changes nothing any more.
    pub is_void: bool,
    /// Incarnation of the channel.
    pub channel: u64,
    /// Whether it is to be acknowledged.
    pub is_held: bool,
}

#[derive(Default)]
pub struct Ledger {
    pub topology: Topology,
    messages: Vec<Message>,
    pub violations: Vec<String>,
    /// Channels that the broker may have closed already: what they hold may be delivered to others.
    pub uncertain_channels: HashSet<u64>,
    pub acknowledged: u64,
    pub deliveries: u64,
    pub confirms: u64,
    /// How often the broker has been started again.
    pub restarts: u64,
    /// Starts that damage was refused at.
    pub refusals: u64,
    /// How often a client was told to wait for the disk.
    pub blocked_by_disk: u64,
    /// Sums up what happened, to see that a seed gives the same run each time.
    pub digest: u64,
}

/// The body of a message: its number first if there is room, then octets that follow from it.
pub fn body_of(id: MessageId, octets: usize) -> Vec<u8> {
    let mut body = id.to_be_bytes().repeat(octets / 8 + 1);
    body.truncate(octets);
    for (at, octet) in body.iter_mut().enumerate().skip(8) {
        *octet ^= (at % 251).to_le_bytes()[0];
    }
    body
}

impl Ledger {
    pub fn add_message(&mut self, message: Message) -> MessageId {
        self.messages.push(message);
        self.messages.len() as MessageId - 1
    }

    pub fn next_id(&self) -> MessageId {
        self.messages.len() as MessageId
    }

    pub fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(usize::try_from(id).ok()?)
    }

    fn message_mut(&mut self, id: MessageId) -> &mut Message {
        &mut self.messages[usize::try_from(id).expect("an index")]
    }

    pub fn message_count(&self) -> usize {
        self.messages.len()
    }

    fn note(&mut self, what: u64, more: u64) {
        self.digest =
            (self.digest ^ what.wrapping_mul(31).wrapping_add(more)).wrapping_mul(0x0100_0000_01B3).rotate_left(7);
    }

    /// The broker has read the whole publish: from here on nothing may go wrong with it.
    pub fn processed(&mut self, id: MessageId) {
        let message = self.message(id).expect("it was sent");
        let (exchange, key) = (message.exchange.clone(), message.routing_key.clone());
        let route = self.topology.route(&exchange, &key);
        let message = self.message_mut(id);
        message.fate = Fate::Processed;
        for (queue, is_certain) in route {
            let copy = Copy {
                is_certain,
                state: CopyState::Waiting,
                rivals: Vec::new(),
                is_seen: false,
                fresh_deliveries: 0,
                may_be_lost: false,
                is_over: false,
            };
            message.copies.insert(queue, copy);
        }
        self.note(1, id);
    }

    /// The publisher was told that the broker has it.
    pub fn confirmed(&mut self, id: MessageId) {
        self.message_mut(id).is_confirmed = true;
    }

    /// The broker has ended, in order or not, and all channels with it.
    pub fn ended(&mut self, is_clean: bool, queues: &[Survival]) {
        self.uncertain_channels.clear();
        self.acknowledged = 0;
        self.restarts += 1;
        self.note(11, u64::from(is_clean));
        for message in &mut self.messages {
            let (is_persistent, is_promised) = (message.is_persistent, is_clean || message.is_confirmed);
            for (queue, copy) in message.copies.iter_mut().filter(|(_, copy)| !copy.is_over) {
                let survival = &queues[*queue];
                copy.rivals.clear();
                copy.may_be_lost |= survival.is_at_risk;
                if !is_persistent || !survival.is_there {
                    copy.end("gone with the broker");
                } else if !matches!(copy.state, CopyState::Done(_)) {
                    copy.state = CopyState::Waiting;
                    copy.is_certain &= is_promised;
                } else if is_clean {
                    copy.is_over = true;
                } else {
                    // That it was settled may be lost.
                    copy.state = CopyState::Waiting;
                    copy.is_certain = false;
                }
            }
        }
    }

    /// All that is in the queue was seen: what was not is not there.
    pub fn audited(&mut self, queue: QueueIndex) {
        for copy in self.messages.iter_mut().filter_map(|message| message.copies.get_mut(&queue)) {
            if copy.state == CopyState::Waiting {
                copy.end("not there after a restart");
            }
        }
    }

    pub fn rolled_back(&mut self, id: MessageId) {
        self.message_mut(id).fate = Fate::RolledBack;
    }

    /// Whether the message must have been returned: mandatory, and surely in no queue.
    pub fn must_be_returned(&self, id: MessageId) -> bool {
        let message = &self.messages[usize::try_from(id).expect("an index")];
        message.is_mandatory && message.fate == Fate::Processed && message.copies.is_empty()
    }

    /// What is wrong with the content, if anything.
    pub fn check_content(&self, id: MessageId, received: &Received<'_>) -> Option<&'static str> {
        let Some(message) = self.message(id) else { return Some("a message that nobody has published") };
        if message.exchange.as_bytes() != received.exchange {
            return Some("the exchange is another");
        }
        if message.routing_key.as_bytes() != received.routing_key {
            return Some("the routing key is another");
        }
        if message.properties != received.properties {
            return Some("the properties are others");
        }
        if body_of(id, message.body_octets) != received.body {
            return Some("the body is another");
        }
        None
    }

    /// A client has received a delivery.
    pub fn delivered(&mut self, note: &DeliveryNote) -> Result<(), String> {
        self.deliveries += 1;
        self.note(2 + u64::from(note.redelivered), note.id ^ ((note.queue as u64) << 32));
        let uncertain = std::mem::take(&mut self.uncertain_channels);
        let outcome = self.message_mut(note.id).deliver(note, &uncertain);
        self.uncertain_channels = uncertain;
        outcome.map_err(|what| format!("message {} from {}: {what}", note.id, self.topology.queues[note.queue].name))
    }

    /// The broker has read what a client says about a delivery that it holds.
    pub fn settled(&mut self, queue: QueueIndex, id: MessageId, holder: u64, how: &'static str) -> Result<(), String> {
        self.note(7, id);
        self.acknowledged += u64::from(how == "acknowledged");
        let message = self.message_mut(id);
        let copy = message.copies.get_mut(&queue).expect("it was delivered");
        match copy.state {
            CopyState::Held(channel) if channel == holder || copy.rivals.contains(&holder) => {
                copy.rivals.clear();
                copy.state = if how == "requeued" { CopyState::Waiting } else { CopyState::Done(how) };
                Ok(())
            }
            other => Err(format!("message {id} was {how} by a channel that does not hold it: {other:?}")),
        }
    }

    /// The channel is gone, or has put everything back.
    pub fn released(&mut self, queue: QueueIndex, id: MessageId, holder: u64) {
        let Some(copy) = self.message_mut(id).copies.get_mut(&queue) else { return };
        copy.rivals.retain(|rival| *rival != holder);
        if copy.state == CopyState::Held(holder) {
            copy.state = copy.rivals.pop().map_or(CopyState::Waiting, CopyState::Held);
        }
    }

    pub fn returned(&mut self, id: MessageId) -> Result<(), String> {
        let message = self.message_mut(id);
        if message.fate != Fate::Processed || !message.is_mandatory || message.is_returned {
            return Err(format!("message {id} was returned: {:?}, mandatory {}", message.fate, message.is_mandatory));
        }
        message.is_returned = true;
        Ok(())
    }

    /// A purge of the queue is over: whatever was in it may be gone.
    pub fn purged(&mut self, queue: QueueIndex) {
        for message in &mut self.messages {
            if let Some(copy) = message.copies.get_mut(&queue) {
                copy.may_be_lost = true;
            }
        }
    }

    /// What must have come out of the queues that `looks_at` names, and has not.
    pub fn missing(&self, looks_at: impl Fn(QueueIndex) -> bool) -> Vec<String> {
        self.missing_of(looks_at, |state| !matches!(state, CopyState::Done(_)))
    }

    /// The same where somebody may hold it.
    pub fn unseen(&self, looks_at: impl Fn(QueueIndex) -> bool) -> Vec<String> {
        self.missing_of(looks_at, |state| state == CopyState::Waiting)
    }

    fn missing_of(&self, looks_at: impl Fn(QueueIndex) -> bool, is_missing: impl Fn(CopyState) -> bool) -> Vec<String> {
        let mut missing = Vec::new();
        for (id, message) in self.messages.iter().enumerate() {
            for (queue, copy) in &message.copies {
                let note = &self.topology.queues[*queue];
                let is_excused = copy.may_be_lost || note.may_be_gone || note.is_lossy || note.purges > 0;
                if copy.is_certain && !is_excused && looks_at(*queue) && is_missing(copy.state) {
                    missing.push(format!(
                        "message {id} ({} octets) in {}: {:?}",
                        message.body_octets, note.name, copy.state
                    ));
                }
            }
        }
        missing
    }

    /// Messages that were returned though they surely had a queue.
    pub fn wrongly_returned(&self) -> Vec<String> {
        let is_wrong = |message: &Message| {
            let mut certain = message.copies.iter().filter(|(_, copy)| copy.is_certain);
            message.is_returned && certain.any(|(queue, _)| !self.topology.queues[*queue].may_be_gone)
        };
        let wrong = self.messages.iter().enumerate().filter(|(_, message)| is_wrong(message));
        wrong.map(|(id, _)| format!("message {id} was returned though a queue had it")).collect()
    }
}

impl Copy {
    fn end(&mut self, how: &'static str) {
        self.state = CopyState::Done(how);
        self.is_over = true;
    }
}

impl Message {
    fn deliver(&mut self, note: &DeliveryNote, uncertain: &HashSet<u64>) -> Result<(), String> {
        if self.fate != Fate::Processed {
            return Err(format!("delivered though its publish is {:?}", self.fate));
        }
        let Some(copy) = self.copies.get_mut(&note.queue) else {
            return Err("delivered from a queue that it was not routed to".into());
        };
        if !note.redelivered {
            copy.fresh_deliveries += 1;
            if copy.fresh_deliveries > 1 {
                return Err("delivered twice without redelivered".into());
            }
        }
        let was_seen = std::mem::replace(&mut copy.is_seen, true);
        // A channel that has been closed meanwhile may find old deliveries in its socket.
        let may_be_late = note.is_void || uncertain.contains(&note.channel);
        if note.is_void {
            return Ok(());
        }
        if was_seen && !note.redelivered && !may_be_late {
            return Err("delivered again without redelivered".into());
        }
        match copy.state {
            CopyState::Done(_) if may_be_late => return Ok(()),
            CopyState::Done(how) => return Err(format!("delivered though it was {how}")),
            CopyState::Held(other) if uncertain.contains(&other) => copy.rivals.push(other),
            CopyState::Held(_) if may_be_late => {
                copy.rivals.push(note.channel);
                return Ok(());
            }
            CopyState::Held(_) => return Err("delivered while another channel holds it".into()),
            CopyState::Waiting => {}
        }
        copy.state = if note.is_held {
            CopyState::Held(note.channel)
        } else {
            CopyState::Done("delivered without acknowledgement")
        };
        Ok(())
    }

    pub fn new(exchange: &str, routing_key: &str, body_octets: usize, is_mandatory: bool) -> Self {
        Self {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            properties: Vec::new(),
            body_octets,
            publisher: 0,
            sequence: 0,
            is_persistent: false,
            is_confirmed: false,
            is_mandatory,
            is_returned: false,
            fate: Fate::Sent,
            copies: BTreeMap::new(),
        }
    }
}
