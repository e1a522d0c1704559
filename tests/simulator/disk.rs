//! The disk of all shards, as a value: what was asked of it and not done, and what became of the files.
//!
//! Each shard has two rows of requests, as with the real one's threads: commits, and all else. Nothing is done before somebody
//! steps it, so that the broker may end with anything under way. What a file holds and what it will hold for certain after
//! a failure of the power are two things (`files`).

use crate::{
    context::Context,
    faults::Mutation,
    files::{Files, Tear},
};
use lepus::store::{AlignedBuffer, ColdFileId, DiskReply, DiskRequest, cold_path, names::SegmentName};
use std::collections::{BTreeSet, VecDeque};

/// How a broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order: all that was asked of the disk is done.
    Clean,
    /// `kill -9`, or a disk that has refused a write or a sync: what was written is there.
    Kill,
    /// What was not synced is there, or not, sector by sector.
    PowerLoss,
}

/// What one shard has asked, and what it has not been told.
#[derive(Default)]
struct Rows {
    commits: VecDeque<DiskRequest>,
    others: VecDeque<DiskRequest>,
    replies: VecDeque<DiskReply>,
    /// Nothing of the row is done before this step.
    commits_stalled_until: u64,
    others_stalled_until: u64,
    names: Names,
}

/// What the thread of the second row remembers of names that are not durable.
#[derive(Default)]
struct Names {
    created_in: BTreeSet<(u64, bool)>,
    created_directory: bool,
    removed_in: BTreeSet<u64>,
    cut_off: BTreeSet<ColdFileId>,
    has_retired: bool,
}

pub struct Disk {
    pub files: Files,
    epoch: u64,
    rows: Vec<Rows>,
    shards_done: usize,
    pub is_full: bool,
    /// How often something was refused for want of room.
    pub refusals: u64,
    pub commits: u64,
    pub page_outs: u64,
    pub loads: u64,
    pub retired: u64,
    /// A commit that was answered before it was done.
    early: Option<usize>,
}

impl Disk {
    pub fn new(segment_octets: usize) -> Self {
        Self {
            files: Files::new(segment_octets),
            epoch: 0,
            rows: Vec::new(),
            shards_done: 0,
            is_full: false,
            refusals: 0,
            commits: 0,
            page_outs: 0,
            loads: 0,
            retired: 0,
            early: None,
        }
    }

    /// A broker starts.
    pub fn open(&mut self, epoch: u64, shard_count: usize) {
        self.epoch = epoch;
        self.rows = std::iter::repeat_with(Rows::default).take(shard_count).collect();
        self.shards_done = 0;
        self.early = None;
        self.files.wipe_transient();
        self.files.free_epochs_below_marker();
    }

    pub fn submit(&mut self, shard: usize, request: DiskRequest) {
        let rows = &mut self.rows[shard];
        match request {
            DiskRequest::Commit { .. } => rows.commits.push_back(request),
            _ => rows.others.push_back(request),
        }
    }

    pub fn try_reply(&mut self, shard: usize) -> Option<DiskReply> {
        self.rows.get_mut(shard)?.replies.pop_front()
    }

    pub fn is_idle(&self) -> bool {
        self.rows.iter().all(|rows| rows.commits.is_empty() && rows.others.is_empty() && rows.replies.is_empty())
    }

    /// Does one thing, somewhere.
    pub fn step(&mut self, context: &mut Context) {
        if self.rows.is_empty() {
            return;
        }
        let shard = context.random.below(self.rows.len());
        let is_commit = context.random.permille(500);
        let rows = &mut self.rows[shard];
        let stalled_until = if is_commit { &mut rows.commits_stalled_until } else { &mut rows.others_stalled_until };
        if *stalled_until > context.step {
            return;
        }
        if context.random.permille(10) {
            *stalled_until = context.step + context.random.between(20, 400) as u64;
            return;
        }
        self.do_next(context, shard, is_commit);
    }

