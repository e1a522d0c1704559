//! What was found, in words, tables and JSON.

use super::remains::Remains;
use crate::server::data_dir::FORMAT;
use crate::store::cold_path;
use serde_json::{Value, json};
use std::fmt::Write;

/// Columns under their headings; those of which all cells are numbers are aligned to the right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let is_number = |cell: &String| !cell.is_empty() && cell.bytes().all(|octet| octet.is_ascii_digit());
    let columns: Vec<(usize, bool)> = headings
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let cells = || rows.iter().map(|row| &row[column]);
            let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0).max(heading.len());
            (width, !rows.is_empty() && cells().all(is_number))
        })
        .collect();
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&headings).chain(rows) {
        let cells = row.iter().zip(&columns).map(|(cell, (width, is_right))| match is_right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Names are a client's: nothing in them is to reach a terminal as more than text.
pub(super) fn printable(name: &str) -> String {
    if name.chars().any(char::is_control) { name.escape_debug().to_string() } else { name.to_owned() }
}

/// All of it, to be read.
pub(super) fn text(remains: &Remains) -> String {
    let mut text = heading(remains);
    let _ = writeln!(text, "\nQueues");
    text += &queues(remains);
    let _ = writeln!(text, "\nJournal segments");
    text += &segments(remains);
    if !remains.files.is_empty() {
        let _ = writeln!(text, "\nQueue segment files");
        text += &files(remains);
    }
    let _ = writeln!(text, "\n{}", totals(remains));
    text += &damage(remains);
    text
}

/// What was verified, in short.
pub(super) fn verified(remains: &Remains) -> String {
    let batches: u64 = remains.journal.iter().map(|segment| segment.batches).sum();
    let extents: usize = remains.files.values().map(|file| file.survey.extents.len()).sum();
    let mut text = heading(remains);
    let _ = writeln!(text, "{}", totals(remains));
    let _ = writeln!(text, "Sound are {batches} batches of the journals and {extents} extents of queues.");
    text += &damage(remains);
    text
}

fn heading(remains: &Remains) -> String {
    let path = remains.data_dir.path().display();
    format!("{path}: format lepus {FORMAT}, started {} times\n", remains.epoch)
}

fn queues(remains: &Remains) -> String {
    let rows = remains.queues.iter().map(|queue| {
        vec![
            printable(&queue.definition.vhost),
            printable(&queue.definition.name),
            format!("{:016x}", queue.definition.id.0),
            queue.messages().to_string(),
            queue.body_octets().to_string(),
            queue.files.to_string(),
            queue.file_octets.to_string(),
        ]
    });
    table(&["VHOST", "QUEUE", "ID", "MESSAGES", "BODY OCTETS", "FILES", "FILE OCTETS"], &rows.collect::<Vec<_>>())
}

fn segments(remains: &Remains) -> String {
    let rows = remains.journal.iter().map(|segment| {
        vec![
            segment.name.path(),
            segment.name.epoch.to_string(),
            segment.name.shard.to_string(),
            segment.name.segment.to_string(),
            segment.batches.to_string(),
            segment.records.to_string(),
            segment.batch_octets.to_string(),
            segment.torn_at.map_or_else(String::new, |offset| format!("torn batch at {offset}")),
        ]
    });
    let headings = ["FILE", "EPOCH", "SHARD", "SEGMENT", "BATCHES", "RECORDS", "BATCH OCTETS", "TAIL"];
    table(&headings, &rows.collect::<Vec<_>>())
}

fn files(remains: &Remains) -> String {
    let rows = remains.files.iter().map(|(id, file)| {
        vec![
            cold_path(id),
            file.octets.to_string(),
            file.known_octets.to_string(),
            file.survey.extents.len().to_string(),
            messages_of(file).to_string(),
        ]
    });
    table(&["FILE", "OCTETS", "SYNCED OCTETS", "EXTENTS", "WRITTEN MESSAGES"], &rows.collect::<Vec<_>>())
}

fn messages_of(file: &super::remains::FileRemains) -> u64 {
    file.survey.extents.iter().map(|note| u64::from(note.head.persistent_count)).sum()
}

fn totals(remains: &Remains) -> String {
    let messages: u64 = remains.queues.iter().map(super::remains::QueueRemains::messages).sum();
    let file_octets: u64 = remains.files.values().map(|file| file.octets).sum();
    let journal_octets: u64 = remains.journal.iter().map(|segment| segment.file_octets).sum();
    format!(
        "In all {messages} messages in {} queues; {} journal segments of {journal_octets} octets, {} queue segment files of \
         {file_octets} octets.",
        remains.queues.len(),
        remains.journal.len(),
        remains.files.len(),
    )
}

fn damage(remains: &Remains) -> String {
    if remains.damages.is_empty() {
        return String::new();
    }
    let mut text = String::from("Damage:\n");
    for damage in &remains.damages {
        let _ = writeln!(text, "  {damage}");
    }
    text
}

/// All of it, for programs. The fields are described in the command's help.
pub(super) fn json(remains: &Remains) -> String {
    let queues = remains.queues.iter().map(|queue| {
        json!({
            "vhost": &*queue.definition.vhost,
            "name": &*queue.definition.name,
            "id": format!("{:016x}", queue.definition.id.0),
            "messages": queue.messages(),
            "body_octets": queue.body_octets(),
            "files": queue.files,
            "file_octets": queue.file_octets,
        })
    });
    let segments = remains.journal.iter().map(|segment| {
        json!({
            "file": segment.name.path(),
            "epoch": segment.name.epoch,
            "shard": segment.name.shard,
            "segment": segment.name.segment,
            "batches": segment.batches,
            "records": segment.records,
            "batch_octets": segment.batch_octets,
            "file_octets": segment.file_octets,
            "torn_at": segment.torn_at,
        })
    });
    let files = remains.files.iter().map(|(id, file)| {
        json!({
            "file": cold_path(id),
            "queue": format!("{:016x}", id.queue),
            "octets": file.octets,
            "synced_octets": file.known_octets,
            "extents": file.survey.extents.len(),
            "written_messages": messages_of(file),
        })
    });
    let damage = remains
        .damages
        .iter()
        .map(|damage| json!({ "file": damage.file, "offset": damage.offset, "what": damage.to_string() }));
    let all = json!({
        "directory": remains.data_dir.path().display().to_string(),
        "format": FORMAT,
        "epoch": remains.epoch,
        "messages": remains.queues.iter().map(super::remains::QueueRemains::messages).sum::<u64>(),
        "queues": queues.collect::<Vec<Value>>(),
        "journal_segments": segments.collect::<Vec<Value>>(),
        "queue_files": files.collect::<Vec<Value>>(),
        "damage": damage.collect::<Vec<Value>>(),
    });
    format!("{all:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: columns stand below each other, numbers to the right. Method: cells of different lengths, and none.
    #[test]
    fn columns_are_aligned() {
        let rows =
            [vec!["a".to_owned(), "1".to_owned(), "x".to_owned()], vec!["bcd".into(), "234".into(), String::new()]];
        assert_eq!(table(&["NAME", "N", "TAIL"], &rows), "NAME    N  TAIL\na       1  x\nbcd   234\n");
        assert_eq!(table(&["NAME", "N"], &[]), "NAME  N\n");
        assert_eq!(printable("a\x1b[2J"), "a\\u{1b}[2J");
        assert_eq!(printable("Zürich"), "Zürich");
    }
}
