//! A queue segment file: extents one after the other, and, once it is complete, a trailer that lists them.
//!
//! ```text
//! notes: each offset 8, octets 4, then the fields of the extent's head
//! zeros, so that the trailer ends with its footer at the end of a page
//! footer: magic 8 (the last of them the format), checksum 4, notes 4, queue 8, trailer octets 8
//! ```
//!
//! Little-endian. The checksum (CRC32C) is over the whole trailer, with zeros in its own place. With a trailer the file's
//! messages are counted at start without reading them. Without one, the broker stopped before the file was full, and the
//! extents are looked at one by one.

use super::aligned::{AlignedBuffer, PAGE_OCTETS};
use super::extent::{self, ExtentFault, ExtentHead, extent_octets};
use std::io;

const MAGIC: [u8; 8] = *b"LepusQ\r\x01";
const FOOTER_OCTETS: usize = 32;
const NOTE_OCTETS: usize = 12 + extent::FIELDS_OCTETS;

/// An extent that is in a file, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentNote {
    /// Where it begins in the file.
    pub offset: u64,
    /// What it takes there: whole pages.
    pub octets: u32,
    /// What it says of itself.
    pub head: ExtentHead,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentContents {
    /// Its sound extents, one behind the other from the front.
    pub notes: Vec<ExtentNote>,
    /// Whether a sound trailer was there. The extents themselves were not looked at then.
    pub is_complete: bool,
    /// Where the last of the sound extents ends; with a trailer, the end of the file.
    pub sound_octets: u64,
}

/// What a trailer with so many notes takes in a file, in octets: whole pages.
pub fn trailer_octets(notes: usize) -> usize {
    (notes * NOTE_OCTETS + FOOTER_OCTETS).next_multiple_of(PAGE_OCTETS)
}

/// Appends a trailer to whole pages. `notes` are all extents of the file, in order, without gaps; at least one.
pub fn put_trailer(out: &mut AlignedBuffer, notes: &[ExtentNote]) {
    let start = out.len();
    assert!(start.is_multiple_of(PAGE_OCTETS), "a trailer begins at a page");
    let octets = trailer_octets(notes.len());
    out.resize(start + octets);
    let trailer = &mut out.as_mut_slice()[start..];
    for (to, note) in trailer.chunks_exact_mut(NOTE_OCTETS).zip(notes) {
        to[..8].copy_from_slice(&note.offset.to_le_bytes());
        to[8..12].copy_from_slice(&note.octets.to_le_bytes());
        extent::put_fields(&mut to[12..], &note.head);
    }
    let queue = notes.first().expect("a file has an extent at least").head.queue;
    let footer = &mut trailer[octets - FOOTER_OCTETS..];
    footer[..8].copy_from_slice(&MAGIC);
    footer[12..16].copy_from_slice(&u32::try_from(notes.len()).expect("extents take octets").to_le_bytes());
    footer[16..24].copy_from_slice(&queue.to_le_bytes());
    footer[24..].copy_from_slice(&(octets as u64).to_le_bytes());
    let checksum = crc32c::crc32c(trailer);
    trailer[octets - FOOTER_OCTETS + 8..][..4].copy_from_slice(&checksum.to_le_bytes());
}

/// Finds out what is in a file of `file_octets` that belongs to `queue`: from its trailer, if the journal knows the whole file to be
/// durable (`trusted_octets`), else from its extents, each of which is read and proved then, but for those before
/// `trusted_octets`: of these only the head is read. `read` gives so many octets from an offset.
///
/// # Errors
/// Those of `read`. What is damaged is no error but not sound.
pub fn read_notes(
    read: &mut dyn FnMut(u64, usize) -> io::Result<Vec<u8>>,
    file_octets: u64,
    queue: u64,
    trusted_octets: u64,
) -> io::Result<SegmentContents> {
    // A trailer may be there, after a failure of the power, without the extents that it lists.
    if trusted_octets >= file_octets
        && let Some(notes) = read_trailer(read, file_octets, queue)?
    {
        return Ok(SegmentContents { notes, is_complete: true, sound_octets: file_octets });
    }
    let mut contents = SegmentContents::default();
    loop {
        let offset = contents.sound_octets;
        let trusted = if offset < trusted_octets {
            read_head(read, offset, trusted_octets.min(file_octets), queue)?
        } else {
            None
        };
        let note = match trusted {
            Some(note) => Some(note),
            None => read_extent(read, offset, file_octets, queue)?,
        };
        let Some(note) = note else { break };
        contents.sound_octets += u64::from(note.octets);
        contents.notes.push(note);
    }
    Ok(contents)
}

