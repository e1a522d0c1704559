//! A publish: may it, where does it go, what is the publisher told.

use super::{
    Shard,
    deliver::Taken,
    route_cache::{Route, resolve},
    shard_message::{Asker, Publisher},
};
use crate::{
    connection::{Channel, Connection, Mode, PublishMemo, QueueHandle},
    definitions::{Action, Exchange, ShardIndex},
    limits::MESSAGE_OVERHEAD_OCTETS,
    message::{BodyView, MessageView},
    protocol::{
        exception::{ChannelException, ConnectionException, Exception},
        field_table::{TableRef, ValueRef},
        method::{Method, basic},
        properties::{Properties, delivery_mode, flags, property_flags},
        reply_code::ReplyCode,
    },
    queue::Attributes,
};
use std::sync::Arc;

/// Properties that a publish has to be looked into for.
const TELLING_FLAGS: u16 = flags::HEADERS | flags::PRIORITY | flags::REPLY_TO | flags::EXPIRATION | flags::USER_ID;
/// `delivery-mode` of messages that are to survive a restart.
const PERSISTENT: u8 = 2;
/// The largest expiration of a message, in milliseconds (RabbitMQ's bound).
const EXPIRATION_MILLIS_MAX: u64 = 0xFFFF_FFFF;

/// Where a publish came from.
pub(super) struct Origin<'a> {
    pub slot: u32,
    pub number: u16,
    /// The payload of its method frame.
    pub payload: &'a [u8],
    /// Whether it can be given again later.
    pub may_wait: bool,
}

/// What became of a publish.
pub(super) enum Published {
    /// It is on its way.
    Done,
    /// A shard that it goes to is behind: nothing was done (`may_wait`), or this was the last for now.
    PeerIsFull(ShardIndex),
}

/// What the properties say that matters here.
#[derive(Default)]
struct Told<'a> {
    attributes: Attributes,
    /// Further routing keys, from CC and BCC.
    more_keys: Vec<&'a [u8]>,
    /// The properties without BCC, or with another reply-to.
    rewritten: Option<Vec<u8>>,
}

impl Shard {
    /// Publishes a message.
    #[inline]
    pub(super) fn publish(
        &mut self,
        origin: &Origin<'_>,
        publish: &basic::Publish<'_>,
        properties: &[u8],
        body: BodyView<'_>,
    ) -> Result<Published, Exception> {
        let channel = self.connections.get_mut(origin.slot).and_then(|connection| connection.channel(origin.number));
        let channel = channel.expect("the channel that a publish came on is open");
        if property_flags(properties) & TELLING_FLAGS == 0
            && !matches!(channel.mode, Mode::Transactional { .. })
            && let Some(memo) = channel.memo.as_deref()
            && memo.epoch == self.routes.epoch()
            && memo.last == origin.payload
            && let Some(route) = memo.last_route
        {
            let is_persistent = delivery_mode(properties) == Some(PERSISTENT);
            let attributes = Attributes { persistent: is_persistent, ..Attributes::default() };
            let message =
                MessageView { exchange: publish.exchange, routing_key: publish.routing_key, properties, body };
            return Ok(self.publish_to(origin, &Whither::Remembered(route), publish.mandatory, &message, attributes));
        }
        self.publish_anew(origin, publish, properties, body)
    }

    /// Publishes a message for which nothing is known from the one before.
    fn publish_anew(
        &mut self,
        origin: &Origin<'_>,
        publish: &basic::Publish<'_>,
        properties: &[u8],
        body: BodyView<'_>,
    ) -> Result<Published, Exception> {
        if publish.immediate {
            return Err(ConnectionException::new(ReplyCode::NotImplemented, "immediate=true").into());
        }
        self.check_publish(origin, publish)?;
        let told = self.read_properties(origin, properties)?;
        let message = MessageView {
            exchange: publish.exchange,
            routing_key: publish.routing_key,
            properties: told.rewritten.as_deref().unwrap_or(properties),
            body,
        };
        let connection = self.connections.get_mut(origin.slot).expect("a publish has a connection");
        let channel = connection.channel(origin.number).expect("a publish has a channel");
        if let Mode::Transactional { pending, .. } = &mut channel.mode {
            let message = message.to_message();
            let octets = message.octets_held() as u64;
            pending.publishes.push((message, publish.mandatory));
            connection.incoming_octets += octets;
            return Ok(Published::Done);
        }
        if publish.exchange.is_empty()
            && let Some(published) = self.publish_reply(origin, publish, &message)
        {
            return Ok(published);
        }
        let whither = self.find_route(origin, &message, &told.more_keys);
        let whither = whither.unwrap_or_else(|| Whither::Computed(Route::default()));
        Ok(self.publish_to(origin, &whither, publish.mandatory, &message, told.attributes))
    }

