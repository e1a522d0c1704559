//! The single writer of the definitions: checks a change as RabbitMQ does, and applies it.
//!
//! A plain value; a thread around it is somebody else's. A change costs the depth of what it touches, never the number of what
//! exists, but for the deletion of a whole exchange or virtual host, which costs what is deleted. Bindings are in
//! `registry_bindings`, virtual hosts and users in `registry_users`. What outlives the process is gathered on the way
//! (`durable`) and comes back by `restore`.
//!
//! Sources: `rabbit_channel.erl`, `handle_method`; `rabbit_exchange.erl`; `rabbit_amqqueue.erl`; `rabbit_binding.erl`.

use crate::definitions::change::{Applied, Change};
use crate::definitions::checks::{self, ALTERNATE_EXCHANGE};
use crate::definitions::durable::DurableChange;
use crate::definitions::exchange::{Destination, Exchange, ExchangeId, ExchangeKind, Matcher};
use crate::definitions::password::PasswordHash;
use crate::definitions::queue::{QueueDefinition, QueueId};
use crate::definitions::queue_arguments::NewQueue;
use crate::definitions::texts::{self, Resource};
use crate::definitions::vhost::Vhost;
use crate::definitions::{ConnectionId, Definitions, Name, ShardIndex, User};
use crate::limits::SHORT_STRING_OCTETS_MAX;
use crate::protocol::exception::{ChannelException, Exception};
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::reply_code::ReplyCode;
use crate::routing::Binding;
use ahash::AHashMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The virtual host that a new broker has.
pub const DEFAULT_VHOST: &str = "/";
/// The user that a new broker has, and its password. Logging in from elsewhere than loopback is refused by the connection.
pub const DEFAULT_USER: &str = "guest";

/// The definitions, and what the writer alone needs to change them.
pub struct Registry {
    pub(super) current: Definitions,
    /// What was given out last.
    published: Arc<Definitions>,
    pub(super) is_changed: bool,
    pub(super) queues: AHashMap<QueueId, Arc<QueueDefinition>>,
    /// All bindings by what they lead to: its number, then the binding's. Shows what goes with a queue or an exchange.
    pub(super) inbound: BTreeMap<(u64, u64), Inbound>,
    /// The last number that was given to a queue, an exchange or a binding.
    pub(super) last_number: u64,
    /// What is to be kept of the changes since somebody asked.
    pub(super) durable: Vec<DurableChange>,
    names: GeneratedNames,
}

/// A binding, and the exchange that it leads away from.
pub(super) struct Inbound {
    pub(super) source: Name,
    pub(super) binding: Arc<Binding<Destination>>,
    /// Whether it outlives the broker's process: both of its ends do.
    pub(super) is_durable: bool,
}

/// Where the names of server-named queues come from.
enum GeneratedNames {
    Random,
    /// For runs that a seed must repeat.
    Seeded(u64),
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// What a new broker has: the virtual host `/` with the predeclared exchanges, and the user guest, who may do everything.
    pub fn new() -> Self {
        let mut registry = Self::empty();
        registry.add_vhost(&DEFAULT_VHOST.into());
        let password_hash = PasswordHash::salted_sha256(DEFAULT_USER.as_bytes());
        registry.put_user(User { name: DEFAULT_USER.into(), password_hash, tags: vec!["administrator".to_owned()] });
        let all = [".*"; 3];
        registry
            .set_permissions(DEFAULT_USER.into(), DEFAULT_VHOST.into(), all)
            .expect("user and virtual host are there");
        registry
    }

    /// Nothing at all: no virtual host, no user.
    pub fn empty() -> Self {
        Self {
            current: Definitions::default(),
            published: Arc::default(),
            is_changed: false,
            queues: AHashMap::new(),
            inbound: BTreeMap::new(),
            last_number: 0,
            durable: Vec::new(),
            names: GeneratedNames::Random,
        }
    }

