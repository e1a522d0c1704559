//! Where messages to (exchange, routing key) go, remembered for one version of the definitions.

use crate::{
    connection::QueueHandle,
    definitions::{Definitions, Exchange, Name, RouteSet, Vhost},
    limits::ROUTES_MAX,
};
use ahash::AHashMap;
use smallvec::SmallVec;

/// The queues that a message goes to.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// The queues.
    pub queues: SmallVec<[QueueHandle; 2]>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct RouteCache {
    version: u64,
    exchanges: AHashMap<(Name, Name), u32>,
    by_key: Vec<AHashMap<Box<[u8]>, u32>>,
    routes: Vec<Route>,
    /// Counts how often everything was forgotten, so that indexes from before are known to be stale.
    epoch: u64,
}

impl RouteCache {
    /// Forgets everything if the definitions have changed, or if there is too much.
    pub fn renew(&mut self, version: u64) {
        if self.version != version || self.routes.len() > ROUTES_MAX {
            *self = Self { version, epoch: self.epoch + 1, ..Self::default() };
        }
    }

    /// What indexes hold for: this version of the definitions, as long as nothing was forgotten.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The index of an exchange.
    pub fn exchange(&mut self, vhost: &Name, exchange: &Name) -> u32 {
        let next = u32::try_from(self.by_key.len()).expect("exchanges are bounded");
        let index = *self.exchanges.entry((vhost.clone(), exchange.clone())).or_insert(next);
        if index == next {
            self.by_key.push(AHashMap::new());
        }
        index
    }

    /// The route of a key, if it is remembered.
    #[inline]
    pub fn find(&self, exchange: u32, routing_key: &[u8]) -> Option<u32> {
        self.by_key[exchange as usize].get(routing_key).copied()
    }

    /// Remembers a route; returns its index.
    pub fn remember(&mut self, exchange: u32, routing_key: &[u8], route: Route) -> u32 {
        let index = u32::try_from(self.routes.len()).expect("routes are bounded");
        self.routes.push(route);
        self.by_key[exchange as usize].insert(routing_key.into(), index);
        index
    }

    /// A remembered route.
    #[inline]
    pub fn route(&self, index: u32) -> &Route {
        &self.routes[index as usize]
    }
}

/// Asks the definitions. The second value tells whether the result depends on nothing but the key.
pub fn resolve(
    definitions: &Definitions,
    vhost: &Vhost,
    exchange: &Exchange,
    routing_keys: &[&[u8]],
    properties: &[u8],
    slot_of: impl Fn(crate::definitions::QueueId) -> u32,
) -> (Route, bool) {
    let mut found = RouteSet::default();
    definitions.route(vhost, exchange, routing_keys, properties, &mut found);
    let queues =
        found.queues().iter().map(|queue| QueueHandle { home: queue.home, slot: slot_of(queue.id), id: queue.id });
    (Route { queues: queues.collect() }, !found.looked_at_headers)
}
