//! The single writer of the definitions: checks a change as RabbitMQ does, and applies it.
//!
//! A plain value; a thread around it is somebody else's. A change costs the depth of what it touches, never the number of what
//! exists, but for the deletion of a whole exchange or virtual host, which costs what is deleted. Bindings are in
//! `registry_bindings`.
//!
//! Sources: rabbit_channel.erl, `handle_method`; rabbit_exchange.erl; rabbit_amqqueue.erl; rabbit_binding.erl.

use crate::definitions::change::{Applied, Change};
use crate::definitions::checks::{self, ALTERNATE_EXCHANGE};
use crate::definitions::exchange::{Destination, Exchange, ExchangeId, ExchangeKind, Matcher};
use crate::definitions::password::PasswordHash;
use crate::definitions::permissions::{Pattern, Permissions};
use crate::definitions::queue::{QueueDefinition, QueueId};
use crate::definitions::queue_arguments::NewQueue;
use crate::definitions::texts::{self, Resource};
use crate::definitions::vhost::{PREDECLARED, Vhost};
use crate::definitions::{ConnectionId, Definitions, Name, ShardIndex, User};
use crate::limits::SHORT_STRING_OCTETS_MAX;
use crate::protocol::exception::{ChannelException, Exception};
use crate::protocol::field_table::{FieldTable, FieldValue};
use crate::protocol::reply_code::ReplyCode;
use crate::routing::{Binding, hash_value};
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
    queues: AHashMap<QueueId, Arc<QueueDefinition>>,
    /// All bindings by what they lead to: its number, then the binding's. Shows what goes with a queue or an exchange.
    pub(super) inbound: BTreeMap<(u64, u64), Inbound>,
    /// The last number that was given to a queue, an exchange or a binding.
    last_number: u64,
    names: GeneratedNames,
}

/// A binding, and the exchange that it leads away from.
pub(super) struct Inbound {
    pub(super) source: Name,
    pub(super) binding: Arc<Binding<Destination>>,
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
        registry.add_vhost(DEFAULT_VHOST.into());
        let password_hash = PasswordHash::salted_sha256(DEFAULT_USER.as_bytes());
        registry.put_user(User { name: DEFAULT_USER.into(), password_hash, tags: vec!["administrator".to_owned()] });
        let all = || Pattern::new(".*").expect("it is a pattern");
        let (configure, write, read) = (all(), all(), all());
        registry.put_permissions(Permissions {
            user: DEFAULT_USER.into(),
            vhost: DEFAULT_VHOST.into(),
            configure,
            write,
            read,
        });
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
                self.add_vhost(name);
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
                self.clear_permissions(|it| it.user == user && it.vhost == vhost)
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

    /// A virtual host that is known to be there, to be changed.
    pub(super) fn vhost_mut(&mut self, name: &str) -> &mut Vhost {
        self.is_changed = true;
        Arc::make_mut(self.current.vhosts.get_mut(name.as_bytes()).expect("the virtual host was looked up before"))
    }
}

/// What `exchange.declare` says besides names and arguments.
struct DeclaredExchange<'a> {
    kind: &'a str,
    durable: bool,
    auto_delete: bool,
    internal: bool,
}

/// What `queue.declare` says besides names and arguments.
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
        self.vhost_mut(vhost).exchanges.insert(Arc::new(exchange));
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
        self.vhost_mut(vhost).queues.insert(Arc::clone(&definition));
        Ok(Applied::Queue { definition, created: true })
    }

    fn remove_queue(&mut self, id: QueueId) {
        let Some(queue) = self.queues.remove(&id) else { return };
        self.vhost_mut(&queue.vhost).queues.remove(queue.name.as_bytes());
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

/// Virtual hosts, users and permissions.
impl Registry {
    fn add_vhost(&mut self, name: Name) {
        if self.current.vhost(name.as_bytes()).is_some() {
            return;
        }
        let mut vhost = Vhost::new(Arc::clone(&name));
        for (exchange, kind, internal) in PREDECLARED {
            vhost.exchanges.insert(Arc::new(Exchange {
                id: ExchangeId(self.next_number()),
                vhost: Arc::clone(&name),
                name: exchange.into(),
                kind,
                durable: true,
                auto_delete: false,
                internal,
                arguments: Arc::default(),
                alternate: None,
                matcher: Matcher::new(kind),
            }));
        }
        self.current.vhosts.insert(Arc::new(vhost));
        self.is_changed = true;
    }

    fn delete_vhost(&mut self, name: &str) -> Vec<Arc<QueueDefinition>> {
        let Some(vhost) = self.current.vhosts.remove(name.as_bytes()) else { return Vec::new() };
        self.is_changed = true;
        self.clear_permissions(|permissions| *permissions.vhost == *name);
        for exchange in vhost.exchanges() {
            for binding in exchange.bindings() {
                self.inbound.remove(&(binding.destination.id(), binding.sequence));
            }
        }
        let mut queues: Vec<_> = vhost.queues().cloned().collect();
        queues.sort_by_key(|queue| queue.id);
        for queue in &queues {
            self.queues.remove(&queue.id);
        }
        queues
    }

    fn put_user(&mut self, user: User) {
        self.current.users.insert(Arc::new(user));
        self.is_changed = true;
    }

    fn delete_user(&mut self, name: &str) {
        if self.current.users.remove(name.as_bytes()).is_some() {
            self.is_changed = true;
            self.clear_permissions(|permissions| *permissions.user == *name);
        }
    }

    fn set_permissions(&mut self, user: Name, vhost: Name, patterns: [&str; 3]) -> Result<(), Exception> {
        if self.current.user(&user).is_none() {
            return Err(ChannelException::new(ReplyCode::NotFound, format_args!("no user '{user}'")).into());
        }
        self.vhost(&vhost)?;
        let compile = |text: &str| {
            Pattern::new(text).map_err(|reason| {
                texts::precondition_failed(format_args!("invalid regular expression '{text}': {reason}"))
            })
        };
        let [configure, write, read] = patterns;
        let (configure, write, read) = (compile(configure)?, compile(write)?, compile(read)?);
        self.put_permissions(Permissions { user, vhost, configure, write, read });
        Ok(())
    }

    fn put_permissions(&mut self, permissions: Permissions) {
        let hash = hash_value(&(&*permissions.user, &*permissions.vhost));
        let permissions = Arc::new(permissions);
        let same = Arc::clone(&permissions);
        self.current.permissions.insert(hash, permissions, |it| it.user == same.user && it.vhost == same.vhost);
        self.is_changed = true;
    }

    fn clear_permissions(&mut self, goes: impl Fn(&Permissions) -> bool) {
        let going: Vec<_> = self.current.all_permissions().filter(|permissions| goes(permissions)).cloned().collect();
        for permissions in going {
            let hash = hash_value(&(&*permissions.user, &*permissions.vhost));
            self.current.permissions.remove(hash, |it| Arc::ptr_eq(it, &permissions));
            self.is_changed = true;
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

fn alternate_exchange(resource: Resource<'_>, arguments: &FieldTable) -> Result<Option<Name>, ChannelException> {
    match arguments.get(ALTERNATE_EXCHANGE) {
        None => Ok(None),
        Some(value @ FieldValue::LongString(_)) => match value.as_str() {
            Some(name) => Ok(Some(name.into())),
            None => Err(texts::name_is_not_utf8("exchange")),
        },
        Some(other) => Err(texts::invalid_argument_type(ALTERNATE_EXCHANGE, resource, other.type_name())),
    }
}

/// The next of a sequence of well-mixed numbers that follows from a seed (SplitMix64).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
