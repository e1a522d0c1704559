//! May this user do that? Asked of the definitions; publishes remember the answer.

use super::Shard;
use crate::{
    connection::Connection,
    definitions::{Action, Exchange, Name, QueueDefinition, Vhost, texts},
    protocol::{
        exception::{ChannelException, Exception},
        reply_code::ReplyCode,
    },
};
use std::sync::Arc;

impl Shard {
    /// Refuses with 403 unless the connection's user may do `action` to the exchange or queue (`kind`) with this name.
    pub(super) fn require_named(
        &mut self,
        slot: u32,
        action: Action,
        kind: &str,
        name: &[u8],
    ) -> Result<(), Exception> {
        let definitions = Arc::clone(&self.definitions);
        let connection = self.connections.get_mut(slot).expect("the connection that asks is there");
        let Connection { user, vhost, write_permitted, write_permitted_version, .. } = connection;
        let is_publish = action == Action::Write && kind == "exchange";
        if *write_permitted_version != definitions.version || write_permitted.len() > PERMISSIONS_KEPT_MAX {
            write_permitted.clear();
            *write_permitted_version = definitions.version;
        }
        if is_publish && write_permitted.get(name) == Some(&true) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(name);
        let resource = if name.is_empty() && kind == "exchange" { DEFAULT_EXCHANGE_RESOURCE } else { &text };
        if definitions.is_permitted(user, vhost, action, resource) {
            if is_publish {
                write_permitted.insert(name.into(), true);
            }
            return Ok(());
        }
        let verb = match action {
            Action::Configure => "configure",
            Action::Write => "write",
            Action::Read => "read",
        };
        let text = format!("{verb} access to {kind} '{resource}' in vhost '{vhost}' refused for user '{user}'");
        Err(ChannelException::new(ReplyCode::AccessRefused, text).into())
    }

    /// The exchange with this name.
    pub(super) fn find_exchange(&self, vhost: &Name, name: &[u8]) -> Result<Arc<Exchange>, Exception> {
        let found = self.definitions.vhost(vhost.as_bytes()).and_then(|vhost| vhost.exchange(name));
        found.cloned().ok_or_else(|| texts::no_exchange(vhost, &String::from_utf8_lossy(name)).into())
    }

    /// The queue with this name.
    pub(super) fn find_queue(&self, vhost: &Name, name: &[u8]) -> Result<Arc<QueueDefinition>, Exception> {
        let found = self.definitions.vhost(vhost.as_bytes()).and_then(|vhost| vhost.queue(name));
        found.cloned().ok_or_else(|| texts::no_queue(vhost, &String::from_utf8_lossy(name)).into())
    }

    /// The virtual host of a connection.
    pub(super) fn vhost_of(&self, slot: u32) -> Option<&Arc<Vhost>> {
        self.definitions.vhost(self.connections.get(slot)?.vhost.as_bytes())
    }
}

/// What permissions call the default exchange.
const DEFAULT_EXCHANGE_RESOURCE: &str = "amq.default";
/// Exchanges that one connection remembers its permission for.
const PERMISSIONS_KEPT_MAX: usize = 1024;
