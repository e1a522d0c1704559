//! What a shard asks of the control plane, and what that tells a shard.

use super::shard_message::Asker;
use crate::{
    definitions::{Applied, Change, Name, QueueDefinition, QueueId},
    protocol::exception::Exception,
};
use std::sync::Arc;

/// A question to the control plane.
#[derive(Debug)]
pub struct ControlRequest {
    /// Who waits for the answer; `None` where nobody does.
    pub from: Option<Asker>,
    /// What is to be done.
    pub operation: Operation,
}

/// See [`ControlRequest`].
#[derive(Debug)]
pub enum Operation {
    /// Change what exists.
    Change(Change),
    /// A queue's shard has closed it: forget it. The answer says that it held so many messages.
    QueueClosed(QueueId, u64),
    /// Verify credentials.
    Authenticate {
        /// The user.
        user: Name,
        /// The password as sent.
        password: Box<[u8]>,
    },
}

/// What the control plane tells a shard. Mails to one shard arrive in order, and before anything that another shard
/// does because of an answer.
#[derive(Debug)]
pub enum ControlMail {
    /// A queue has its home here from now on.
    QueueCreated(Arc<QueueDefinition>),
    /// A queue was deleted with its virtual host.
    QueueDropped(QueueId),
    /// The answer to a question.
    Answer {
        /// Who asked.
        to: Asker,
        /// The answer.
        result: Result<ControlAnswer, Exception>,
    },
}

/// What was asked for has happened.
#[derive(Debug)]
pub enum ControlAnswer {
    /// The change is in the published definitions.
    Applied(Applied),
    /// The queue is gone; it held so many messages.
    QueueDeleted(u64),
    /// Whether the credentials are right.
    Authenticated(bool),
}
