//! What a shard asks of its disk, and what the disk answers: values, so that a test's disk takes the real one's place.
//!
//! Requests of the journal ([`DiskRequest::Commit`]) and all others are two rows: within each they are done in the order in
//! which they were submitted, between the two there is no order.

use super::aligned::AlignedBuffer;

/// What is to be done.
#[derive(Debug)]
pub enum DiskRequest {
    /// Write `octets` at `offset` of a journal segment that was prepared, and sync them. [`DiskReply::Committed`].
    Commit {
        /// The batch's number.
        sequence: u64,
        /// The journal segment.
        segment: u64,
        /// Where in it, in octets.
        offset: u64,
        /// Whole pages.
        octets: AlignedBuffer,
    },
    /// Make a journal segment that can be written in place, durably. [`DiskReply::SegmentPrepared`] or `SegmentRefused`.
    PrepareSegment {
        /// Its number.
        segment: u64,
    },
    /// Nothing in that journal segment is needed any more. No answer.
    RetireSegment {
        /// Its number.
        segment: u64,
    },
    /// All that was forwarded from older epochs is durable on this shard. When all shards have said so, the older epochs'
    /// files are retired. No answer.
    RetireOldEpochs,
    /// Write extents, or a trailer, to a queue segment file. Offset 0 creates it, and its directory.
    /// [`DiskReply::Written`] (not synced) or `WriteRefused`.
    WriteExtents {
        /// Where; the offset is a multiple of the page.
        place: ColdPlace,
        /// Whole pages.
        octets: AlignedBuffer,
        /// Comes back with the answer.
        token: u64,
    },
    /// Read from a queue segment file. [`DiskReply::Read`].
    ReadExtents {
        /// Where; the offset is a multiple of the page.
        place: ColdPlace,
        /// How many, whole pages.
        octets: usize,
        /// Comes back with the answer.
        token: u64,
    },
    /// Make everything durable that was written to these files, and that they exist. [`DiskReply::Synced`].
    SyncFiles {
        /// Which.
        files: Vec<ColdFileId>,
        /// Comes back with the answer.
        token: u64,
    },
    /// Remove a queue segment file, if it is there. No answer.
    RemoveFile {
        /// Which.
        file: ColdFileId,
    },
    /// Remove all segment files of a queue, if there are any. No answer.
    RemoveQueue {
        /// Which queue.
        queue: u64,
        /// Whether its transient files are meant.
        is_transient: bool,
    },
}

/// A queue segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColdFileId {
    /// Its queue.
    pub queue: u64,
    /// Its number.
    pub file: u32,
    /// Whether it is wiped when the broker starts.
    pub is_transient: bool,
}

/// A place in a queue segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColdPlace {
    /// The file.
    pub file: ColdFileId,
    /// In octets.
    pub offset: u64,
}

/// What was done.
#[derive(Debug)]
pub enum DiskReply {
    /// The batch is on the disk for good.
    Committed {
        /// Its number.
        sequence: u64,
        /// What was written, to be used again.
        octets: AlignedBuffer,
    },
    /// The journal segment can be written.
    SegmentPrepared {
        /// Its number.
        segment: u64,
    },
    /// The disk is full: there is no such journal segment.
    SegmentRefused {
        /// Its number.
        segment: u64,
    },
    /// Extents are written. They are not durable until the file is synced.
    Written {
        /// From the request.
        token: u64,
        /// What was written, to be used again.
        octets: AlignedBuffer,
    },
    /// The disk is full: nothing of it counts as written.
    WriteRefused {
        /// From the request.
        token: u64,
        /// What was to be written.
        octets: AlignedBuffer,
    },
    /// Extents were read.
    Read {
        /// From the request.
        token: u64,
        /// As many as were asked for.
        octets: AlignedBuffer,
    },
    /// Everything that was written to the files before is durable.
    Synced {
        /// From the request.
        token: u64,
    },
}
