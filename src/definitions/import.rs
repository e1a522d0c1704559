//! RabbitMQ's JSON export (`rabbitmqctl export_definitions`, or the management's download) becomes changes.
//!
//! Reads users, virtual hosts, permissions, exchanges, queues and bindings. What Lepus does not know is told in
//! [`Import::notes`], except for topic permissions: to leave them out would let people in, so they are an error.
//!
//! Source: `rabbit_definitions.erl`.

use crate::definitions::change::Change;
use crate::definitions::checks::RESERVED_PREFIX;
use crate::definitions::import_json::{Fault, Object, Place};
use crate::definitions::password::PasswordHash;
use crate::definitions::registry::Registry;
use crate::definitions::{ConnectionId, Name, ShardIndex};
use serde_json::Value;
use std::fmt;

/// Why definitions could not be imported.
#[derive(Debug, PartialEq, Eq)]
pub struct ImportError {
    /// The file, as it was called.
    pub file: String,
    /// Where in it: `line 3 column 7` or `queues[3].arguments`.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.file, self.place, self.reason)
    }
}

impl std::error::Error for ImportError {}

/// What a file asks for.
#[derive(Debug, Default)]
pub struct Import {
    file: String,
    /// The changes, in the order in which they must be made.
    pub changes: Vec<Change>,
    /// Where in the file each change stands.
    places: Vec<String>,
    /// What in the file is left out, in one sentence each.
    pub notes: Vec<String>,
}

