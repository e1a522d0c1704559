//! How the database writes down what is kept: each value is a field table of AMQP, so that it says what its parts are, holds
//! any octets, and can get new parts later. Arguments are the octets of a table of their own.

use crate::{
    definitions::{
        ExchangeId, Name, PasswordHash, QueueDefinition, QueueId, ShardIndex, User,
        exchange::{Destination, Exchange},
        permissions::Permissions,
        restore::{KeptBinding, KeptDestination, KeptExchange, KeptPermissions, KeptQueue},
    },
    protocol::field_table::{FieldTable, FieldValue, TableRef, ValueRef},
    routing::Binding,
};

/// A user, without its name.
pub(super) fn put_user(user: &User) -> Vec<u8> {
    let (method, hash) = user.password_hash.parts();
    let tags = user.tags.iter().map(|tag| text(tag)).collect();
    octets([
        ("password-method", text(method)),
        ("password-hash", FieldValue::Bytes(hash.to_vec())),
        ("tags", FieldValue::Array(tags)),
    ])
}

/// See [`put_user`].
pub(super) fn take_user(name: &str, value: &[u8]) -> Result<User, String> {
    let fields = Fields::new(value)?;
    let password_hash = PasswordHash::from_parts(fields.text("password-method")?, fields.octets("password-hash")?)?;
    let ValueRef::Array(tags) = fields.get("tags")? else { return Err(wrong("tags")) };
    let tags = tags.iter().map(|tag| match tag {
        ValueRef::LongString(octets) => String::from_utf8(octets.to_vec()).map_err(|_| wrong("tags")),
        _ => Err(wrong("tags")),
    });
    Ok(User { name: name.into(), password_hash, tags: tags.collect::<Result<_, _>>()? })
}

/// Permissions, without user and virtual host.
pub(super) fn put_permissions(permissions: &Permissions) -> Vec<u8> {
    octets([
        ("configure", text(permissions.configure.text())),
        ("write", text(permissions.write.text())),
        ("read", text(permissions.read.text())),
    ])
}

/// See [`put_permissions`].
pub(super) fn take_permissions(user: &str, vhost: &str, value: &[u8]) -> Result<KeptPermissions, String> {
    let fields = Fields::new(value)?;
    let pattern = |action| fields.text(action).map(str::to_owned);
    let (configure, write, read) = (pattern("configure")?, pattern("write")?, pattern("read")?);
    Ok(KeptPermissions { user: user.into(), vhost: vhost.into(), configure, write, read })
}

/// An exchange, without its number and bindings.
pub(super) fn put_exchange(exchange: &Exchange) -> Vec<u8> {
    octets([
        ("vhost", text(&exchange.vhost)),
        ("name", text(&exchange.name)),
        ("type", text(exchange.kind.name())),
        ("auto-delete", FieldValue::Bool(exchange.auto_delete)),
        ("internal", FieldValue::Bool(exchange.internal)),
        ("arguments", FieldValue::Bytes(exchange.arguments.to_octets())),
    ])
}

/// See [`put_exchange`].
pub(super) fn take_exchange(id: u64, value: &[u8]) -> Result<KeptExchange, String> {
    let fields = Fields::new(value)?;
    Ok(KeptExchange {
        id: ExchangeId(id),
        vhost: fields.name("vhost")?,
        name: fields.name("name")?,
        kind: fields.text("type")?.to_owned(),
        auto_delete: fields.flag("auto-delete")?,
        internal: fields.flag("internal")?,
        arguments: fields.arguments()?,
    })
}

/// A queue, without its number.
pub(super) fn put_queue(queue: &QueueDefinition) -> Vec<u8> {
    octets([
        ("vhost", text(&queue.vhost)),
        ("name", text(&queue.name)),
        ("home", FieldValue::U16(queue.home.0)),
        ("auto-delete", FieldValue::Bool(queue.auto_delete)),
        ("server-named", FieldValue::Bool(queue.server_named)),
        ("arguments", FieldValue::Bytes(queue.arguments.to_octets())),
    ])
}

/// See [`put_queue`].
pub(super) fn take_queue(id: u64, value: &[u8]) -> Result<KeptQueue, String> {
    let fields = Fields::new(value)?;
    let ValueRef::U16(home) = fields.get("home")? else { return Err(wrong("home")) };
    Ok(KeptQueue {
        id: QueueId(id),
        vhost: fields.name("vhost")?,
        name: fields.name("name")?,
        home: ShardIndex(home),
        auto_delete: fields.flag("auto-delete")?,
        server_named: fields.flag("server-named")?,
        arguments: fields.arguments()?,
    })
}

/// A binding, without its number.
pub(super) fn put_binding(vhost: &str, source: &str, binding: &Binding<Destination>) -> Vec<u8> {
    let kind = match &binding.destination {
        Destination::Queue(_) => "queue",
        Destination::Exchange(_) => "exchange",
    };
    octets([
        ("vhost", text(vhost)),
        ("source", text(source)),
        (kind, text(binding.destination.name())),
        ("routing-key", FieldValue::Bytes(binding.routing_key.to_vec())),
        ("arguments", FieldValue::Bytes(binding.arguments().to_octets())),
    ])
}

/// See [`put_binding`].
pub(super) fn take_binding(sequence: u64, value: &[u8]) -> Result<KeptBinding, String> {
    let fields = Fields::new(value)?;
    let destination = match fields.name("queue") {
        Ok(queue) => KeptDestination::Queue(queue),
        Err(_) => KeptDestination::Exchange(fields.name("exchange")?),
    };
    Ok(KeptBinding {
        sequence,
        vhost: fields.name("vhost")?,
        source: fields.name("source")?,
        destination,
        routing_key: fields.octets("routing-key")?.to_vec(),
        arguments: fields.arguments()?,
    })
}

fn text(text: &str) -> FieldValue {
    FieldValue::from(text)
}

fn octets<const N: usize>(fields: [(&str, FieldValue); N]) -> Vec<u8> {
    FieldTable(fields.map(|(name, value)| (name.as_bytes().to_vec(), value)).into()).to_octets()
}

fn wrong(field: &str) -> String {
    format!("its field '{field}' is missing or of another kind")
}

/// The parts of a value.
struct Fields<'a>(TableRef<'a>);

impl<'a> Fields<'a> {
    fn new(value: &'a [u8]) -> Result<Self, String> {
        TableRef::new(value).map(Self).map_err(|_| "its fields cannot be read".to_owned())
    }

    fn get(&self, field: &str) -> Result<ValueRef<'a>, String> {
        self.0.get(field.as_bytes()).ok_or_else(|| wrong(field))
    }

    fn text(&self, field: &str) -> Result<&'a str, String> {
        match self.get(field)? {
            ValueRef::LongString(octets) => std::str::from_utf8(octets).map_err(|_| wrong(field)),
            _ => Err(wrong(field)),
        }
    }

    fn name(&self, field: &str) -> Result<Name, String> {
        self.text(field).map(Name::from)
    }

    fn octets(&self, field: &str) -> Result<&'a [u8], String> {
        match self.get(field)? {
            ValueRef::Bytes(octets) => Ok(octets),
            _ => Err(wrong(field)),
        }
    }

    fn flag(&self, field: &str) -> Result<bool, String> {
        match self.get(field)? {
            ValueRef::Bool(flag) => Ok(flag),
            _ => Err(wrong(field)),
        }
    }

    fn arguments(&self) -> Result<FieldTable, String> {
        let table = TableRef::new(self.octets("arguments")?).map_err(|_| wrong("arguments"))?;
        Ok(table.to_owned_table())
    }
}