    /// Publishes what a transaction had held back. Its rights were checked when it came.
    pub(super) fn publish_committed(&mut self, origin: &Origin<'_>, message: &MessageView<'_>, mandatory: bool) {
        let publish = basic::Publish {
            exchange: message.exchange,
            routing_key: message.routing_key,
            mandatory,
            immediate: false,
        };
        if self.check_publish(origin, &publish).is_err() {
            return;
        }
        let told = self.read_properties(origin, message.properties).unwrap_or_default();
        if publish.exchange.is_empty() && self.publish_reply(origin, &publish, message).is_some() {
            return;
        }
        let whither = self.find_route(origin, message, &told.more_keys);
        let whither = whither.unwrap_or_else(|| Whither::Computed(Route::default()));
        self.publish_to(origin, &whither, mandatory, message, told.attributes);
    }

    /// Whether the exchange is there, may be published to, and by this user. Leaves a memo for the channel's next publish.
    fn check_publish(&mut self, origin: &Origin<'_>, publish: &basic::Publish<'_>) -> Result<(), Exception> {
        let epoch = self.routes.epoch();
        let channel = self.open_channel_mut(origin);
        if let Some(memo) = channel.memo.as_deref_mut()
            && memo.epoch == epoch
            && *memo.exchange_name == *publish.exchange
        {
            memo.last_route = None;
            return Ok(());
        }
        self.require_named(origin.slot, Action::Write, "exchange", publish.exchange)?;
        let connection = self.connections.get(origin.slot).expect("a publish has a connection");
        let vhost_name = connection.vhost.clone();
        let exchange = self.find_exchange(&vhost_name, publish.exchange)?;
        if exchange.internal {
            let text = format!(
                "cannot publish to internal exchange '{}' in vhost '{vhost_name}'",
                String::from_utf8_lossy(publish.exchange)
            );
            return Err(ChannelException::new(ReplyCode::AccessRefused, text).into());
        }
        let routes = self.routes.exchange(&vhost_name, &exchange.name);
        let memo = PublishMemo {
            epoch,
            exchange_name: publish.exchange.into(),
            exchange,
            routes,
            last: Vec::new(),
            last_route: None,
        };
        self.open_channel_mut(origin).memo = Some(Box::new(memo));
        Ok(())
    }

    /// Where a message goes: remembered, or asked of the definitions. `None` if the virtual host is gone.
    fn find_route(&mut self, origin: &Origin<'_>, message: &MessageView<'_>, more_keys: &[&[u8]]) -> Option<Whither> {
        let Self { connections, routes, definitions, queues, .. } = self;
        let connection = connections.get_mut(origin.slot).expect("a publish has a connection");
        let vhost = definitions.vhost(connection.vhost.as_bytes())?;
        let memo = connection.channel(origin.number).and_then(|channel| channel.memo.as_deref_mut());
        let memo = memo.expect("a publish that was checked has left its memo");
        if more_keys.is_empty()
            && let Some(route) = routes.find(memo.routes, message.routing_key)
        {
            remember_last(memo, origin, message, route);
            return Some(Whither::Remembered(route));
        }
        let exchange: Arc<Exchange> = Arc::clone(&memo.exchange);
        let mut keys = vec![message.routing_key];
        keys.extend_from_slice(more_keys);
        let slot_of = |id| queues.slot_of(id).unwrap_or(u32::MAX);
        let (route, depends_on_key_alone) = resolve(definitions, vhost, &exchange, &keys, message.properties, slot_of);
        if !depends_on_key_alone || !more_keys.is_empty() {
            return Some(Whither::Computed(route));
        }
        let route = routes.remember(memo.routes, message.routing_key, route);
        remember_last(memo, origin, message, route);
        Some(Whither::Remembered(route))
    }

