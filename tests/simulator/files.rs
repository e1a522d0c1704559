//! The files of a data directory as a disk has them: what the process sees of each, and what is certain to be there after
//! a failure of the power. Journal segments are written and synced at once; all else becomes certain when it is synced:
//! contents by the file, names by the directory.

use crate::context::Context;
use lepus::store::{ColdFileId, names::SegmentName};
use std::collections::{BTreeMap, BTreeSet};

/// What a disk writes whole or not at all, in octets.
const SECTOR: usize = 512;

/// How much of what was under way is there, in a thousand sectors.
#[derive(Clone, Copy)]
pub struct Tear(u64);

impl Tear {
    pub fn any(context: &mut Context) -> Self {
        Self(context.random.pick(&[0, 100, 500, 900, 1000]))
    }
}

struct Segment {
    octets: Vec<u8>,
    /// `None` in the pool.
    name: Option<SegmentName>,
    durable_name: Option<SegmentName>,
}

#[derive(Clone, Default)]
struct Cold {
    octets: Vec<u8>,
    synced: Vec<u8>,
    is_there: bool,
    is_name_durable: bool,
}

#[derive(Clone, Copy, Default)]
struct Directory {
    is_there: bool,
    is_durable: bool,
}

pub struct Files {
    segment_octets: usize,
    segments: Vec<Segment>,
    /// Which epoch the marker names, if there is one; now, and for certain.
    marker: Option<u64>,
    durable_marker: Option<u64>,
    cold: BTreeMap<(u64, u32), Cold>,
    directories: BTreeMap<u64, Directory>,
    transient: BTreeMap<(u64, u32), Vec<u8>>,
}

/// What was done to a file while no broker ran.
pub struct Damage {
    /// The file, below the data directory.
    pub path: String,
    pub what: String,
    undo: Undo,
}

impl Damage {
    /// Whether what a broker says of it names the file; of a batch that is not sound another file of the same journal may be
    /// named, in which it could have been.
    pub fn is_named_in(&self, what: &str) -> bool {
        let journal =
            self.path.rsplit_once('-').filter(|_| self.what.starts_with("flipped")).map(|(journal, _)| journal);
        what.contains(&self.path) || journal.is_some_and(|journal| what.contains(journal))
    }
}

enum Undo {
    Segment(SegmentName, Option<Vec<u8>>),
    Cold((u64, u32), Cold),
}

impl Files {
    pub fn new(segment_octets: usize) -> Self {
        Self {
            segment_octets,
            segments: Vec::new(),
            marker: None,
            durable_marker: None,
            cold: BTreeMap::new(),
            directories: BTreeMap::new(),
            transient: BTreeMap::new(),
        }
    }

    fn find(&self, name: &SegmentName) -> Option<usize> {
        self.segments.iter().position(|segment| segment.name.as_ref() == Some(name))
    }

    pub fn has_pooled(&self) -> bool {
        self.segments.iter().any(|segment| segment.name.is_none())
    }

    /// A segment that can be written: one of the pool with what was in it, or a new one.
    pub fn prepare_segment(&mut self, name: SegmentName, is_new: bool) {
        assert!(self.find(&name).is_none(), "prepared a segment twice");
        let pooled = self.segments.iter().position(|segment| segment.name.is_none()).filter(|_| !is_new);
        let at = pooled.unwrap_or_else(|| {
            let octets = vec![0; self.segment_octets];
            self.segments.push(Segment { octets, name: None, durable_name: None });
            self.segments.len() - 1
        });
        self.segments[at].name = Some(name);
    }

    pub fn sync_journal_directory(&mut self) {
        for segment in &mut self.segments {
            segment.durable_name = segment.name;
        }
        self.durable_marker = self.marker;
        // The pool keeps a few.
        let mut pooled = 0;
        self.segments.retain(|segment| {
            pooled += usize::from(segment.name.is_none());
            segment.name.is_some() || pooled <= 3
        });
    }

    pub fn free_segment(&mut self, name: &SegmentName) {
        if let Some(at) = self.find(name) {
            self.segments[at].name = None;
        }
    }

    pub fn put_marker(&mut self, epoch: u64) {
        self.marker = Some(epoch);
    }

    pub fn remove_marker(&mut self) {
        self.marker = None;
    }

