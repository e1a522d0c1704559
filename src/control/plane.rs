//! Answers the shards' questions: applies changes, places queues, verifies credentials.
//!
//! A plain value: whoever owns it gives it what is waiting, all at once, and carries out what it leaves, in this order:
//! what is to be kept is committed, then mails about queues, then the snapshot, then the answers. So whoever acts because of
//! an answer finds all shards ready, and finds what was declared durable after a restart.

use super::logins::{Logins, Verification};
use crate::{
    definitions::{
        Applied, Change, Definitions, DurableChanges, Name, PasswordHash, QueueDefinition, QueueId, Registry,
        ShardIndex,
    },
    protocol::exception::Exception,
    shard::{
        control_message::{ControlAnswer, ControlRequest, Operation},
        queue_methods::ANY_SHARD,
        shard_message::Asker,
    },
};
use ahash::AHashMap;
use std::sync::Arc;

/// What is to be done after a round.
#[derive(Default)]
pub struct Outcome {
    /// What is to be kept before anybody is told of anything here. Without a place to keep it, it is dropped.
    pub durable: DurableChanges,
    /// Queues that their home shards are to be told of.
    pub created: Vec<Arc<QueueDefinition>>,
    /// Queues that went with something else.
    pub dropped: Vec<Arc<QueueDefinition>>,
    /// Answers, in the order of the questions.
    pub answers: Vec<(Asker, Result<ControlAnswer, Exception>)>,
    /// Credentials whose verification takes long: to be done elsewhere.
    pub logins: Vec<SlowLogin>,
}

/// Credentials that are verified off the control plane's thread.
pub struct SlowLogin {
    /// Who waits.
    pub asker: Asker,
    /// The user.
    pub user: Name,
    /// The password as sent.
    pub password: Box<[u8]>,
    /// What it is verified against.
    pub hash: PasswordHash,
}

/// See the module's documentation.
pub struct ControlPlane {
    registry: Registry,
    /// How many queues have their home on each shard.
    queues_of_shard: Vec<usize>,
    homes: AHashMap<QueueId, ShardIndex>,
    logins: Logins,
}

impl ControlPlane {
    /// Around what exists already; the second value are the queues that their home shards are to be told of.
    pub fn new(registry: Registry, shard_count: usize) -> (Self, Outcome) {
        let mut plane =
            Self { registry, queues_of_shard: vec![0; shard_count], homes: AHashMap::new(), logins: Logins::default() };
        let mut outcome = Outcome::default();
        let vhosts: Vec<_> = plane.registry.current().vhosts().cloned().collect();
        for queue in vhosts.iter().flat_map(|vhost| vhost.queues()) {
            plane.note_created(queue, &mut outcome);
        }
        outcome.durable = plane.registry.take_durable();
        (plane, outcome)
    }

    /// Whether answering this question may change what is kept.
    pub fn may_change_durable(&self, request: &ControlRequest) -> bool {
        match &request.operation {
            Operation::Change(change) => self.registry.may_change_durable(change),
            Operation::QueueClosed(id, _) => self.registry.may_change_durable(&Change::RemoveQueue { id: *id }),
            Operation::Authenticate { .. } => false,
        }
    }

    /// The definitions with all that was applied.
    pub fn snapshot(&mut self) -> Arc<Definitions> {
        self.registry.snapshot()
    }

    fn apply(&mut self, change: Change, outcome: &mut Outcome) -> Result<Applied, Exception> {
        let change = self.place(change);
        let applied = self.registry.apply(change)?;
        match &applied {
            Applied::Queue { definition, created: true } => {
                self.note_created(definition, outcome);
            }
            Applied::VhostQueuesRemoved(queues) => {
                for queue in queues {
                    self.forget(queue.id);
                    outcome.dropped.push(Arc::clone(queue));
                }
            }
            _ => {}
        }
        Ok(applied)
    }

    /// Answers one question.
    pub fn handle(&mut self, request: ControlRequest, outcome: &mut Outcome) {
        let ControlRequest { from, operation } = request;
        let result = match operation {
            Operation::Change(change) => self.apply(change, outcome).map(ControlAnswer::Applied),
            Operation::QueueClosed(id, count) => {
                self.forget(id);
                self.registry.apply(Change::RemoveQueue { id }).map(|_| ControlAnswer::QueueDeleted(count))
            }
            Operation::Authenticate { user, password } => {
                match self.logins.verify(self.registry.current(), &user, &password) {
                    Verification::Done(is_right) => Ok(ControlAnswer::Authenticated(is_right)),
                    Verification::Slow(hash) => {
                        if let Some(asker) = from {
                            outcome.logins.push(SlowLogin { asker, user, password, hash });
                        }
                        return;
                    }
                }
            }
        };
        outcome.durable.append(self.registry.take_durable());
        if let Some(asker) = from {
            outcome.answers.push((asker, result));
        } else if let Err(exception) = result {
            tracing::error!("a change that nobody waits for was refused: {}", exception.text());
        }
    }

    /// Gives a queue that may live anywhere the shard with the fewest queues.
    fn place(&self, mut change: Change) -> Change {
        if let Change::DeclareQueue { home, .. } = &mut change
            && *home == ANY_SHARD
        {
            let least = (0u16..).zip(&self.queues_of_shard).min_by_key(|(_, count)| **count);
            *home = ShardIndex(least.expect("there is a shard").0);
        }
        change
    }

    fn note_created(&mut self, queue: &Arc<QueueDefinition>, outcome: &mut Outcome) {
        self.queues_of_shard[usize::from(queue.home.0)] += 1;
        self.homes.insert(queue.id, queue.home);
        outcome.created.push(Arc::clone(queue));
    }

    fn forget(&mut self, id: QueueId) {
        if let Some(home) = self.homes.remove(&id) {
            self.queues_of_shard[usize::from(home.0)] -= 1;
        }
    }
}
