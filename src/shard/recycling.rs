//! Segments of the journal that are to be used again: what lives in the oldest one is moved, then it is free.
//!
//! Step by step, so that no turn takes long: each queue that has something in the segment leaves it
//! ([`Queue::relocate`](crate::queue::Queue::relocate)) and says how it stands; what goes to files is written, then synced; what
//! was told to the journal is committed. Then nobody needs the segment any more.
//!
//! The journals that processes have left that have ended count as one segment, number 0, older than all others.

use super::{Shard, persistence::Persistence, state::QueueCell};
use crate::{
    definitions::QueueId,
    limits::PAGE_OUT_UNDER_WAY_OCTETS_MAX,
    queue::{Forwarded, Relocation},
    store::{ColdFileId, DiskRequest, Entry},
};
use ahash::AHashMap;
use std::collections::VecDeque;

/// So many octets are forwarded in one turn.
const FORWARD_OCTETS_PER_TURN: usize = 512 << 10;
/// So many queues are looked at in one turn.
const QUEUES_PER_TURN: usize = 256;

/// Queues that may have something in a segment.
struct SegmentNote {
    segment: u64,
    queues: Vec<(u32, QueueId)>,
}

/// Where the work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Queues leave the segment; the next one is the `usize`th.
    Relocate(usize),
    /// All page-outs before this token are to be written.
    Write(u64),
    /// Files are being synced, under this token.
    Sync(u64),
    /// Files are synced; the journal is to be told.
    Tell,
    /// This batch of the journal is to be on disk.
    Commit(u64),
}

struct Work {
    segment: u64,
    queues: Vec<(u32, QueueId)>,
    stage: Stage,
    /// Octets that were forwarded.
    forwarded: usize,
    /// Octets that were put into the journal, checkpoints included.
    carried: u64,
    /// Files that are being synced, with how much of each was written.
    files: Vec<(ColdFileId, u64)>,
    /// How often the disk had refused something before.
    refusals: u64,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Recycling {
    notes: VecDeque<SegmentNote>,
    work: Option<Work>,
    /// Whether the journals of processes that have ended are still needed.
    has_older: bool,
    /// What was put into the journal again for each of the last segments, in octets.
    carried: VecDeque<u64>,
}

impl Recycling {
    /// Notes that a queue may have something in this segment.
    #[inline]
    pub fn note(&mut self, cell: &mut QueueCell, slot: u32, segment: u64) {
        if cell.noted_segment < segment {
            cell.noted_segment = segment;
            self.add(slot, cell.definition.id, segment);
        }
    }

    #[cold]
    fn add(&mut self, slot: u32, id: QueueId, segment: u64) {
        match self.notes.back_mut() {
            Some(note) if note.segment == segment => note.queues.push((slot, id)),
            _ => self.notes.push_back(SegmentNote { segment, queues: vec![(slot, id)] }),
        }
    }

    /// Notes a queue that processes have left.
    pub fn note_restored(&mut self, slot: u32, id: QueueId) {
        match self.notes.front_mut() {
            Some(note) if note.segment == 0 => note.queues.push((slot, id)),
            _ => self.notes.push_front(SegmentNote { segment: 0, queues: vec![(slot, id)] }),
        }
    }

    /// There are journals of processes that have ended.
    pub fn note_older(&mut self) {
        self.has_older = true;
    }

    pub fn handle_synced(&mut self, token: u64) {
        if let Some(work) = &mut self.work
            && work.stage == Stage::Sync(token)
        {
            work.stage = Stage::Tell;
        }
    }

    /// The queues that may have something in this segment or one before it.
    fn take_queues(&mut self, segment: u64) -> Vec<(u32, QueueId)> {
        let mut queues = vec![];
        while self.notes.front().is_some_and(|note| note.segment <= segment) {
            queues.extend(self.notes.pop_front().expect("there is one").queues);
        }
        queues
    }
}

impl Shard {
    /// The queues that were left have been created: the journals that they were left in can be left. To be called once.
    pub fn leave_older_journals(&mut self) {
        if let Some(persistence) = &mut self.persistence {
            persistence.restored.clear();
            persistence.recycling.note_older();
        }
    }