    pub fn segments_below(&self, epoch: u64) -> Vec<SegmentName> {
        let mut names: Vec<_> = self.segments.iter().filter_map(|segment| segment.name).collect();
        names.retain(|name| name.epoch < epoch);
        names.sort_unstable();
        names
    }

    /// As a broker that starts does it.
    pub fn free_epochs_below_marker(&mut self) {
        if let Some(epoch) = self.marker {
            for name in self.segments_below(epoch) {
                self.free_segment(&name);
            }
        }
        self.sync_journal_directory();
        self.marker = None;
    }

    /// All segments that are not retired.
    pub fn segments(&self) -> Vec<SegmentName> {
        let mut names: Vec<_> = self.segments.iter().filter_map(|segment| segment.name).collect();
        names.retain(|name| self.marker.is_none_or(|epoch| name.epoch >= epoch));
        names.sort_unstable();
        names
    }

    pub fn segment(&self, name: &SegmentName) -> Option<&[u8]> {
        self.find(name).map(|at| &*self.segments[at].octets)
    }

    pub fn write_segment(&mut self, name: &SegmentName, offset: usize, octets: &[u8]) {
        let at = self.find(name).expect("it was prepared");
        self.segments[at].octets[offset..offset + octets.len()].copy_from_slice(octets);
    }

    pub fn tear_segment(
        &mut self,
        context: &mut Context,
        name: &SegmentName,
        offset: usize,
        octets: &[u8],
        tear: Tear,
    ) {
        let at = self.find(name).expect("it was prepared");
        for (sector, octets) in octets.chunks(SECTOR).enumerate() {
            if context.random.permille(tear.0) {
                let at_octet = offset + sector * SECTOR;
                self.segments[at].octets[at_octet..at_octet + octets.len()].copy_from_slice(octets);
            }
        }
    }

    /// Whether the directory was not there.
    pub fn create_cold(&mut self, file: &ColdFileId) -> bool {
        if file.is_transient {
            self.transient.insert((file.queue, file.file), Vec::new());
            return false;
        }
        let directory = self.directories.entry(file.queue).or_default();
        let is_new = !std::mem::replace(&mut directory.is_there, true);
        let cold = self.cold.entry((file.queue, file.file)).or_default();
        cold.octets.clear();
        cold.is_there = true;
        is_new
    }

    fn content_mut(&mut self, file: &ColdFileId) -> &mut Vec<u8> {
        let key = (file.queue, file.file);
        if file.is_transient {
            return self.transient.get_mut(&key).expect("it was created");
        }
        &mut self.cold.get_mut(&key).filter(|cold| cold.is_there).expect("it was created").octets
    }

    pub fn write_cold(&mut self, file: &ColdFileId, offset: usize, octets: &[u8]) {
        let content = self.content_mut(file);
        if content.len() < offset + octets.len() {
            content.resize(offset + octets.len(), 0);
        }
        content[offset..offset + octets.len()].copy_from_slice(octets);
    }

    pub fn tear_cold(&mut self, context: &mut Context, file: &ColdFileId, offset: usize, octets: &[u8], tear: Tear) {
        for (sector, octets) in octets.chunks(SECTOR).enumerate() {
            if context.random.permille(tear.0) {
                self.write_cold(file, offset + sector * SECTOR, octets);
            }
        }
    }

    pub fn read_cold(&self, file: &ColdFileId, offset: usize, octets: usize) -> Option<&[u8]> {
        let key = (file.queue, file.file);
        let content = if file.is_transient {
            self.transient.get(&key)?
        } else {
            &self.cold.get(&key).filter(|cold| cold.is_there)?.octets
        };
        content.get(offset..offset + octets)
    }

    pub fn sync_cold(&mut self, file: &ColdFileId) {
        let cold = self.cold.get_mut(&(file.queue, file.file)).expect("it was created");
        cold.synced.clone_from(&cold.octets);
    }

    pub fn is_there(&self, file: &ColdFileId) -> bool {
        self.cold.get(&(file.queue, file.file)).is_some_and(|cold| cold.is_there)
    }

    pub fn is_name_durable(&self, file: &ColdFileId) -> bool {
        self.cold.get(&(file.queue, file.file)).is_some_and(|cold| cold.is_name_durable)
            && self.directories.get(&file.queue).is_some_and(|directory| directory.is_durable)
    }

