//! A batch: records that are written to a journal segment at once, under one checksum.
//!
//! ```text
//! magic 8 (the last of them the format), octets of the records 4, checksum 4, epoch 8, segment 8, sequence 8, shard 2, zeros 22
//! records, then zeros up to whole pages
//! ```
//!
//! Little-endian. The checksum is over the header, with zeros in its own place, and the records. It is CRC32C as the crate
//! `crc32c` computes it: with the instruction that x86-64 processors have had since 2008 and ARMv8 has, at 20 to 26 GB/s here,
//! and without dependencies. (`crc-fast`, 53 GB/s here, wants a newer compiler than we do and brings a spin lock;
//! `crc32fast`, 53 GB/s, has the polynomial that misses errors of three bits from 11 KiB on, where this one finds them.)

use super::aligned::{AlignedBuffer, PAGE_OCTETS};

/// The header, in octets.
pub const BATCH_HEAD_OCTETS: usize = 64;

const MAGIC: [u8; 8] = *b"LepusJ\r\x01";
const CHECKSUM_AT: usize = 12;

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The start of the broker that wrote it, counted.
    pub epoch: u64,
    /// The shard that wrote it.
    pub shard: u16,
    /// The journal segment that it was written to.
    pub segment: u64,
    /// Its number within epoch and shard: the first is 1, and none is left out.
    pub sequence: u64,
}

/// A batch that was read and is sound.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// What it says of itself.
    pub head: BatchHead,
    /// Its records.
    pub records: &'a [u8],
    /// What it takes in the file, in octets: whole pages.
    pub octets: usize,
}

/// Why there is no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// Nothing there looks like one.
    Absent,
    /// It begins here, but what it says is not what is there.
    Unsound,
}

/// Makes `buffer` an empty batch, to which records are appended.
pub(super) fn begin(buffer: &mut AlignedBuffer) {
    buffer.clear();
    buffer.resize(BATCH_HEAD_OCTETS);
}

/// Completes a batch: fills its header in and pads it to whole pages.
pub(super) fn seal(buffer: &mut AlignedBuffer, head: &BatchHead) {
    let records = buffer.len().checked_sub(BATCH_HEAD_OCTETS).expect("a batch was begun");
    let records = u32::try_from(records).expect("a batch is shorter than a segment");
    let octets = buffer.as_mut_slice();
    octets[..8].copy_from_slice(&MAGIC);
    octets[8..12].copy_from_slice(&records.to_le_bytes());
    octets[12..16].fill(0);
    octets[16..24].copy_from_slice(&head.epoch.to_le_bytes());
    octets[24..32].copy_from_slice(&head.segment.to_le_bytes());
    octets[32..40].copy_from_slice(&head.sequence.to_le_bytes());
    octets[40..42].copy_from_slice(&head.shard.to_le_bytes());
    octets[42..BATCH_HEAD_OCTETS].fill(0);
    let checksum = crc32c::crc32c(octets);
    octets[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    buffer.pad_to_page();
}

/// What a batch with so many octets of records takes in a file, in octets.
pub(super) fn batch_octets(record_octets: usize) -> usize {
    (BATCH_HEAD_OCTETS + record_octets).next_multiple_of(PAGE_OCTETS)
}

/// What the octets at the front of `octets` would be as a header, if they are long enough for one: whether they begin as
/// one must, and what they say. Proves nothing.
pub(super) fn peek(octets: &[u8]) -> Option<(bool, BatchHead)> {
    let octets = octets.first_chunk::<BATCH_HEAD_OCTETS>()?;
    let head = BatchHead {
        epoch: long_at(octets, 16),
        shard: u16::from_le_bytes([octets[40], octets[41]]),
        segment: long_at(octets, 24),
        sequence: long_at(octets, 32),
    };
    Some((octets[..8] == MAGIC, head))
}

/// The batch at the front of `octets`, proved by its checksum.
///
/// # Errors
/// Says what is there instead.
pub fn take(octets: &[u8]) -> Result<Batch<'_>, BatchFault> {
    let (true, head) = peek(octets).ok_or(BatchFault::Absent)? else { return Err(BatchFault::Absent) };
    let records = u32::from_le_bytes([octets[8], octets[9], octets[10], octets[11]]) as usize;
    let whole = octets.get(..BATCH_HEAD_OCTETS + records).ok_or(BatchFault::Unsound)?;
    let (written, rest) = whole[CHECKSUM_AT..].split_first_chunk::<4>().expect("a header is longer");
    let checksum = crc32c::crc32c(&whole[..CHECKSUM_AT]);
    let checksum = crc32c::crc32c_append(crc32c::crc32c_append(checksum, &[0; 4]), rest);
    if checksum != u32::from_le_bytes(*written) {
        return Err(BatchFault::Unsound);
    }
    Ok(Batch { head, records: &whole[BATCH_HEAD_OCTETS..], octets: batch_octets(records) })
}

fn long_at(octets: &[u8; BATCH_HEAD_OCTETS], at: usize) -> u64 {
    u64::from_le_bytes(octets[at..at + 8].try_into().expect("the slice is 8 octets long"))
}