    /// Goes on with what is to be used again. To be called at the end of a turn.
    pub(super) fn recycle(&mut self) {
        let Some(persistence) = &mut self.persistence else { return };
        let Some(mut work) = persistence.begin_recycling() else { return };
        let is_done = self.recycle_step(&mut work);
        let persistence = self.persistence.as_mut().expect("it was there");
        if is_done {
            persistence.retire(&work);
        } else {
            persistence.recycling.work = Some(work);
        }
    }

    /// One step. Whether nothing is left to be done.
    fn recycle_step(&mut self, work: &mut Work) -> bool {
        match work.stage {
            Stage::Relocate(next) => {
                let end = self.relocate_some(work, next);
                if end < work.queues.len() {
                    work.stage = Stage::Relocate(end);
                    return false;
                }
                let persistence = self.persistence.as_mut().expect("it was there");
                work.stage = Stage::Write(persistence.paging.next_token());
                self.recycle_step(work)
            }
            Stage::Write(token) => {
                let persistence = self.persistence.as_ref().expect("it was there");
                if persistence.paging.oldest_page_out() < token {
                    return false;
                }
                self.sync_files(work);
                if work.stage == Stage::Tell { self.recycle_step(work) } else { false }
            }
            Stage::Sync(_) => false,
            Stage::Tell => {
                self.leave_out_refused(work);
                let persistence = self.persistence.as_mut().expect("it was there");
                for (file, octets) in std::mem::take(&mut work.files) {
                    persistence.journal.put_cold_file(file.queue, file.file, octets);
                }
                persistence.journal.demand();
                work.stage = Stage::Commit(persistence.journal.appended());
                false
            }
            Stage::Commit(sequence) => {
                let persistence = self.persistence.as_mut().expect("it was there");
                if persistence.journal.durable() < sequence {
                    return false;
                }
                let refusals = persistence.paging.refusals();
                if work.refusals == refusals {
                    return true;
                }
                // The disk was full: something has stayed.
                work.refusals = refusals;
                work.stage = Stage::Relocate(0);
                false
            }
        }
    }

    /// Has some queues leave the segment. Returns which comes next.
    fn relocate_some(&mut self, work: &mut Work, next: usize) -> usize {
        let unix_offset_millis = self.unix_offset_millis;
        let Self { queues, persistence, .. } = self;
        let persistence = persistence.as_mut().expect("it was there");
        let segment_octets = persistence.journal.segment_octets();
        let sizes = persistence.paging.sizes;
        let (mut at, mut forwarded) = (next, 0);
        let before_all = persistence.journal.pending_octets();
        while at < work.queues.len()
            && at - next < QUEUES_PER_TURN
            && forwarded < FORWARD_OCTETS_PER_TURN
            && persistence.paging.octets_under_way() < PAGE_OUT_UNDER_WAY_OCTETS_MAX
            && !persistence.journal.is_full()
            && !persistence.paging.is_refused()
        {
            let (slot, id) = work.queues[at];
            at += 1;
            let Some(cell) = queues.with_id(slot, id) else { continue };
            if !cell.queue.is_logged() {
                continue;
            }
            let is_crowded = work.forwarded as u64 > segment_octets / 4;
            let relocation = Relocation {
                queue: id.0,
                unix_offset_millis,
                segment: u32::try_from(work.segment).expect("a process does not fill so many segments"),
                segment_now: persistence.segment(),
                file_octets_min: if is_crowded {
                    sizes.relocated_octets_min_crowded
                } else {
                    sizes.relocated_octets_min
                },
                octets_max: sizes.page_out_octets_max,
                file_octets: sizes.file_octets,
            };
            let before = persistence.journal.pending_octets();
            let journal = &mut persistence.journal;
            // What was left by others is new to this journal, and comes in order.
            let is_copy = work.segment != 0;
            let page_outs = cell
                .queue
                .relocate(&relocation, &mut |message| forward(journal, id, &message, unix_offset_millis, is_copy));
            let octets = persistence.journal.pending_octets() - before;
            forwarded += octets;
            work.forwarded += octets;
            for page_out in page_outs {
                persistence.submit_page_out(slot, id, false, page_out);
            }
            if cell.queue.is_spoken_for() {
                cell.queue.ask_checkpoint();
                // It is noted for the segment that this will be in.
                persistence.recycling.note(cell, slot, persistence.journal.gathering_segment());
            }
            queues.mark_changed(slot);
        }
        persistence.repeats = false;
        self.tell_journal();
        let persistence = self.persistence.as_ref().expect("it was there");
        work.carried += (persistence.journal.pending_octets() - before_all) as u64;
        at
    }

