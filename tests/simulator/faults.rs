//! Mutations: things that a right broker never does, to prove that the checker notices each.

/// What is broken on purpose, once in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A batch between two shards disappears.
    DropBatch,
    /// Two batches between two shards change places.
    SwapBatches,
    /// One publish disappears from a batch.
    LosePublish,
    /// One settlement disappears from a batch.
    LoseSettle,
    /// A settlement arrives twice.
    DuplicateSettle,
    /// A delivery is seen twice.
    DuplicateDelivery,
    /// Two deliveries that follow each other on a consumer are seen the other way round.
    SwapDeliveries,
    /// A confirm is not seen.
    LoseConfirm,
    /// A confirm is seen twice.
    DuplicateConfirm,
    /// One octet of a body is wrong.
    CorruptBody,
    /// The checker believes in a prefetch count that is smaller by one.
    LowerPrefetch,
    /// The same for the limit of a channel.
    LowerChannelPrefetch,
    /// Something is left behind when everything is over.
    LeakConnection,
    /// A commit is answered before it is done.
    ConfirmEarly,
    /// A commit is answered and never done.
    LoseCommit,
    /// A segment of the journal is retired of which something is still needed.
    RetireTooMuch,
    /// A queue's file is removed before the journal says that it may be missing.
    RemoveEarly,
    /// A file is not synced.
    SkipSync,
    /// Names are not synced.
    SkipDirectorySync,
}

/// All of them.
pub const ALL: [Mutation; 19] = [
    Mutation::DropBatch,
    Mutation::SwapBatches,
    Mutation::LosePublish,
    Mutation::LoseSettle,
    Mutation::DuplicateSettle,
    Mutation::DuplicateDelivery,
    Mutation::SwapDeliveries,
    Mutation::LoseConfirm,
    Mutation::DuplicateConfirm,
    Mutation::CorruptBody,
    Mutation::LowerPrefetch,
    Mutation::LowerChannelPrefetch,
    Mutation::LeakConnection,
    Mutation::ConfirmEarly,
    Mutation::LoseCommit,
    Mutation::RetireTooMuch,
    Mutation::RemoveEarly,
    Mutation::SkipSync,
    Mutation::SkipDirectorySync,
];

/// A mutation that waits for its turn.
pub struct Planned {
    mutation: Mutation,
    /// So many occasions pass first.
    wait: usize,
    /// Whether it has happened.
    pub is_done: bool,
}

impl Planned {
    pub fn new(mutation: Mutation, wait: usize) -> Self {
        Self { mutation, wait, is_done: false }
    }

    /// There is an occasion for this mutation: whether it is to happen now.
    pub fn strikes(&mut self, mutation: Mutation) -> bool {
        if self.is_done || self.mutation != mutation {
            return false;
        }
        if self.wait > 0 {
            self.wait -= 1;
            return false;
        }
        self.is_done = true;
        true
    }
}

impl Mutation {
    /// Whether it is one of a disk.
    pub fn is_of_disk(self) -> bool {
        matches!(
            self,
            Self::ConfirmEarly
                | Self::LoseCommit
                | Self::RetireTooMuch
                | Self::RemoveEarly
                | Self::SkipSync
                | Self::SkipDirectorySync
        )
    }

    /// Whether it may hit something that nobody misses: a message for a queue that is deleted, say.
    pub fn may_be_harmless(self) -> bool {
        !matches!(self, Self::DuplicateDelivery | Self::CorruptBody | Self::LeakConnection)
    }
}