/// The notes of a sound trailer that fits the file.
pub(super) fn read_trailer(
    read: &mut dyn FnMut(u64, usize) -> io::Result<Vec<u8>>,
    file_octets: u64,
    queue: u64,
) -> io::Result<Option<Vec<ExtentNote>>> {
    let page = PAGE_OCTETS as u64;
    if file_octets < page || !file_octets.is_multiple_of(page) {
        return Ok(None);
    }
    let mut trailer = read(file_octets - page, PAGE_OCTETS)?;
    let Some((octets, count)) = take_footer(&trailer, queue) else { return Ok(None) };
    if octets as u64 > file_octets || octets != trailer_octets(count) {
        return Ok(None);
    }
    if octets > PAGE_OCTETS {
        trailer = read(file_octets - octets as u64, octets)?;
    }
    let notes = take_notes(&trailer, count, queue);
    let is_whole = |notes: &Vec<ExtentNote>| {
        notes.last().is_some_and(|last| last.offset + u64::from(last.octets) == file_octets - octets as u64)
    };
    Ok(notes.filter(is_whole))
}

/// The length of the trailer and the number of its notes, from its last page.
fn take_footer(page: &[u8], queue: u64) -> Option<(usize, usize)> {
    let footer = page.last_chunk::<FOOTER_OCTETS>().filter(|footer| footer[..8] == MAGIC)?;
    let count = u32::from_le_bytes([footer[12], footer[13], footer[14], footer[15]]);
    let long = |at: usize| u64::from_le_bytes(footer[at..at + 8].try_into().expect("the slice is 8 octets long"));
    let octets = usize::try_from(long(24)).ok().filter(|_| long(16) == queue)?;
    Some((octets, usize::try_from(count).ok()?))
}

/// The notes of a trailer, if it is sound and they follow each other.
fn take_notes(trailer: &[u8], count: usize, queue: u64) -> Option<Vec<ExtentNote>> {
    let (before, rest) = trailer.split_at_checked(trailer.len().checked_sub(FOOTER_OCTETS)? + 8)?;
    let (written, rest) = rest.split_first_chunk::<4>()?;
    let checksum = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), rest);
    if checksum != u32::from_le_bytes(*written) {
        return None;
    }
    let mut notes = Vec::new();
    let mut end = 0_u64;
    for note in trailer.chunks_exact(NOTE_OCTETS).take(count) {
        let offset = u64::from_le_bytes(note[..8].try_into().expect("the slice is 8 octets long"));
        let octets = u32::from_le_bytes(note[8..12].try_into().expect("the slice is 4 octets long"));
        let note = ExtentNote { offset, octets, head: extent::take_fields(&note[12..])? };
        if offset != end || note.head.queue != queue || whole_octets(&note.head) != u64::from(octets) {
            return None;
        }
        end += u64::from(octets);
        notes.push(note);
    }
    (notes.len() == count).then_some(notes)
}

fn whole_octets(head: &ExtentHead) -> u64 {
    extent_octets(head.image_octets as usize, head.bodies_octets as usize) as u64
}

/// What an extent at an offset says of itself, if it ends before `end`.
fn read_head(
    read: &mut dyn FnMut(u64, usize) -> io::Result<Vec<u8>>,
    offset: u64,
    end: u64,
    queue: u64,
) -> io::Result<Option<ExtentNote>> {
    if end.saturating_sub(offset) < PAGE_OCTETS as u64 {
        return Ok(None);
    }
    let page = read(offset, PAGE_OCTETS)?;
    let head = extent::take_head(&page).filter(|head| head.queue == queue);
    let note =
        head.and_then(|head| Some(ExtentNote { offset, octets: u32::try_from(head.whole_octets()).ok()?, head }));
    Ok(note.filter(|note| offset + u64::from(note.octets) <= end))
}

/// The extent at an offset, if it is sound and ends in the file.
pub(super) fn read_extent(
    read: &mut dyn FnMut(u64, usize) -> io::Result<Vec<u8>>,
    offset: u64,
    file_octets: u64,
    queue: u64,
) -> io::Result<Option<ExtentNote>> {
    let rest = file_octets.saturating_sub(offset);
    if rest < PAGE_OCTETS as u64 {
        return Ok(None);
    }
    let mut octets = read(offset, PAGE_OCTETS)?;
    if let Err(ExtentFault::CutOff(whole)) = extent::take_extent(&octets)
        && whole as u64 <= rest
    {
        octets = read(offset, whole)?;
    }
    let extent = extent::take_extent(&octets).ok().filter(|extent| extent.head.queue == queue);
    let Some(extent) = extent else { return Ok(None) };
    let Ok(octets) = u32::try_from(extent.octets) else { return Ok(None) };
    Ok(Some(ExtentNote { offset, octets, head: extent.head }))
}