    /// The same as this, but the names of server-named queues follow from `seed`, so that a run can be repeated.
    #[must_use]
    pub fn with_seeded_names(mut self, seed: u64) -> Self {
        self.names = GeneratedNames::Seeded(seed);
        self
    }

    /// The definitions as they are now, without giving out a snapshot. Their version is that of the last one.
    pub fn current(&self) -> &Definitions {
        &self.current
    }

    /// A snapshot of what exists, with a version of its own if anything has changed since the last one. O(1).
    pub fn snapshot(&mut self) -> Arc<Definitions> {
        if self.is_changed {
            self.is_changed = false;
            self.current.version += 1;
            self.published = Arc::new(self.current.clone());
        }
        Arc::clone(&self.published)
    }

    /// Checks and applies a change. One that is refused changes nothing.
    ///
    /// # Errors
    /// What RabbitMQ would answer. 530 where the virtual host is not there.
    pub fn apply(&mut self, change: Change) -> Result<Applied, Exception> {
        match change {
            Change::DeclareExchange { vhost, name, kind, durable, auto_delete, internal, arguments } => {
                let declared = DeclaredExchange { kind: &kind, durable, auto_delete, internal };
                self.declare_exchange(&vhost, name, declared, arguments)?;
            }
            Change::DeleteExchange { vhost, name, if_unused } => self.delete_exchange(&vhost, &name, if_unused)?,
            Change::DeclareQueue { vhost, name, durable, exclusive, auto_delete, arguments, connection, home } => {
                let declared = DeclaredQueue { durable, exclusive, auto_delete, connection, home };
                return self.declare_queue(&vhost, name, declared, arguments);
            }
            Change::BindExchange { .. }
            | Change::UnbindExchange { .. }
            | Change::BindQueue { .. }
            | Change::UnbindQueue { .. } => self.change_binding(change)?,
            Change::RemoveQueue { id } => self.remove_queue(id),
            Change::AddVhost { name } => {
                check_length("vhost", &name)?;
                self.add_vhost(&name);
            }
            Change::DeleteVhost { name } => return Ok(Applied::VhostQueuesRemoved(self.delete_vhost(&name))),
            Change::PutUser { name, password_hash, tags } => {
                check_length("user", &name)?;
                self.put_user(User { name, password_hash, tags });
            }
            Change::DeleteUser { name } => self.delete_user(&name),
            Change::SetPermissions { user, vhost, configure, write, read } => {
                self.set_permissions(user, vhost, [&configure, &write, &read])?;
            }
            Change::ClearPermissions { user, vhost } => {
                self.clear_permissions(|it| it.user == user && it.vhost == vhost);
            }
        }
        Ok(Applied::Done)
    }

    /// The next number for a queue, an exchange or a binding.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn vhost(&self, name: &str) -> Result<&Arc<Vhost>, Exception> {
        self.current.vhost(name.as_bytes()).ok_or_else(|| texts::no_vhost(name).into())
    }

    /// Changes a virtual host that is known to be there.
    pub(super) fn change_vhost<R>(&mut self, name: &str, change: impl FnOnce(&mut Vhost) -> R) -> R {
        self.is_changed = true;
        let changed = self.current.vhosts.update(name.as_bytes(), |vhost| change(Arc::make_mut(vhost)));
        changed.expect("the virtual host was looked up before")
    }
}

/// What `exchange.declare` says besides names and arguments.
#[derive(Clone, Copy)]
struct DeclaredExchange<'a> {
    kind: &'a str,
    durable: bool,
    auto_delete: bool,
    internal: bool,
}

/// What `queue.declare` says besides names and arguments.
#[derive(Clone, Copy)]
struct DeclaredQueue {
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    connection: ConnectionId,
    home: ShardIndex,
}

