//! An extent: one block of a queue's messages as it lies in a queue segment file.
//!
//! ```text
//! magic 8 (the last of them the format), checksum 4, priority 1, zeros 3, count 4, persistent count 4, image octets 4,
//! bodies octets 4, block octets 4, queue 8, persistent octets 8, first position 8, last position 8, unix offset 8, zeros up to 124,
//! checksum of the header 4
//! image, bodies, then zeros up to whole pages
//! ```
//!
//! Little-endian. The checksum (CRC32C) is over the header, with zeros in its own place, image and bodies; the one of the header, which a
//! start reads alone, over the header with zeros in both places. What an image is, is its queue's affair.

use super::aligned::{AlignedBuffer, PAGE_OCTETS};

/// The header, in octets.
pub const EXTENT_HEAD_OCTETS: usize = 128;

const MAGIC: [u8; 8] = *b"LepusE\r\x02";
const CHECKSUM_AT: usize = 8;
const HEAD_CHECKSUM_AT: usize = EXTENT_HEAD_OCTETS - 4;
/// The part of the header behind the checksum that says something.
const FIELDS_AT: usize = 12;
/// What the fields of a head take, in octets.
pub(super) const FIELDS_OCTETS: usize = 64;
const _: () = assert!(FIELDS_AT + FIELDS_OCTETS <= HEAD_CHECKSUM_AT);

/// What an extent says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtentHead {
    /// The queue that it belongs to.
    pub queue: u64,
    /// The priority of all of its messages.
    pub priority: u8,
    /// How many messages.
    pub count: u32,
    /// How many of them are persistent.
    pub persistent_count: u32,
    /// The bodies of the persistent ones, in octets.
    pub persistent_octets: u64,
    /// The position of its first message.
    pub first_position: u64,
    /// The position of its last message.
    pub last_position: u64,
    /// What turns times in the image into milliseconds since 1970.
    pub unix_offset_millis: u64,
    /// The image of the block, in octets.
    pub image_octets: u32,
    /// Large bodies, one after the other, in octets.
    pub bodies_octets: u32,
    /// What the block takes in memory, in octets.
    pub block_octets: u32,
}

impl ExtentHead {
    /// What it takes in the file, in octets: whole pages.
    pub fn whole_octets(&self) -> usize {
        extent_octets(self.image_octets as usize, self.bodies_octets as usize)
    }
}

/// An extent that was read and is sound.
#[derive(Clone, Copy, Debug)]
pub struct Extent<'a> {
    /// What it says of itself.
    pub head: ExtentHead,
    /// The image of the block.
    pub image: &'a [u8],
    /// Large bodies, one after the other.
    pub bodies: &'a [u8],
    /// What it takes in the file, in octets: whole pages.
    pub octets: usize,
}

/// Why there is no extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentFault {
    /// Nothing there looks like one.
    Absent,
    /// It begins here, but ends before its length: how many octets it takes in the file.
    CutOff(usize),
    /// What it says is not what was written.
    Unsound,
}

impl std::fmt::Display for ExtentFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "there is nothing that was written here",
            Self::CutOff(_) => "it ends too early",
            Self::Unsound => "its checksum is wrong",
        })
    }
}

/// What an extent with an image and bodies of so many octets takes in a file, in octets: whole pages.
pub fn extent_octets(image_octets: usize, bodies_octets: usize) -> usize {
    (EXTENT_HEAD_OCTETS + image_octets + bodies_octets).next_multiple_of(PAGE_OCTETS)
}

/// Begins an extent behind whole pages: its image is to be appended, and then the large bodies. Returns where it begins.
pub fn begin_extent(out: &mut AlignedBuffer) -> usize {
    let start = out.len();
    assert!(start.is_multiple_of(PAGE_OCTETS), "an extent begins at a page");
    out.resize(start + EXTENT_HEAD_OCTETS);
    start
}