    pub fn sync_queue_directory(&mut self, queue: u64) {
        for cold in self.of_queue(queue) {
            cold.is_name_durable = cold.is_there;
        }
        self.forget_removed();
    }

    /// All names of queues' files, as a broker that starts does it.
    pub fn sync_queue_names(&mut self) {
        for cold in self.cold.values_mut() {
            cold.is_name_durable = cold.is_there;
        }
        self.forget_removed();
        self.sync_queues_directory();
    }

    pub fn sync_queues_directory(&mut self) {
        for directory in self.directories.values_mut() {
            directory.is_durable = directory.is_there;
        }
    }

    fn of_queue(&mut self, queue: u64) -> impl Iterator<Item = &mut Cold> {
        self.cold.range_mut((queue, 0)..=(queue, u32::MAX)).map(|(_, cold)| cold)
    }

    fn forget_removed(&mut self) {
        self.cold.retain(|_, cold| cold.is_there || cold.is_name_durable);
    }

    pub fn remove_cold(&mut self, file: &ColdFileId) {
        if file.is_transient {
            self.transient.remove(&(file.queue, file.file));
        } else if let Some(cold) = self.cold.get_mut(&(file.queue, file.file)) {
            cold.is_there = false;
            self.forget_removed();
        }
    }

    pub fn remove_queue(&mut self, queue: u64, is_transient: bool) {
        if is_transient {
            self.transient.retain(|(other, _), _| *other != queue);
            return;
        }
        for cold in self.of_queue(queue) {
            cold.is_there = false;
        }
        self.forget_removed();
        if let Some(directory) = self.directories.get_mut(&queue) {
            directory.is_there = false;
        }
    }

    pub fn wipe_transient(&mut self) {
        self.transient.clear();
    }

    /// The durable queues' files, with their lengths.
    pub fn cold_files(&self) -> Vec<(ColdFileId, u64)> {
        let there = self.cold.iter().filter(|(_, cold)| cold.is_there);
        there
            .map(|((queue, file), cold)| {
                let id = ColdFileId { queue: *queue, file: *file, is_transient: false };
                (id, cold.octets.len() as u64)
            })
            .collect()
    }

    /// The power fails: what is not certain is there or not.
    pub fn lose_power(&mut self, context: &mut Context) {
        let random = &mut context.random;
        let chance = random.pick(&[0, 200, 500, 800, 1000]);
        for segment in &mut self.segments {
            if segment.name != segment.durable_name && !random.permille(chance) {
                segment.name = segment.durable_name;
            }
            segment.durable_name = segment.name;
        }
        if self.marker != self.durable_marker && !random.permille(chance) {
            self.marker = self.durable_marker;
        }
        self.durable_marker = self.marker;
        for directory in self.directories.values_mut() {
            if directory.is_there != directory.is_durable && !random.permille(chance) {
                directory.is_there = directory.is_durable;
            }
            directory.is_durable = directory.is_there;
        }
        let tear = Tear::any(context);
        for cold in self.cold.values_mut() {
            if cold.is_there != cold.is_name_durable && !context.random.permille(chance) {
                cold.is_there = cold.is_name_durable;
            }
            cold.is_name_durable = cold.is_there;
            if cold.octets != cold.synced {
                cold.octets = mixed(context, &cold.synced, &cold.octets, tear);
                cold.synced.clone_from(&cold.octets);
            }
        }
        let gone: BTreeSet<u64> =
            self.directories.iter().filter(|(_, directory)| !directory.is_there).map(|(queue, _)| *queue).collect();
        self.cold.retain(|(queue, _), cold| cold.is_there && !gone.contains(queue));
    }
}

/// Of each sector the old or the new content.
fn mixed(context: &mut Context, old: &[u8], new: &[u8], tear: Tear) -> Vec<u8> {
    let mut octets = match context.random.below(3) {
        0 => old.len(),
        1 => new.len(),
        _ => context.random.between(old.len().min(new.len()), old.len().max(new.len())),
    };
    octets = octets.next_multiple_of(SECTOR);
    let mut mixed = vec![0; octets];
    for (sector, out) in mixed.chunks_mut(SECTOR).enumerate() {
        let from = if context.random.permille(tear.0) { new } else { old };
        let at = sector * SECTOR;
        let available = from.len().saturating_sub(at).min(out.len());
        if available > 0 {
            out[..available].copy_from_slice(&from[at..at + available]);
        }
    }
    mixed
}