/// Exchanges and queues.
impl Registry {
    fn declare_exchange(
        &mut self,
        vhost: &Name,
        name: Name,
        declared: DeclaredExchange<'_>,
        arguments: FieldTable,
    ) -> Result<(), Exception> {
        let DeclaredExchange { kind: kind_name, durable, auto_delete, internal } = declared;
        let name = without_line_ends(name);
        let kind = ExchangeKind::named(kind_name).ok_or_else(|| texts::unknown_exchange_type(kind_name))?;
        if name.is_empty() {
            return Err(texts::not_on_the_default_exchange().into());
        }
        if let Some(existing) = self.vhost(vhost)?.exchange(name.as_bytes()) {
            checks::check_exchange_declare(existing, kind_name, durable, auto_delete, internal, &arguments)?;
            return Ok(());
        }
        checks::check_name("exchange", &name)?;
        check_length("exchange", &name)?;
        let alternate = alternate_exchange(Resource::exchange(vhost, &name), &arguments)?;
        let id = ExchangeId(self.next_number());
        let exchange = Exchange {
            id,
            vhost: Arc::clone(vhost),
            name,
            kind,
            durable,
            auto_delete,
            internal,
            arguments: Arc::new(arguments),
            alternate,
            matcher: Matcher::new(kind),
        };
        let exchange = Arc::new(exchange);
        self.change_vhost(vhost, |vhost| vhost.exchanges.insert(Arc::clone(&exchange)));
        if durable {
            self.keep(DurableChange::PutExchange(exchange));
        }
        Ok(())
    }

    fn delete_exchange(&mut self, vhost: &str, name: &str, if_unused: bool) -> Result<(), Exception> {
        let name = checks::without_line_ends(name);
        if name.is_empty() {
            return Err(texts::not_on_the_default_exchange().into());
        }
        if name.starts_with(checks::RESERVED_PREFIX) {
            return Err(texts::system_exchange(vhost, &name).into());
        }
        let Some(exchange) = self.vhost(vhost)?.exchange(name.as_bytes()) else { return Ok(()) };
        if if_unused && exchange.binding_count() > 0 {
            return Err(texts::in_use(Resource::from(&**exchange)).into());
        }
        self.drop_exchange(vhost, &name);
        Ok(())
    }

    fn declare_queue(
        &mut self,
        vhost: &Name,
        name: Name,
        declared: DeclaredQueue,
        arguments: FieldTable,
    ) -> Result<Applied, Exception> {
        let DeclaredQueue { durable, exclusive, auto_delete, connection, home } = declared;
        let mut name = without_line_ends(name);
        let server_named = name.is_empty();
        checks::check_name("queue", &name)?;
        check_length("queue", &name)?;
        if let Some(existing) = self.vhost(vhost)?.queue(name.as_bytes()) {
            checks::check_queue_declare(existing, durable, exclusive, auto_delete, &arguments, connection)?;
            return Ok(Applied::Queue { definition: Arc::clone(existing), created: false });
        }
        if server_named {
            name = self.generate_name(vhost)?;
        }
        let resource = Resource::queue(vhost, &name);
        let new = NewQueue {
            resource,
            server_named,
            durable: durable && !exclusive,
            exclusive,
            auto_delete,
            arguments: &arguments,
        };
        let options = new.options()?;
        let definition = Arc::new(QueueDefinition {
            id: QueueId(self.next_number()),
            vhost: Arc::clone(vhost),
            name,
            home,
            durable: durable && !exclusive,
            auto_delete,
            exclusive_owner: exclusive.then_some(connection),
            server_named,
            arguments,
            options,
        });
        self.queues.insert(definition.id, Arc::clone(&definition));
        self.change_vhost(vhost, |vhost| vhost.queues.insert(Arc::clone(&definition)));
        if definition.durable {
            self.keep(DurableChange::PutQueue(Arc::clone(&definition)));
        }
        Ok(Applied::Queue { definition, created: true })
    }