impl Import {
    /// Reads a file's octets. `shard_count` is the number of shards that the queues are spread over.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(file: &str, octets: &[u8], shard_count: u16) -> Result<Self, ImportError> {
        let octets = octets.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(octets);
        let document: Value = serde_json::from_slice(octets).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
            ImportError { file: file.to_owned(), place, reason }
        })?;
        let mut import = Self { file: file.to_owned(), ..Self::default() };
        match import.read(&document, shard_count) {
            Ok(()) => Ok(import),
            Err(Fault { place, reason }) => Err(ImportError { file: import.file, place, reason }),
        }
    }

    /// Makes all changes. As in RabbitMQ, exchanges and queues that exist stay as they are, whatever the file says; where it
    /// says something else, that is told in the sentences that this returns.
    ///
    /// # Errors
    /// The first that is refused, and where it stands. Those before it are made.
    ///
    /// Source: `rabbit_definitions.erl`, `add_queue_int` and `add_exchange_int`.
    pub fn apply_to(self, registry: &mut Registry) -> Result<Vec<String>, ImportError> {
        let mut notes = Vec::new();
        for (change, place) in self.changes.into_iter().zip(self.places) {
            let is_there = exists(registry, &change);
            match registry.apply(change) {
                Ok(_) => {}
                Err(refused) if is_there => {
                    notes.push(format!("{place}: left out, since it exists and is not the same: {}", refused.text()));
                }
                Err(refused) => {
                    return Err(ImportError { file: self.file, place, reason: refused.text().to_owned() });
                }
            }
        }
        Ok(notes)
    }

    fn read(&mut self, document: &Value, shard_count: u16) -> Result<(), Fault> {
        let root = Object::new(Place::Root, document)?;
        if let Some(first) = root.list("topic_permissions")?.first() {
            let list = Place::Field(&root.place, "topic_permissions");
            let place = Place::Index(&list, 0);
            Object::new(place, first)?;
            let reason = "topic permissions are not supported; take them out of the file to import it without them";
            return Err(Fault::new(place, reason));
        }
        self.each(root, "users", Self::user)?;
        self.each(root, "vhosts", |import, vhost| {
            let name = name(vhost, "name")?;
            import.push(vhost, Change::AddVhost { name });
            Ok(())
        })?;
        self.each(root, "permissions", Self::permissions)?;
        self.each(root, "exchanges", Self::exchange)?;
        let mut queue_count = 0;
        self.each(root, "queues", |import, queue| {
            queue_count += 1;
            let home = ShardIndex(u16::try_from(queue_count % u32::from(shard_count.max(1))).unwrap_or_default());
            import.queue(queue, home)
        })?;
        self.each(root, "bindings", Self::binding)?;
        for name in ["policies", "parameters"] {
            match root.list(name)?.len() {
                0 => {}
                count => self.notes.push(format!("{name}: {count} left out, they are not supported")),
            }
        }
        Ok(())
    }

    fn each(
        &mut self,
        root: Object<'_>,
        list: &str,
        mut read: impl FnMut(&mut Self, Object<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for (index, value) in root.list(list)?.iter().enumerate() {
            let list = Place::Field(&root.place, list);
            read(self, Object::new(Place::Index(&list, index), value)?)?;
        }
        Ok(())
    }

    fn push(&mut self, object: Object<'_>, change: Change) {
        self.changes.push(change);
        self.places.push(object.place.to_string());
    }

    fn user(&mut self, user: Object<'_>) -> Result<(), Fault> {
        let tags = match user.get("tags") {
            // Before RabbitMQ 3.9 they were one string.
            None => Vec::new(),
            Some(Value::String(tags)) => {
                tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
            }
            Some(_) => {
                let tags = user.list("tags")?.iter();
                let tags = tags.map(|tag| tag.as_str().map(str::to_owned));
                tags.collect::<Option<_>>().ok_or_else(|| user.fault("tags", "expected strings"))?
            }
        };
        let password_hash = match (user.optional_text("password_hash")?, user.optional_text("password")?) {
            (Some(hash), _) => {
                let algorithm = user.optional_text("hashing_algorithm")?.unwrap_or("rabbit_password_hashing_sha256");
                PasswordHash::from_rabbitmq(hash, algorithm).map_err(|reason| user.fault("password_hash", reason))?
            }
            (None, Some(password)) => PasswordHash::new(password.as_bytes()),
            (None, None) => PasswordHash::NONE,
        };
        self.push(user, Change::PutUser { name: name(user, "name")?, password_hash, tags });
        Ok(())
    }

    fn permissions(&mut self, permissions: Object<'_>) -> Result<(), Fault> {
        let pattern = |action| permissions.text(action).map(str::to_owned);
        let change = Change::SetPermissions {
            user: name(permissions, "user")?,
            vhost: vhost(permissions)?,
            configure: pattern("configure")?,
            write: pattern("write")?,
            read: pattern("read")?,
        };
        self.push(permissions, change);
        Ok(())
    }

    fn exchange(&mut self, exchange: Object<'_>) -> Result<(), Fault> {
        let name = name(exchange, "name")?;
        let vhost = vhost(exchange)?;
        // Every virtual host has these; RabbitMQ exports none of them but skips those that it finds.
        if name.is_empty() || name.starts_with(RESERVED_PREFIX) {
            return Ok(());
        }
        let change = Change::DeclareExchange {
            vhost,
            name,
            kind: exchange.text("type")?.into(),
            durable: exchange.flag("durable", true)?,
            auto_delete: exchange.flag("auto_delete", false)?,
            internal: exchange.flag("internal", false)?,
            arguments: exchange.table("arguments")?,
        };
        self.push(exchange, change);
        Ok(())
    }

    fn queue(&mut self, queue: Object<'_>, home: ShardIndex) -> Result<(), Fault> {
        let name = name(queue, "name")?;
        let vhost = vhost(queue)?;
        if name.is_empty() || name.starts_with(RESERVED_PREFIX) {
            self.notes.push(format!("{}: left out, the name '{name}' is the broker's to give", queue.place));
            return Ok(());
        }
        let change = Change::DeclareQueue {
            vhost,
            name,
            durable: queue.flag("durable", true)?,
            exclusive: false,
            auto_delete: queue.flag("auto_delete", false)?,
            arguments: queue.table("arguments")?,
            connection: ConnectionId::BROKER,
            home,
        };
        self.push(queue, change);
        Ok(())
    }

    fn binding(&mut self, binding: Object<'_>) -> Result<(), Fault> {
        let (vhost, source) = (vhost(binding)?, name(binding, "source")?);
        let destination = name(binding, "destination")?;
        let routing_key: Box<[u8]> = binding.optional_text("routing_key")?.unwrap_or_default().as_bytes().into();
        if routing_key.len() > crate::limits::SHORT_STRING_OCTETS_MAX {
            return Err(binding.fault("routing_key", "has more than 255 octets"));
        }
        let arguments = binding.table("arguments")?;
        // The default exchange reaches every queue without bindings.
        if source.is_empty() {
            return Ok(());
        }
        let change = match binding.text("destination_type")? {
            "queue" if destination.starts_with(RESERVED_PREFIX) => {
                let place = binding.place;
                self.notes.push(format!("{place}: left out with its queue '{destination}'"));
                return Ok(());
            }
            "queue" => {
                let connection = ConnectionId::BROKER;
                Change::BindQueue { vhost, exchange: source, queue: destination, routing_key, arguments, connection }
            }
            "exchange" => Change::BindExchange { vhost, source, destination, routing_key, arguments },
            other => {
                let reason = format_args!("expected 'queue' or 'exchange', found '{other}'");
                return Err(binding.fault("destination_type", reason));
            }
        };
        self.push(binding, change);
        Ok(())
    }
}