impl Files {
    /// The last sound batch of an epoch's journal of a shard: where it lies, and whether it is a mark.
    fn last_batch(&self, epoch: u64, shard: u16) -> Option<(SegmentName, std::ops::Range<usize>, bool)> {
        let mut last = None;
        for name in self.segments().into_iter().filter(|name| (name.epoch, name.shard) == (epoch, shard)) {
            let octets = self.segment(&name).expect("it is in the list");
            let mut at = 0;
            while at < octets.len() {
                let batch = lepus::store::batch::take(&octets[at..]).ok();
                let own = batch.filter(|batch| {
                    (batch.head.epoch, batch.head.shard, batch.head.segment) == (name.epoch, name.shard, name.segment)
                });
                let Some(batch) = own else {
                    at += lepus::store::PAGE_OCTETS;
                    continue;
                };
                let mut records = lepus::store::record::Records::new(batch.records);
                let is_mark = records.all(|record| matches!(record, Ok(lepus::store::record::Record::Mark)));
                last = Some((name, at..at + batch.octets, is_mark));
                at += batch.octets;
            }
        }
        last
    }

    /// Flips, cuts off or removes something. `None` where that could not be told from what a failure of the power does.
    pub fn damage(&mut self, context: &mut Context) -> Option<Damage> {
        let segments = self.segments();
        if !segments.is_empty() && context.random.permille(600) {
            let name = context.random.pick(&segments);
            return self.damage_segment(context, name);
        }
        let files = self.cold_files();
        if files.is_empty() {
            return None;
        }
        let (id, octets) = context.random.pick(&files);
        let key = (id.queue, id.file);
        let cold = self.cold.get_mut(&key).expect("it is in the list");
        let undo = Undo::Cold(key, cold.clone());
        let octets = usize::try_from(octets).expect("files are short");
        let what = match context.random.below(4) {
            0 => {
                cold.is_there = false;
                "removed".into()
            }
            1 => {
                cold.octets.truncate(context.random.below(octets + 1));
                format!("cut off to {} octets", cold.octets.len())
            }
            _ if octets == 0 => return None,
            _ => {
                let at = context.random.below(octets);
                cold.octets[at] ^= 1 << context.random.below(8);
                format!("flipped at {at}")
            }
        };
        cold.synced.clone_from(&cold.octets);
        cold.is_name_durable = cold.is_there;
        self.forget_removed();
        Some(Damage { path: lepus::store::cold_path(&id), what, undo })
    }

    fn damage_segment(&mut self, context: &mut Context, name: SegmentName) -> Option<Damage> {
        let last = self.last_batch(name.epoch, name.shard);
        // That the last file of a journal was there nothing can tell.
        let is_followed = self
            .segments()
            .iter()
            .any(|other| (other.epoch, other.shard) == (name.epoch, name.shard) && other.segment > name.segment);
        let at = self.find(&name).expect("it is in the list");
        let segment = &mut self.segments[at];
        let undo = Undo::Segment(name, Some(segment.octets.clone()));
        let what = match context.random.below(4) {
            0 if !is_followed => return None,
            0 => {
                segment.name = None;
                segment.durable_name = None;
                "removed".into()
            }
            1 => {
                segment.octets.truncate(context.random.below(self.segment_octets));
                format!("cut off to {} octets", segment.octets.len())
            }
            _ => {
                let used = segment.octets.iter().rposition(|octet| *octet != 0)?;
                let flipped = context.random.below(used + 1);
                if last.is_some_and(|(last, range, is_mark)| last == name && range.contains(&flipped) && !is_mark) {
                    return None;
                }
                segment.octets[flipped] ^= 1 << context.random.below(8);
                format!("flipped at {flipped}")
            }
        };
        Some(Damage { path: name.path(), what, undo })
    }

    /// The file is as it was before.
    pub fn repair(&mut self, damage: Damage) {
        match damage.undo {
            Undo::Segment(name, octets) => {
                let octets = octets.expect("it was there");
                if let Some(at) = self.find(&name) {
                    self.segments[at].octets = octets;
                } else {
                    self.segments.push(Segment { octets, name: Some(name), durable_name: Some(name) });
                }
            }
            Undo::Cold(key, cold) => {
                self.cold.insert(key, cold);
            }
        }
    }
}
