//! Virtual hosts, users and permissions come and go.

use crate::definitions::durable::DurableChange;
use crate::definitions::exchange::{Exchange, ExchangeId, Matcher};
use crate::definitions::permissions::{Pattern, Permissions};
use crate::definitions::queue::QueueDefinition;
use crate::definitions::registry::Registry;
use crate::definitions::texts;
use crate::definitions::vhost::{PREDECLARED, Vhost};
use crate::definitions::{Name, User};
use crate::protocol::exception::{ChannelException, Exception};
use crate::protocol::reply_code::ReplyCode;
use crate::routing::hash_value;
use std::sync::Arc;

impl Registry {
    pub(super) fn add_vhost(&mut self, name: &Name) {
        if self.current.vhost(name.as_bytes()).is_some() {
            return;
        }
        let mut vhost = Vhost::new(Arc::clone(name));
        for (exchange, kind, internal) in PREDECLARED {
            vhost.exchanges.insert(Arc::new(Exchange {
                id: ExchangeId(self.next_number()),
                vhost: Arc::clone(name),
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
        self.keep(DurableChange::PutVhost(Arc::clone(name)));
    }

    pub(super) fn delete_vhost(&mut self, name: &str) -> Vec<Arc<QueueDefinition>> {
        let Some(vhost) = self.current.vhosts.remove(name.as_bytes()) else { return Vec::new() };
        self.is_changed = true;
        self.clear_permissions(|permissions| *permissions.vhost == *name);
        for exchange in vhost.exchanges() {
            for binding in exchange.bindings() {
                self.remove_inbound((binding.destination.id(), binding.sequence));
            }
            if exchange.durable && !exchange.is_predeclared() {
                self.keep(DurableChange::DeleteExchange(exchange.id));
            }
        }
        let mut queues: Vec<_> = vhost.queues().cloned().collect();
        queues.sort_by_key(|queue| queue.id);
        for queue in &queues {
            self.queues.remove(&queue.id);
            if queue.durable {
                self.keep(DurableChange::DeleteQueue(queue.id));
            }
        }
        self.keep(DurableChange::DeleteVhost(Arc::clone(&vhost.name)));
        queues
    }

    /// Adds or replaces a user. The same again changes nothing.
    pub(super) fn put_user(&mut self, user: User) {
        if self.current.user(&user.name).is_some_and(|existing| **existing == user) {
            return;
        }
        let user = Arc::new(user);
        self.current.users.insert(Arc::clone(&user));
        self.is_changed = true;
        self.keep(DurableChange::PutUser(user));
    }

    pub(super) fn delete_user(&mut self, name: &str) {
        if let Some(user) = self.current.users.remove(name.as_bytes()) {
            self.is_changed = true;
            self.keep(DurableChange::DeleteUser(Arc::clone(&user.name)));
            self.clear_permissions(|permissions| *permissions.user == *name);
        }
    }

    pub(super) fn set_permissions(&mut self, user: Name, vhost: Name, patterns: [&str; 3]) -> Result<(), Exception> {
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
        let existing = self.current.permissions(&user, &vhost);
        if existing.is_some_and(|it| [it.configure.text(), it.write.text(), it.read.text()] == patterns) {
            return Ok(());
        }
        let (configure, write, read) = (compile(configure)?, compile(write)?, compile(read)?);
        self.put_permissions(Permissions { user, vhost, configure, write, read });
        Ok(())
    }

    fn put_permissions(&mut self, permissions: Permissions) {
        let hash = hash_value(&(&*permissions.user, &*permissions.vhost));
        let permissions = Arc::new(permissions);
        let same = Arc::clone(&permissions);
        self.keep(DurableChange::PutPermissions(Arc::clone(&permissions)));
        self.current.permissions.insert(hash, permissions, |it| it.user == same.user && it.vhost == same.vhost);
        self.is_changed = true;
    }

    pub(super) fn clear_permissions(&mut self, goes: impl Fn(&Permissions) -> bool) {
        let going: Vec<_> = self.current.all_permissions().filter(|permissions| goes(permissions)).cloned().collect();
        for permissions in going {
            let hash = hash_value(&(&*permissions.user, &*permissions.vhost));
            self.current.permissions.remove(hash, |it| Arc::ptr_eq(it, &permissions));
            self.is_changed = true;
            let (user, vhost) = (Arc::clone(&permissions.user), Arc::clone(&permissions.vhost));
            self.keep(DurableChange::DeletePermissions { user, vhost });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::definitions::fixture::{bind, bind_exchange, check_refused, queue, registry_after};
    use crate::definitions::{Action, Applied, Change, PasswordHash};

    /// Goal: virtual hosts are worlds of their own and leave nothing behind; users come and go with their permissions.
    /// Method: two virtual hosts with the same names in them; one goes.
    #[test]
    fn virtual_hosts_and_users_come_and_go() {
        let mut registry = registry_after([
            Change::AddVhost { name: "v".into() },
            Change::AddVhost { name: "v".into() },
            Change::PutUser { name: "u".into(), password_hash: PasswordHash::NONE, tags: Vec::new() },
            queue("q", &[]),
            bind("amq.fanout", "q", ""),
            bind_exchange("amq.fanout", "amq.topic", ""),
        ]);
        let permit = |vhost: &str| Change::SetPermissions {
            user: "u".into(),
            vhost: vhost.into(),
            configure: String::new(),
            write: "^amq.default$".into(),
            read: ".*".into(),
        };
        for vhost in ["/", "v"] {
            registry.apply(permit(vhost)).unwrap();
        }
        check_refused(&mut registry, permit("w"), "NOT_ALLOWED - vhost w not found");
        let definitions = registry.snapshot();
        assert!(definitions.is_permitted("u", "v", Action::Write, ""));
        assert!(!definitions.is_permitted("u", "v", Action::Configure, "q"));
        assert!(definitions.vhost(b"v").unwrap().queue(b"q").is_none());

        let gone = registry.apply(Change::DeleteVhost { name: "/".into() });
        assert!(matches!(gone, Ok(Applied::VhostQueuesRemoved(queues)) if queues.len() == 1));
        assert!(registry.inbound.is_empty() && registry.queues.is_empty());
        let definitions = registry.snapshot();
        assert!(!definitions.has_vhost_access("u", "/") && definitions.has_vhost_access("u", "v"));
        registry.apply(Change::DeleteUser { name: "u".into() }).unwrap();
        assert!(!registry.snapshot().has_vhost_access("u", "v"));
    }
}