    /// What the disk had no room for since the files were looked at is not said to be there.
    fn leave_out_refused(&mut self, work: &mut Work) {
        let mut there: AHashMap<(u64, u32), u64> = AHashMap::new();
        for (slot, id) in &work.queues {
            let files = self.queues.with_id(*slot, *id).map_or_else(Vec::new, |cell| cell.queue.files());
            there.extend(files.into_iter().map(|(file, octets)| ((id.0, file), octets)));
        }
        work.files.retain_mut(|(file, octets)| {
            let now = there.get(&(file.queue, file.file)).copied();
            *octets = (*octets).min(now.unwrap_or(0));
            *octets > 0
        });
    }

    /// Has the files synced that the queues have written to.
    fn sync_files(&mut self, work: &mut Work) {
        let Self { queues, persistence, .. } = self;
        let persistence = persistence.as_mut().expect("it was there");
        let mut dirty = vec![];
        for (slot, id) in &work.queues {
            let Some(cell) = queues.with_id(*slot, *id).filter(|cell| cell.queue.is_logged()) else { continue };
            let queue = id.0;
            let synced = cell.queue.take_dirty_files();
            dirty.extend(synced.into_iter().map(|file| ColdFileId { queue, file, is_transient: false }));
            let files = cell.queue.files();
            work.files.extend(
                files.into_iter().map(|(file, octets)| (ColdFileId { queue, file, is_transient: false }, octets)),
            );
        }
        if dirty.is_empty() {
            work.stage = Stage::Tell;
            return;
        }
        let token = persistence.paging.next_token();
        work.stage = Stage::Sync(token);
        persistence.requests.push_back(DiskRequest::SyncFiles { files: dirty, token });
    }
}

impl Persistence {
    /// What is being recycled, or is to be now.
    fn begin_recycling(&mut self) -> Option<Work> {
        if let Some(work) = self.recycling.work.take() {
            return Some(work);
        }
        let segment = if self.recycling.has_older { 0 } else { self.journal.wants_recycling()? };
        Some(Work {
            segment,
            queues: self.recycling.take_queues(segment),
            stage: Stage::Relocate(0),
            forwarded: 0,
            carried: 0,
            files: vec![],
            refusals: self.paging.refusals(),
        })
    }

    /// Nobody needs the segment any more.
    fn retire(&mut self, work: &Work) {
        if work.segment == 0 {
            self.recycling.has_older = false;
            self.requests.push_back(DiskRequest::RetireOldEpochs);
        } else {
            let request = self.journal.retire(work.segment);
            let (oldest, current) = self.journal.segments();
            self.recycling.carried.push_front(work.carried);
            self.recycling.carried.truncate(usize::try_from(current - oldest + 1).expect("few"));
            self.journal.set_carried(self.recycling.carried.iter().sum());
            self.journal.demand();
            self.await_retirement(request);
        }
    }
}

fn forward(
    journal: &mut crate::store::Journal,
    id: QueueId,
    message: &Forwarded<'_>,
    unix_offset_millis: u64,
    is_copy: bool,
) {
    let entry = Entry {
        queue: id.0,
        position: message.position,
        priority: message.priority,
        expires_unix_millis: message.expires_at.map(|at| at.saturating_add(unix_offset_millis)),
        delivered: message.redelivered,
        forwarded: is_copy,
    };
    journal.put_message(&entry, &message.message);
}