/// Whether the exchange or queue that is declared is there already.
fn exists(registry: &Registry, change: &Change) -> bool {
    match change {
        Change::DeclareExchange { vhost, name, .. } => registry.exchange(vhost, name).is_some(),
        Change::DeclareQueue { vhost, name, .. } => registry.queue(vhost, name).is_some(),
        _ => false,
    }
}

fn name(object: Object<'_>, field: &str) -> Result<Name, Fault> {
    Ok(object.text(field)?.into())
}

/// The virtual host. The export of a single virtual host says none anywhere.
fn vhost(object: Object<'_>) -> Result<Name, Fault> {
    match object.optional_text("vhost")? {
        Some(vhost) => Ok(vhost.into()),
        None => Err(object.fault("vhost", "is missing; is this the export of a single virtual host?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::Action;
    use crate::definitions::fixture::routed;
    use crate::protocol::properties::NO_PROPERTIES;

    /// As RabbitMQ 3.10 writes it, made shorter. The password is `test12`.
    const EXPORT: &str = r##"{
      "rabbit_version": "3.10.8", "rabbitmq_version": "3.10.8", "product_name": "RabbitMQ",
      "users": [
        {"name": "ann", "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
         "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["monitoring"], "limits": {}},
        {"name": "bob", "password_hash": "", "tags": "administrator, management"}
      ],
      "vhosts": [{"name": "/"}, {"name": "sales", "description": "", "tags": [], "metadata": {}}],
      "permissions": [
        {"user": "ann", "vhost": "sales", "configure": "^ann-", "write": ".*", "read": ""}
      ],
      "topic_permissions": [],
      "parameters": [],
      "global_parameters": [{"name": "cluster_name", "value": "rabbit@host"}],
      "policies": [{"vhost": "/", "name": "p", "pattern": ".*", "definition": {}}],
      "queues": [
        {"name": "orders", "vhost": "/", "durable": true, "auto_delete": false,
         "arguments": {"x-message-ttl": 60000, "x-queue-type": "classic"}},
        {"name": "audit", "vhost": "/", "durable": true, "auto_delete": false, "arguments": []},
        {"name": "amq.gen-x", "vhost": "/", "durable": false, "auto_delete": true, "arguments": {}}
      ],
      "exchanges": [
        {"name": "events", "vhost": "/", "type": "topic", "durable": true, "auto_delete": false, "internal": false,
         "arguments": {"alternate-exchange": "amq.fanout"}},
        {"name": "amq.direct", "vhost": "/", "type": "direct"}
      ],
      "bindings": [
        {"source": "events", "vhost": "/", "destination": "orders", "destination_type": "queue", "routing_key": "order.#",
         "arguments": {}},
        {"source": "events", "vhost": "/", "destination": "amq.fanout", "destination_type": "exchange", "routing_key": "#",
         "arguments": {}},
        {"source": "amq.fanout", "vhost": "/", "destination": "audit", "destination_type": "queue", "routing_key": "",
         "arguments": {"x": 1.5, "y": [true, "z", {"n": -1}]}},
        {"source": "events", "vhost": "/", "destination": "amq.gen-x", "destination_type": "queue", "routing_key": "x"},
        {"source": "", "vhost": "/", "destination": "orders", "destination_type": "queue", "routing_key": "orders"}
      ]
    }"##;

    /// Goal: an export becomes what it was exported from.
    /// Method: import one that has everything in it, look at what exists, and at what is told about the rest.
    #[test]
    fn imports_what_rabbitmq_exports() {
        let import = Import::parse("defs.json", EXPORT.as_bytes(), 2).unwrap();
        assert_eq!(import.notes.len(), 3, "{:?}", import.notes);
        let mut registry = Registry::new();
        import.apply_to(&mut registry).unwrap();
        let definitions = registry.snapshot();
        assert_eq!(routed(&definitions, "events", &["order.new"], NO_PROPERTIES), ["audit", "orders"]);
        let orders = definitions.vhost(b"/").unwrap().queue(b"orders").unwrap();
        assert_eq!(orders.options.message_ttl_millis, Some(60_000));
        let audit = definitions.vhost(b"/").unwrap().queue(b"audit").unwrap();
        assert_ne!(orders.home, audit.home);
        assert!(definitions.user("ann").unwrap().password_hash.verify(b"test12"));
        assert_eq!(definitions.user("bob").unwrap().tags, ["administrator", "management"]);
        assert!(definitions.is_permitted("ann", "sales", Action::Configure, "ann-1"));
        assert!(!definitions.is_permitted("ann", "sales", Action::Read, "ann-1"));
        assert!(!definitions.has_vhost_access("ann", "/"));
    }

    fn check(document: &str, place: &str, reason: &str) {
        let refused = match Import::parse("defs.json", document.as_bytes(), 1) {
            Ok(import) => import.apply_to(&mut Registry::new()).unwrap_err(),
            Err(refused) => refused,
        };
        assert_eq!((&*refused.place, &*refused.file), (place, "defs.json"), "{refused}");
        assert!(refused.reason.contains(reason), "{refused}");
    }

    /// Goal: what is wrong with a file is said with its place.
    /// Method: one document for each kind of fault.
    #[test]
    fn says_what_is_wrong_and_where() {
        check("{\n  \"queues\": [,]\n}", "line 2 column 14", "expected value");
        check("", "line 1 column 0", "EOF");
        check("[]", "the document", "expected an object, found a list");
        check(r#"{"queues": 1}"#, "queues", "expected a list, found a number");
        check(r#"{"queues": [{"name": "a", "vhost": "/"}, 7]}"#, "queues[1]", "expected an object");
        check(r#"{"queues": [{"vhost": "/"}]}"#, "queues[0].name", "is missing");
        check(r#"{"queues": [{"name": "a"}]}"#, "queues[0].vhost", "single virtual host");
        check(r#"{"queues": [{"name": "a", "vhost": "v"}]}"#, "queues[0]", "vhost v not found");
        check(
            r#"{"queues": [{"name": "a", "vhost": "/", "arguments": {"x": [1, null]}}]}"#,
            "queues[0].arguments.x[1]",
            "null",
        );
        check(
            r#"{"queues": [{"name": "a", "vhost": "/", "arguments": {"x-expires": 0}}]}"#,
            "queues[0]",
            "invalid arg 'x-expires'",
        );
        check(
            r#"{"users": [{"name": "u", "password_hash": "x", "hashing_algorithm": "md5"}]}"#,
            "users[0].password_hash",
            "'md5' is not supported",
        );
        check(
            r#"{"permissions": [{"user": "guest", "vhost": "/", "configure": "(", "write": "", "read": ""}]}"#,
            "permissions[0]",
            "invalid regular expression '('",
        );
        check(r#"{"topic_permissions": [{"user": "u"}]}"#, "topic_permissions[0]", "not supported");
        check(
            r#"{"bindings": [{"source": "a", "vhost": "/", "destination": "b", "destination_type": "stream"}]}"#,
            "bindings[0].destination_type",
            "found 'stream'",
        );
    }
}