/// Completes the extent that begins at `start`: fills its header in and pads it to whole pages. The length of the image is not
/// read from `head` but follows from what was appended.
pub fn finish_extent(out: &mut AlignedBuffer, start: usize, head: &mut ExtentHead) {
    let octets = &mut out.as_mut_slice()[start..];
    let image_octets = (octets.len() - EXTENT_HEAD_OCTETS).checked_sub(head.bodies_octets as usize);
    let image_octets = image_octets.expect("bodies were appended");
    head.image_octets = u32::try_from(image_octets).expect("an extent is shorter than 4 GiB");
    octets[..8].copy_from_slice(&MAGIC);
    put_fields(&mut octets[FIELDS_AT..], head);
    let checksum = head_checksum(octets);
    octets[HEAD_CHECKSUM_AT..EXTENT_HEAD_OCTETS].copy_from_slice(&checksum.to_le_bytes());
    let checksum = crc32c::crc32c(octets);
    octets[CHECKSUM_AT..FIELDS_AT].copy_from_slice(&checksum.to_le_bytes());
    out.pad_to_page();
}

/// The checksum of the header at the front of `octets`.
fn head_checksum(octets: &[u8]) -> u32 {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&octets[..CHECKSUM_AT]), &[0; 4]);
    crc32c::crc32c_append(checksum, &octets[FIELDS_AT..HEAD_CHECKSUM_AT])
}

/// What the extent at the front of `octets` says of itself, if its header is sound. Proves nothing of the rest.
pub(super) fn take_head(octets: &[u8]) -> Option<ExtentHead> {
    let header = octets.get(..EXTENT_HEAD_OCTETS).filter(|header| header[..8] == MAGIC)?;
    let is_sound = header[HEAD_CHECKSUM_AT..] == head_checksum(header).to_le_bytes();
    if is_sound { take_fields(&header[FIELDS_AT..]) } else { None }
}

/// The extent at the front of `octets`, proved by its checksum.
///
/// # Errors
/// Says what is there instead.
pub fn take_extent(octets: &[u8]) -> Result<Extent<'_>, ExtentFault> {
    let header = octets.get(..EXTENT_HEAD_OCTETS).filter(|header| header[..8] == MAGIC).ok_or(ExtentFault::Absent)?;
    let head = take_fields(&header[FIELDS_AT..]).expect("the header is longer than its fields");
    let (image_octets, bodies_octets) = (head.image_octets as usize, head.bodies_octets as usize);
    let whole = extent_octets(image_octets, bodies_octets);
    if octets.len() < whole {
        return Err(ExtentFault::CutOff(whole));
    }
    let summed = &octets[..EXTENT_HEAD_OCTETS + image_octets + bodies_octets];
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&summed[..CHECKSUM_AT]), &[0; 4]);
    let checksum = crc32c::crc32c_append(checksum, &summed[FIELDS_AT..]);
    if checksum.to_le_bytes() != summed[CHECKSUM_AT..FIELDS_AT] {
        return Err(ExtentFault::Unsound);
    }
    let (image, bodies) = summed[EXTENT_HEAD_OCTETS..].split_at(image_octets);
    Ok(Extent { head, image, bodies, octets: whole })
}

/// Writes the fields of `head` to the front of `out`.
pub(super) fn put_fields(out: &mut [u8], head: &ExtentHead) {
    out[..4].copy_from_slice(&[head.priority, 0, 0, 0]);
    let shorts = [head.count, head.persistent_count, head.image_octets, head.bodies_octets, head.block_octets];
    for (to, short) in out[4..24].chunks_exact_mut(4).zip(shorts) {
        to.copy_from_slice(&short.to_le_bytes());
    }
    let longs = [head.queue, head.persistent_octets, head.first_position, head.last_position, head.unix_offset_millis];
    for (to, long) in out[24..FIELDS_OCTETS].chunks_exact_mut(8).zip(longs) {
        to.copy_from_slice(&long.to_le_bytes());
    }
}

/// The fields at the front of `octets`; `None` where they are cut off.
pub(super) fn take_fields(octets: &[u8]) -> Option<ExtentHead> {
    let octets = octets.first_chunk::<FIELDS_OCTETS>()?;
    let short = |at: usize| u32::from_le_bytes(octets[at..at + 4].try_into().expect("the slice is 4 octets long"));
    let long = |at: usize| u64::from_le_bytes(octets[at..at + 8].try_into().expect("the slice is 8 octets long"));
    Some(ExtentHead {
        priority: octets[0],
        count: short(4),
        persistent_count: short(8),
        image_octets: short(12),
        bodies_octets: short(16),
        block_octets: short(20),
        queue: long(24),
        persistent_octets: long(32),
        first_position: long(40),
        last_position: long(48),
        unix_offset_millis: long(56),
    })
}