    /// Gives the message to its queues and tells the publisher, as far as that can be told now.
    #[inline]
    fn publish_to(
        &mut self,
        origin: &Origin<'_>,
        whither: &Whither,
        mandatory: bool,
        message: &MessageView<'_>,
        attributes: Attributes,
    ) -> Published {
        let count = self.queues_of(whither).len();
        let mut full_peer = None;
        if self.outboxes.len() > 1 {
            full_peer = self
                .queues_of(whither)
                .iter()
                .map(|queue| queue.home)
                .find(|home| *home != self.index && self.outboxes[usize::from(home.0)].is_full());
            if let Some(peer) = full_peer
                && origin.may_wait
            {
                return Published::PeerIsFull(peer);
            }
        }
        self.metrics.published += 1;
        if count == 0 {
            self.metrics.unroutable += 1;
            if mandatory {
                self.return_message(origin, message);
            }
        }
        let (mut elsewhere, mut rejected, mut journaled) = (0, false, false);
        if attributes.persistent {
            self.begin_message(None);
        }
        for at in 0..count {
            let queue = self.queues_of(whither)[at];
            if queue.home == self.index {
                match self.enqueue(queue, message, attributes) {
                    Taken::InMemory => {}
                    Taken::Journaled => journaled = true,
                    Taken::Refused => rejected = true,
                }
            } else {
                elsewhere += u32::from(self.send_publish(origin, queue, message, attributes));
            }
        }
        let Self { connections, .. } = self;
        let connection = connections.get_mut(origin.slot).expect("a publish has a connection");
        let id = connection.id;
        let channel = connection.channel(origin.number).expect("a publish has a channel");
        if let Some(confirms) = channel.confirms_mut() {
            let number = confirms.next_number();
            // What is journaled here is answered like a queue elsewhere: later.
            confirms.publish(elsewhere + u32::from(journaled), rejected);
            self.note_verdicts(origin.slot, origin.number);
            if journaled {
                self.await_commit(Asker { connection: id, channel: origin.number }, number..number + 1);
            }
        }
        full_peer.map_or(Published::Done, Published::PeerIsFull)
    }

    #[inline]
    fn queues_of<'a>(&'a self, whither: &'a Whither) -> &'a [QueueHandle] {
        match whither {
            Whither::Remembered(route) => &self.routes.route(*route).queues,
            Whither::Computed(route) => &route.queues,
        }
    }

    /// Puts a message into the outbox of its queue's shard. Whether an answer will come.
    fn send_publish(
        &mut self,
        origin: &Origin<'_>,
        queue: QueueHandle,
        message: &MessageView<'_>,
        attributes: Attributes,
    ) -> bool {
        let connection = self.connections.get_mut(origin.slot).expect("a publish has a connection");
        let connection_id = connection.id;
        let channel = connection.channel(origin.number).expect("a publish has a channel");
        let publisher = channel.confirms_mut().map(|confirms| Publisher {
            channel: Asker { connection: connection_id, channel: origin.number },
            number: confirms.next_number(),
        });
        let outbox = &mut self.outboxes[usize::from(queue.home.0)];
        outbox.batch().push_publish(queue, publisher, attributes, message);
        outbox.add_publish(super::deliver::content_octets(message) as u64 + MESSAGE_OVERHEAD_OCTETS);
        publisher.is_some()
    }

    fn return_message(&mut self, origin: &Origin<'_>, message: &MessageView<'_>) {
        let connection = self.connections.get_mut(origin.slot).expect("a publish has a connection");
        let Connection { output, frame_octets_max, .. } = connection;
        let method = basic::Return {
            reply_code: ReplyCode::NoRoute.code(),
            reply_text: ReplyCode::NoRoute.name().as_bytes(),
            exchange: message.exchange,
            routing_key: message.routing_key,
        };
        Method::BasicReturn(method).put(output.octets_mut(), origin.number);
        super::deliver::put_content(output, origin.number, message, *frame_octets_max);
        self.connections.mark_dirty(origin.slot);
    }

