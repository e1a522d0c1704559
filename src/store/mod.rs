//! What is kept on disk, and how it is found again: journals, queue segment files, replay.
//!
//! One journal per shard. What happens to durable queues becomes records ([`record`]), which gather into batches ([`batch`])
//! until the batch before is on the disk ([`journal`]). Blocks of long queues leave memory as extents ([`extent`]) of the
//! queue's own files ([`queue_segment`]). All that asks for something to be read or written is a value ([`disk`]); only
//! [`disk_thread`] and [`files`] touch a disk. [`replay`] makes sense of what a broker has left there.
//!
//! It knows no queues, shards or definitions: a queue is its number, a position a number, an image some octets. Every
//! octet that comes from a disk is doubted until its checksum was right, and is decoded without panicking even then.

pub mod aligned;
pub mod batch;
mod commit_core;
pub mod damage;
pub mod disk;
pub mod disk_thread;
pub mod extent;
pub mod files;
mod hold;
pub mod journal;
mod journal_walk;
pub mod names;
pub mod queue_segment;
pub mod range_set;
pub mod record;
pub mod replay;
pub mod survey;
mod varint;

#[cfg(test)]
mod batch_test;
#[cfg(test)]
mod disk_test;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod hold_test;
#[cfg(test)]
mod journal_test;
#[cfg(test)]
mod replay_test;

pub use aligned::{AlignedBuffer, PAGE_OCTETS};
pub use damage::{Damage, DamageKind, StoreError};
pub use disk::{ColdFileId, ColdPlace, DiskReply, DiskRequest};
pub use extent::{ExtentFault, ExtentHead, begin_extent, finish_extent, take_extent};
pub use journal::{Journal, JournalOptions};
pub use names::cold_path;
pub use queue_segment::{ExtentNote, SegmentContents, put_trailer};
pub use range_set::RangeSet;
pub use record::{Checkpoint, Entry};
pub use replay::{History, ReadSegment};
pub(crate) use varint::{VARINT_OCTETS_MAX, put as put_varint, take as take_varint};