    fn remove_queue(&mut self, id: QueueId) {
        let Some(queue) = self.queues.remove(&id) else { return };
        if queue.durable {
            self.keep(DurableChange::DeleteQueue(id));
        }
        self.change_vhost(&queue.vhost, |vhost| vhost.queues.remove(queue.name.as_bytes()));
        self.drop_bindings_to(&queue.vhost, id.0);
    }

    /// A name that no queue has.
    fn generate_name(&mut self, vhost: &str) -> Result<Name, Exception> {
        loop {
            let mut octets = [0; 16];
            match &mut self.names {
                GeneratedNames::Random => getrandom::fill(&mut octets).map_err(|error| {
                    let text = format_args!("no random octets for a queue's name: {error}");
                    ChannelException::new(ReplyCode::InternalError, text)
                })?,
                GeneratedNames::Seeded(seed) => {
                    for half in octets.chunks_exact_mut(8) {
                        half.copy_from_slice(&split_mix(seed).to_le_bytes());
                    }
                }
            }
            let name = format!("amq.gen-{}", URL_SAFE_NO_PAD.encode(octets));
            if self.vhost(vhost)?.queue(name.as_bytes()).is_none() {
                return Ok(name.into());
            }
        }
    }
}

fn without_line_ends(name: Name) -> Name {
    match checks::without_line_ends(&name) {
        std::borrow::Cow::Borrowed(_) => name,
        std::borrow::Cow::Owned(stripped) => stripped.into(),
    }
}

fn check_length(kind: &str, name: &str) -> Result<(), ChannelException> {
    if name.len() <= SHORT_STRING_OCTETS_MAX {
        return Ok(());
    }
    Err(texts::precondition_failed(format_args!("{kind} name has {} octets, the most is 255", name.len())))
}

pub(super) fn alternate_exchange(
    resource: Resource<'_>,
    arguments: &FieldTable,
) -> Result<Option<Name>, ChannelException> {
    match arguments.get(ALTERNATE_EXCHANGE) {
        None => Ok(None),
        Some(value @ FieldValue::LongString(_)) => match value.as_str() {
            Some(name) => Ok(Some(name.into())),
            None => Err(texts::name_is_not_utf8("exchange")),
        },
        Some(other) => Err(texts::invalid_argument_type(ALTERNATE_EXCHANGE, resource, other.type_name())),
    }
}