    /// Does all that was asked.
    pub fn run_all(&mut self, context: &mut Context) {
        for shard in 0..self.rows.len() {
            while self.do_next(context, shard, true) || self.do_next(context, shard, false) {}
        }
    }

    fn do_next(&mut self, context: &mut Context, shard: usize, is_commit: bool) -> bool {
        let rows = &mut self.rows[shard];
        let row = if is_commit { &mut rows.commits } else { &mut rows.others };
        if is_commit
            && self.early.is_none()
            && let Some(DiskRequest::Commit { sequence, octets, .. }) = row.front()
            && context.strikes(Mutation::ConfirmEarly)
        {
            // It is told of, and done much later.
            let (sequence, octets) = (*sequence, AlignedBuffer::with_capacity(octets.len()));
            rows.commits_stalled_until = context.step + 2000;
            rows.replies.push_back(DiskReply::Committed { sequence, octets });
            self.early = Some(shard);
            context.end_soon(End::Kill);
            return false;
        }
        if is_commit && self.early == Some(shard) {
            return false;
        }
        let Some(request) = row.pop_front() else { return false };
        context.activity += 1;
        let mut steps = usize::MAX;
        if let Some(reply) = self.execute(context, shard, request, &mut steps) {
            self.rows[shard].replies.push_back(reply);
        }
        true
    }

    /// Does what is asked, as far as `steps` reach: where those end, the broker ends.
    fn execute(
        &mut self,
        context: &mut Context,
        shard: usize,
        request: DiskRequest,
        steps: &mut usize,
    ) -> Option<DiskReply> {
        context.trace(|| format!("disk of shard {shard}: {}", told(&request)));
        let number = u16::try_from(shard).expect("few");
        let name = |segment| SegmentName { epoch: self.epoch, shard: number, segment };
        match request {
            DiskRequest::Commit { sequence, segment, offset, octets } => {
                self.commits += 1;
                let offset = usize::try_from(offset).expect("segments are short");
                if let Some((queue, file)) = gone_file(octets.as_slice())
                    && context.strikes(Mutation::RemoveEarly)
                {
                    // The file goes, and the broker ends before the batch is there that says so.
                    self.files.remove_cold(&ColdFileId { queue, file, is_transient: false });
                    self.files.sync_queue_directory(queue);
                    context.end_soon(End::Kill);
                    return None;
                }
                if context.strikes(Mutation::LoseCommit) {
                    context.end_soon(End::Kill);
                } else {
                    self.files.write_segment(&name(segment), offset, octets.as_slice());
                }
                Some(DiskReply::Committed { sequence, octets })
            }
            DiskRequest::PrepareSegment { segment } => {
                if self.is_full && (!self.files.has_pooled() || context.random.permille(500)) {
                    self.refusals += 1;
                    return Some(DiskReply::SegmentRefused { segment });
                }
                let name = name(segment);
                let is_new = context.random.permille(300);
                take(steps)?;
                self.files.prepare_segment(name, is_new);
                self.rows[shard].names.has_retired = false;
                take(steps)?;
                self.files.sync_journal_directory();
                Some(DiskReply::SegmentPrepared { segment })
            }
            DiskRequest::RetireSegment { segment } => {
                self.retired += 1;
                let name = name(segment);
                self.sync_removals(shard, steps)?;
                if std::mem::replace(&mut self.rows[shard].names.has_retired, true) {
                    take(steps)?;
                    self.files.sync_journal_directory();
                }
                take(steps)?;
                self.files.free_segment(&name);
                if context.strikes(Mutation::RetireTooMuch) {
                    let next = SegmentName { segment: segment + 1, ..name };
                    self.files.free_segment(&next);
                    self.files.sync_journal_directory();
                    context.end_soon(End::Kill);
                }
                None
            }
            DiskRequest::RetireOldEpochs => {
                self.sync_removals(shard, steps)?;
                self.shards_done += 1;
                if self.shards_done == self.rows.len() {
                    self.retire_old_epochs(steps)?;
                }
                None
            }
            request => self.execute_cold(context, shard, request, steps),
        }
    }

