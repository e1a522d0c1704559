//! What the files of a data directory are called. Text only; whether they are there is the affair of [`files`](super::files).

use super::disk::ColdFileId;

/// The directory of the journals.
pub const JOURNAL_DIRECTORY: &str = "journal";
/// The directory of the durable queues' segment files.
pub const QUEUES_DIRECTORY: &str = "queues";
/// The directory of segment files that are wiped when the broker starts.
pub const TRANSIENT_DIRECTORY: &str = "transient";

/// A journal segment. They are ordered as they were written, as far as one queue is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The start of the broker that wrote it, counted.
    pub epoch: u64,
    /// The shard that wrote it.
    pub shard: u16,
    /// Its number, from 1 on.
    pub segment: u64,
}

impl SegmentName {
    /// Below the data directory.
    pub fn path(&self) -> String {
        format!("{JOURNAL_DIRECTORY}/{:08x}-{:03x}-{:08x}.journal", self.epoch, self.shard, self.segment)
    }

    /// The segment that a file name in the journals' directory stands for.
    pub fn parse(name: &str) -> Option<SegmentName> {
        let mut numbers = name.strip_suffix(".journal")?.split('-').map(hexadecimal);
        let (epoch, shard, segment) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let name = SegmentName { epoch, shard: u16::try_from(shard).ok()?, segment };
        numbers.next().is_none().then_some(name)
    }
}

/// A prewritten file of the pool, below the data directory.
pub(super) fn free_path(number: u32) -> String {
    format!("{JOURNAL_DIRECTORY}/free-{number:04x}.journal")
}

/// What a segment's name ends with while it is filled with zeros.
pub(super) const UNFINISHED: &str = "journal.new";

/// Whether a file was not filled to its end when the broker stopped.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(UNFINISHED).is_some_and(|name| name.ends_with('.'))
}

/// The number of a prewritten file.
pub(super) fn parse_free(name: &str) -> Option<u32> {
    u32::try_from(hexadecimal(name.strip_suffix(".journal")?.strip_prefix("free-")?)?).ok()
}

/// The empty file by which all epochs below `epoch` are retired, below the data directory.
pub(super) fn retired_path(epoch: u64) -> String {
    format!("{JOURNAL_DIRECTORY}/retired-{epoch:08x}")
}

/// The epoch of such a file.
pub(super) fn parse_retired(name: &str) -> Option<u64> {
    hexadecimal(name.strip_prefix("retired-")?)
}

/// The directory of a queue's segment files, below the data directory.
pub fn queue_directory(queue: u64, is_transient: bool) -> String {
    let directory = if is_transient { TRANSIENT_DIRECTORY } else { QUEUES_DIRECTORY };
    format!("{directory}/{queue:016x}")
}

/// A queue segment file, below the data directory.
pub fn cold_path(file: &ColdFileId) -> String {
    format!("{}/{:08x}.segment", queue_directory(file.queue, file.is_transient), file.file)
}

/// The number of the queue that a directory belongs to.
pub(super) fn parse_queue_directory(name: &str) -> Option<u64> {
    hexadecimal(name).filter(|_| name.len() == 16)
}

/// The number of a queue segment file.
pub(super) fn parse_cold(name: &str) -> Option<u32> {
    u32::try_from(hexadecimal(name.strip_suffix(".segment")?)?).ok()
}

/// A number as we write it: lower case, no sign.
fn hexadecimal(text: &str) -> Option<u64> {
    let is_ours = !text.is_empty() && text.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
    is_ours.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: SegmentName, expected: &str) {
        assert_eq!(name.path(), format!("journal/{expected}"));
        assert_eq!(SegmentName::parse(expected), Some(name));
    }

    /// Goal: a segment is found by its name. Method: there and back, small numbers and the largest.
    #[test]
    fn segments_have_names() {
        check(SegmentName { epoch: 1, shard: 0, segment: 16 }, "00000001-000-00000010.journal");
        let largest = SegmentName { epoch: u64::MAX, shard: u16::MAX, segment: u64::MAX };
        check(largest, "ffffffffffffffff-ffff-ffffffffffffffff.journal");
    }

    /// Goal: what is not ours is left alone. Method: names that miss by a little.
    #[test]
    fn other_names_are_none() {
        for name in [
            "",
            ".journal",
            "free-0001.journal",
            "00000001-000-00000010.journal.new",
            "00000001-000.journal",
            "00000001-000-00000001-1.journal",
            "00000001-10000-00000001.journal",
            "00000001-00A-00000001.journal",
            "+0000001-000-00000001.journal",
            "10000000000000000-000-00000001.journal",
        ] {
            assert_eq!(SegmentName::parse(name), None, "{name}");
        }
        assert_eq!(parse_free("free-001f.journal"), Some(0x1f));
        assert_eq!(parse_free("free-.journal"), None);
        assert_eq!(parse_retired("retired-0000000a"), Some(10));
        assert_eq!(parse_queue_directory("000000000000000a"), Some(10));
        assert_eq!(parse_queue_directory("a"), None);
        assert_eq!(parse_cold("0000000a.segment"), Some(10));
        assert_eq!(parse_cold("100000000.segment"), None);
    }

    /// Goal: files of queues have their places. Method: one of each kind.
    #[test]
    fn queue_files_have_paths() {
        let file = ColdFileId { queue: 255, file: 10, is_transient: false };
        assert_eq!(cold_path(&file), "queues/00000000000000ff/0000000a.segment");
        let file = ColdFileId { is_transient: true, ..file };
        assert_eq!(cold_path(&file), "transient/00000000000000ff/0000000a.segment");
    }
}