/// The next of a sequence of well-mixed numbers that follows from a seed (`SplitMix64`).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::Action;
    use crate::definitions::fixture::{
        OTHER, OWN, bind, check_refused, declared, exchange, queue, registry_after, routed, table, text,
    };
    use crate::definitions::vhost::PREDECLARED;
    use crate::protocol::properties::NO_PROPERTIES;

    fn declare(name: &str, durable: bool, exclusive: bool, auto_delete: bool, connection: ConnectionId) -> Change {
        let (vhost, name, arguments, home) = ("/".into(), name.into(), FieldTable::default(), ShardIndex(3));
        Change::DeclareQueue { vhost, name, durable, exclusive, auto_delete, arguments, connection, home }
    }

    /// Goal: a new broker has what RabbitMQ has.
    /// Method: look at it.
    #[test]
    fn new_broker_has_what_rabbitmq_has() {
        let definitions = Registry::new().snapshot();
        let vhost = definitions.vhost(b"/").unwrap();
        for (name, kind, internal) in PREDECLARED {
            let exchange = vhost.exchange(name.as_bytes()).unwrap();
            assert_eq!((exchange.kind, exchange.internal, exchange.durable), (kind, internal, true));
        }
        let guest = definitions.user("guest").unwrap();
        assert!(guest.password_hash.verify(b"guest") && guest.tags == ["administrator"]);
        assert!(definitions.has_vhost_access("guest", "/") && !definitions.has_vhost_access("guest", "other"));
        assert!(definitions.is_permitted("guest", "/", Action::Configure, "anything"));
        assert_eq!(definitions.version, 1);
    }

    /// Goal: a queue is made once, with what was asked for; a declare that says otherwise is refused in RabbitMQ's words.
    /// Method: declare again with each difference.
    #[test]
    fn queues_are_declared_once() {
        let registry = &mut registry_after([]);
        let Ok(Applied::Queue { definition, created: true }) = registry.apply(declare("q", true, false, false, OWN))
        else {
            panic!("not made")
        };
        assert_eq!((&*definition.name, definition.home, definition.durable), ("q", ShardIndex(3), true));
        assert!(matches!(
            registry.apply(declare("q", true, false, false, OTHER)),
            Ok(Applied::Queue { definition: again, created: false }) if Arc::ptr_eq(&again, &definition)
        ));
        let inequivalent = |arg: &str, received: &str, current: &str| {
            format!(
                "PRECONDITION_FAILED - inequivalent arg '{arg}' for queue 'q' in vhost '/': received {received} but \
                 current is {current}"
            )
        };
        let locked = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be \
                      originally declared on another connection or the exclusive property value does not match that of the \
                      original declaration.";
        check_refused(registry, declare("q", false, false, false, OWN), &inequivalent("durable", "'false'", "'true'"));
        check_refused(
            registry,
            declare("q", true, false, true, OWN),
            &inequivalent("auto_delete", "'true'", "'false'"),
        );
        check_refused(registry, declare("q", true, true, false, OWN), locked);
        check_refused(
            registry,
            queue("q", &[("x-message-ttl", FieldValue::I32(10))]),
            &inequivalent("x-message-ttl", "the value '10' of type 'signedint'", "none"),
        );
        let id = definition.id;
        registry.apply(Change::RemoveQueue { id }).unwrap();
        let ttl = |value| queue("q", &[("x-message-ttl", value), ("unknown", text("x"))]);
        registry.apply(ttl(FieldValue::I32(10))).unwrap();
        registry.apply(ttl(FieldValue::U8(10))).unwrap();
        registry
            .apply(queue("q", &[("x-message-ttl", FieldValue::I64(10)), ("x-queue-type", text("classic"))]))
            .unwrap();
        check_refused(registry, ttl(FieldValue::I32(11)), &inequivalent("x-message-ttl", "'11'", "'10'"));
        check_refused(
            registry,
            queue("q", &[]),
            &inequivalent("x-message-ttl", "none", "the value '10' of type 'signedint'"),
        );
    }

    /// Goal: exclusive queues are never durable and belong to one connection; reserved names and bad virtual hosts are refused;
    /// line ends vanish from names.
    /// Method: one change for each.
    #[test]
    fn queues_have_owners_and_names() {
        let registry = &mut registry_after([]);
        let mine = declared(registry.apply(declare("mine", true, true, false, OWN)));
        assert_eq!((mine.durable, mine.exclusive_owner), (false, Some(OWN)));
        assert!(registry.apply(declare("mine", true, true, false, OWN)).is_ok());
        assert!(registry.apply(declare("mine", true, true, false, OTHER)).is_err());
        assert!(checks::check_exclusive(&mine, OWN).is_ok() && checks::check_exclusive(&mine, OTHER).is_err());
        check_refused(
            registry,
            queue("amq.x", &[]),
            "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'",
        );
        let elsewhere = Change::DeleteExchange { vhost: "v".into(), name: "x".into(), if_unused: false };
        check_refused(registry, elsewhere, "NOT_ALLOWED - vhost v not found");
        assert_eq!(&*declared(registry.apply(queue("a\r\nb\n", &[]))).name, "ab");
        assert!(registry.apply(queue(&"q".repeat(256), &[])).is_err());
        assert!(registry.apply(queue(&"q".repeat(255), &[])).is_ok());
    }

    /// Goal: server-named queues get names of RabbitMQ's form, all different, and the same ones from the same seed.
    /// Method: two registries with one seed, one without.
    #[test]
    fn generated_names_follow_from_the_seed() {
        let names = |mut registry: Registry| {
            [(); 3].map(|()| {
                let queue = declared(registry.apply(declare("", false, true, true, OWN)));
                assert!(queue.server_named && queue.name.starts_with("amq.gen-") && queue.name.len() == 30);
                queue.name.to_string()
            })
        };
        let [first, second, random] = [registry_after([]), registry_after([]), Registry::new()].map(names);
        assert_eq!(first, second);
        assert!(first != random && first[0] != first[1]);
    }

    /// Goal: exchanges are declared and deleted as in RabbitMQ, with its texts.
    /// Method: one change for each text; deleting twice is a success.
    #[test]
    fn exchanges_are_declared_and_deleted() {
        let registry = &mut registry_after([exchange("x", "direct", &[]), queue("q", &[]), bind("x", "q", "k")]);
        let refused = [
            (exchange("y", "strange", &[]), "PRECONDITION_FAILED - unknown exchange type 'strange'"),
            (
                exchange("amq.y", "direct", &[]),
                "ACCESS_REFUSED - exchange name 'amq.y' contains reserved prefix 'amq.*'",
            ),
            (exchange("", "direct", &[]), "ACCESS_REFUSED - operation not permitted on the default exchange"),
            (
                exchange("x", "topic", &[]),
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'topic' but current \
                 is 'direct'",
            ),
            (
                exchange("x", "direct", &[("alternate-exchange", text("a"))]),
                "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'x' in vhost '/': received the \
                 value 'a' of type 'longstr' but current is none",
            ),
            (
                exchange("y", "direct", &[("alternate-exchange", FieldValue::I32(1))]),
                "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'y' in vhost '/'",
            ),
        ];
        for (change, expected) in refused {
            check_refused(registry, change, expected);
        }
        registry.apply(exchange("amq.topic", "topic", &[])).unwrap();
        let delete = |name: &str, if_unused| Change::DeleteExchange { vhost: "/".into(), name: name.into(), if_unused };
        check_refused(registry, delete("x", true), "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use");
        check_refused(registry, delete("", false), "ACCESS_REFUSED - operation not permitted on the default exchange");
        check_refused(
            registry,
            delete("amq.direct", false),
            "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed",
        );
        registry.apply(delete("x", false)).unwrap();
        registry.apply(delete("x", false)).unwrap();
        assert!(registry.inbound.is_empty());
    }

    /// Goal: a snapshot is the same until something changes, and its version grows when it does.
    /// Method: changes that do and that do not change anything.
    #[test]
    fn version_grows_with_what_changes() {
        let mut registry = registry_after([]);
        let first = registry.snapshot();
        assert!(Arc::ptr_eq(&first, &registry.snapshot()));
        registry.apply(queue("q", &[])).unwrap();
        let second = registry.snapshot();
        assert_eq!(second.version, first.version + 1);
        assert!(first.vhost(b"/").unwrap().queue(b"q").is_none());
        registry.apply(queue("q", &[])).unwrap();
        registry.apply(queue("amq.q", &[])).unwrap_err();
        assert!(Arc::ptr_eq(&second, &registry.snapshot()));
    }

    /// Goal: a queue that was deleted and declared again is another one, without the old one's bindings.
    /// Method: do that.
    #[test]
    fn queues_are_not_confused_with_their_predecessors() {
        let mut registry = registry_after([queue("q", &[]), bind("amq.fanout", "q", "")]);
        let first = declared(registry.apply(queue("q", &[])));
        registry.apply(Change::RemoveQueue { id: first.id }).unwrap();
        let second = declared(registry.apply(queue("q", &[])));
        assert_ne!(first.id, second.id);
        assert!(routed(&registry.snapshot(), "amq.fanout", &[""], NO_PROPERTIES).is_empty());
        assert_eq!(second.arguments, table(&[]));
    }
}