    fn retire_old_epochs(&mut self, steps: &mut usize) -> Option<()> {
        take(steps)?;
        self.files.put_marker(self.epoch);
        take(steps)?;
        self.files.sync_journal_directory();
        for name in self.files.segments_below(self.epoch) {
            take(steps)?;
            self.files.free_segment(&name);
        }
        take(steps)?;
        self.files.sync_journal_directory();
        take(steps)?;
        self.files.remove_marker();
        Some(())
    }

    fn execute_cold(
        &mut self,
        context: &mut Context,
        shard: usize,
        request: DiskRequest,
        steps: &mut usize,
    ) -> Option<DiskReply> {
        match request {
            DiskRequest::WriteExtents { place, octets, token } => {
                let offset = usize::try_from(place.offset).expect("files are short");
                let ColdFileId { queue, is_transient, .. } = place.file;
                let is_cut_off = offset > 0 && self.rows[shard].names.cut_off.contains(&place.file);
                if is_cut_off || (self.is_full && context.random.permille(800)) {
                    self.refusals += 1;
                    self.rows[shard].names.cut_off.insert(place.file);
                    if !is_cut_off && context.random.permille(500) {
                        let written = context.random.below(octets.len() / 512) * 512;
                        self.create_at_front(shard, &place.file, offset);
                        self.files.write_cold(&place.file, offset, &octets.as_slice()[..written]);
                    }
                    return Some(DiskReply::WriteRefused { token, octets });
                }
                self.page_outs += 1;
                self.create_at_front(shard, &place.file, offset);
                if offset == 0 {
                    self.rows[shard].names.created_in.insert((queue, is_transient));
                }
                self.files.write_cold(&place.file, offset, octets.as_slice());
                Some(DiskReply::Written { token, octets })
            }
            DiskRequest::ReadExtents { place, octets, token } => {
                self.loads += 1;
                let offset = usize::try_from(place.offset).expect("files are short");
                let Some(read) = self.files.read_cold(&place.file, offset, octets) else {
                    context.failure = Some(format!("the file {} is too short", cold_path(&place.file)));
                    return None;
                };
                let mut buffer = AlignedBuffer::with_capacity(octets);
                buffer.extend_from_slice(read);
                Some(DiskReply::Read { token, octets: buffer })
            }
            DiskRequest::SyncFiles { files, token } => {
                self.sync(context, shard, &files, steps)?;
                Some(DiskReply::Synced { token })
            }
            DiskRequest::RemoveFile { file } => {
                self.files.remove_cold(&file);
                self.rows[shard].names.cut_off.remove(&file);
                if !file.is_transient {
                    self.rows[shard].names.removed_in.insert(file.queue);
                }
                None
            }
            DiskRequest::RemoveQueue { queue, is_transient } => {
                self.files.remove_queue(queue, is_transient);
                let names = &mut self.rows[shard].names;
                names.created_in.remove(&(queue, is_transient));
                names.cut_off.retain(|file| (file.queue, file.is_transient) != (queue, is_transient));
                None
            }
            other => unreachable!("{other:?} has been dealt with"),
        }
    }

    fn create_at_front(&mut self, shard: usize, file: &ColdFileId, offset: usize) {
        if offset == 0 {
            let is_new = self.files.create_cold(file);
            self.rows[shard].names.created_directory |= is_new && !file.is_transient;
            self.rows[shard].names.created_in.insert((file.queue, file.is_transient));
        }
    }

