//! The control plane, whose effects happen one by one, with anything in between.

use crate::{context::Context, database::Database};
use lepus::{
    control::plane::{ControlPlane, Outcome},
    definitions::{Definitions, QueueDefinition},
    shard::control_message::{ControlAnswer, ControlMail, ControlRequest},
};
use std::{collections::VecDeque, sync::Arc};

enum Effect {
    Mail(usize, ControlMail),
    Publish(Arc<Definitions>),
}

pub struct Control {
    plane: ControlPlane,
    requests: VecDeque<ControlRequest>,
    effects: VecDeque<Effect>,
    /// What the shards find when they look.
    pub published: Arc<Definitions>,
    /// One for each shard.
    pub mails: Vec<VecDeque<ControlMail>>,
    /// What a broker that starts finds.
    pub database: Database,
}

impl Control {
    /// Starts with what was kept, and tells the shards of the queues among it, which it returns.
    pub fn start(seed: u64, shard_count: usize, mut database: Database) -> (Self, Vec<Arc<QueueDefinition>>) {
        let registry = database.load(shard_count).with_seeded_names(seed);
        let (mut plane, mut outcome) = ControlPlane::new(registry, shard_count);
        database.commit(std::mem::take(&mut outcome.durable));
        outcome.created.sort_unstable_by_key(|queue| queue.id);
        let published = plane.snapshot();
        let mut mails: Vec<VecDeque<ControlMail>> = std::iter::repeat_with(VecDeque::new).take(shard_count).collect();
        for queue in &outcome.created {
            mails[usize::from(queue.home.0)].push_back(ControlMail::QueueCreated(queue.clone()));
        }
        let control = Self { plane, requests: VecDeque::new(), effects: VecDeque::new(), published, mails, database };
        (control, outcome.created)
    }

    pub fn ask(&mut self, request: ControlRequest) {
        self.requests.push_back(request);
    }

    pub fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.effects.is_empty() && self.mails.iter().all(VecDeque::is_empty)
    }

    /// Does the next thing.
    pub fn step(&mut self, context: &mut Context) {
        if let Some(effect) = self.effects.pop_front() {
            context.activity += 1;
            match effect {
                Effect::Mail(shard, mail) => self.mails[shard].push_back(mail),
                Effect::Publish(definitions) => self.published = definitions,
            }
            return;
        }
        if self.requests.is_empty() {
            return;
        }
        context.activity += 1;
        let mut outcome = Outcome::default();
        for _ in 0..context.random.between(1, 4) {
            if let Some(request) = self.requests.pop_front() {
                self.plane.handle(request, &mut outcome);
            }
        }
        self.database.commit(outcome.durable);
        for queue in outcome.created {
            self.effects.push_back(Effect::Mail(usize::from(queue.home.0), ControlMail::QueueCreated(queue)));
        }
        for queue in outcome.dropped {
            self.effects.push_back(Effect::Mail(usize::from(queue.home.0), ControlMail::QueueDropped(queue.id)));
        }
        self.effects.push_back(Effect::Publish(self.plane.snapshot()));
        let logins = outcome
            .logins
            .into_iter()
            .map(|login| (login.asker, Ok(ControlAnswer::Authenticated(login.hash.verify(&login.password)))));
        for (to, result) in outcome.answers.into_iter().chain(logins) {
            let shard = usize::from(to.connection.shard.0);
            self.effects.push_back(Effect::Mail(shard, ControlMail::Answer { to, result }));
        }
    }
}