    /// Looks into the properties for what matters here: persistence, priority, expiration, user-id, CC and BCC, reply-to.
    fn read_properties<'a>(&mut self, origin: &Origin<'_>, raw: &'a [u8]) -> Result<Told<'a>, Exception> {
        let mut told = Told::default();
        told.attributes.persistent = delivery_mode(raw) == Some(PERSISTENT);
        if property_flags(raw) & TELLING_FLAGS == 0 {
            return Ok(told);
        }
        let properties = Properties::decode(raw).map_err(ConnectionException::from)?;
        told.attributes.priority = properties.priority.unwrap_or(0);
        if let Some(expiration) = properties.expiration {
            told.attributes.expires_at = Some(self.now.saturating_add(parse_expiration(expiration)?));
        }
        if let Some(user_id) = properties.user_id {
            self.check_user_id(origin.slot, user_id)?;
        }
        if let Some(headers) = properties.headers {
            told.more_keys = more_routing_keys(&headers)?;
            if headers.get(b"BCC").is_some() {
                let mut table = headers.to_owned_table();
                table.remove("BCC");
                let octets = table.to_octets();
                let mut rewritten = Vec::with_capacity(raw.len());
                let kept = TableRef::new(&octets).expect("a table that was read before");
                Properties { headers: Some(kept), ..properties }.encode(&mut rewritten);
                told.rewritten = Some(rewritten);
            }
        }
        if properties.reply_to == Some(super::direct_reply::REPLY_TO_QUEUE) {
            let address = self.reply_address(origin)?;
            let mut rewritten = Vec::with_capacity(raw.len() + address.len());
            Properties { reply_to: Some(&address), ..properties }.encode(&mut rewritten);
            told.rewritten = Some(rewritten);
        }
        Ok(told)
    }

    fn check_user_id(&self, slot: u32, user_id: &[u8]) -> Result<(), Exception> {
        let user = &self.connections.get(slot).expect("a publish has a connection").user;
        if user.as_bytes() == user_id {
            return Ok(());
        }
        let claimed = String::from_utf8_lossy(user_id);
        let text = format!("user_id property set to '{claimed}' but authenticated user was '{user}'");
        Err(ChannelException::new(ReplyCode::PreconditionFailed, text).into())
    }

    fn open_channel_mut(&mut self, origin: &Origin<'_>) -> &mut Channel {
        let connection = self.connections.get_mut(origin.slot).expect("a publish has a connection");
        connection.channel(origin.number).expect("a publish has a channel")
    }
}

/// Where a message goes.
enum Whither {
    /// As remembered under this index.
    Remembered(u32),
    /// As worked out for this message alone.
    Computed(Route),
}

/// Makes the next publish with the same method payload find its route at once.
fn remember_last(memo: &mut PublishMemo, origin: &Origin<'_>, message: &MessageView<'_>, route: u32) {
    // Replies to a client's own consumer are addressed by the routing key, not routed.
    if message.exchange.is_empty() && message.routing_key.starts_with(super::direct_reply::REPLY_TO_QUEUE) {
        return;
    }
    memo.last.clear();
    memo.last.extend_from_slice(origin.payload);
    memo.last_route = Some(route);
}

fn parse_expiration(expiration: &[u8]) -> Result<u64, Exception> {
    let text = String::from_utf8_lossy(expiration);
    let wrong = |why: &str| {
        Exception::from(ChannelException::new(
            ReplyCode::PreconditionFailed,
            format!("invalid expiration '{text}': {why}"),
        ))
    };
    if expiration.is_empty() || !expiration.iter().all(u8::is_ascii_digit) {
        return Err(wrong("not a number of milliseconds"));
    }
    let millis: u64 = text.parse().map_err(|_| wrong("value is too large"))?;
    if millis > EXPIRATION_MILLIS_MAX {
        return Err(wrong("value is too large"));
    }
    Ok(millis)
}

/// The routing keys in the headers CC and BCC.
fn more_routing_keys<'a>(headers: &TableRef<'a>) -> Result<Vec<&'a [u8]>, Exception> {
    let mut keys = Vec::new();
    for name in ["CC", "BCC"] {
        match headers.get(name.as_bytes()) {
            None => {}
            Some(ValueRef::Array(array)) => {
                keys.extend(array.iter().filter_map(|value| match value {
                    ValueRef::LongString(key) => Some(key),
                    _ => None,
                }));
            }
            Some(_) => {
                let text = format!("invalid message: the header '{name}' must be an array of routing keys");
                return Err(ChannelException::new(ReplyCode::PreconditionFailed, text).into());
            }
        }
    }
    keys.truncate(crate::limits::SHORT_STRING_OCTETS_MAX);
    Ok(keys)
}