    fn sync(&mut self, context: &mut Context, shard: usize, files: &[ColdFileId], steps: &mut usize) -> Option<()> {
        for file in files.iter().filter(|file| !file.is_transient) {
            take(steps)?;
            if context.strikes(Mutation::SkipSync) {
                context.end_soon_by_power_loss();
                continue;
            }
            if !self.files.is_there(file) && self.rows[shard].names.cut_off.contains(file) {
                continue;
            }
            self.files.sync_cold(file);
        }
        let skips =
            files.iter().any(|file| !self.files.is_name_durable(file)) && context.strikes(Mutation::SkipDirectorySync);
        for file in files {
            let names = &mut self.rows[shard].names;
            if names.created_in.remove(&(file.queue, file.is_transient)) && !file.is_transient && !skips {
                take(steps)?;
                self.files.sync_queue_directory(file.queue);
            }
        }
        if std::mem::take(&mut self.rows[shard].names.created_directory) && !skips {
            take(steps)?;
            self.files.sync_queues_directory();
        }
        if skips {
            context.end_soon_by_power_loss();
        }
        Some(())
    }

    fn sync_removals(&mut self, shard: usize, steps: &mut usize) -> Option<()> {
        for queue in std::mem::take(&mut self.rows[shard].names.removed_in) {
            take(steps)?;
            self.files.sync_queue_directory(queue);
        }
        Some(())
    }

    /// The broker ends, in the midst of what it has asked for.
    pub fn end(&mut self, context: &mut Context, end: End) {
        if end == End::Clean {
            self.is_full = false;
            self.run_all(context);
            // The machine may lose its power right after.
            if context.random.permille(500) {
                self.files.lose_power(context);
            }
        } else {
            for shard in 0..self.rows.len() {
                self.tear(context, shard);
            }
            if end == End::PowerLoss {
                self.files.lose_power(context);
            }
        }
        self.rows.clear();
    }

    /// The first of each row is under way: some of it is done.
    fn tear(&mut self, context: &mut Context, shard: usize) {
        let commit = self.rows[shard].commits.pop_front().filter(|_| context.random.permille(800));
        if let Some(DiskRequest::Commit { segment, offset, octets, .. }) = commit
            && self.early != Some(shard)
        {
            let name = SegmentName { epoch: self.epoch, shard: u16::try_from(shard).expect("few"), segment };
            let offset = usize::try_from(offset).expect("segments are short");
            let tear = Tear::any(context);
            self.files.tear_segment(context, &name, offset, octets.as_slice(), tear);
        }
        let Some(other) = self.rows[shard].others.pop_front().filter(|_| context.random.permille(700)) else { return };
        match other {
            DiskRequest::WriteExtents { place, octets, .. } => {
                let offset = usize::try_from(place.offset).expect("files are short");
                if offset > 0 && self.rows[shard].names.cut_off.contains(&place.file) {
                    return;
                }
                self.create_at_front(shard, &place.file, offset);
                let tear = Tear::any(context);
                self.files.tear_cold(context, &place.file, offset, octets.as_slice(), tear);
            }
            DiskRequest::ReadExtents { .. } => {}
            request => {
                let mut steps = context.random.below(12);
                self.execute(context, shard, request, &mut steps);
            }
        }
    }
}

/// Whether the next step is done before the broker ends.
fn take(steps: &mut usize) -> Option<()> {
    *steps = steps.checked_sub(1)?;
    Some(())
}

/// A file that a batch says is not needed any more.
fn gone_file(batch: &[u8]) -> Option<(u64, u32)> {
    let batch = lepus::store::batch::take(batch).ok()?;
    lepus::store::record::Records::new(batch.records).find_map(|record| match record {
        Ok(lepus::store::record::Record::ColdGone { queue, file }) => Some((queue, file)),
        _ => None,
    })
}

/// A request without its octets.
fn told(request: &DiskRequest) -> String {
    match request {
        DiskRequest::Commit { sequence, segment, offset, octets } => {
            format!("batch {sequence} to segment {segment} at {offset}, {} octets", octets.len())
        }
        DiskRequest::WriteExtents { place, octets, .. } => {
            format!("write {} octets at {} of {}", octets.len(), place.offset, cold_path(&place.file))
        }
        DiskRequest::ReadExtents { place, octets, .. } => {
            format!("read {octets} octets at {} of {}", place.offset, cold_path(&place.file))
        }
        other => format!("{other:?}"),
    }
}
