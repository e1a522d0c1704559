//! Holds the shape of the house by reading its source: floors, drivers, sizes, names.
//!
//! It is textual: comments and literals are blanked out, what is left is looked at as words and paths.

use std::fs;
use std::path::Path;

/// Every module below `src/` and its floor. A module may name those on lower floors only.
const FLOORS: [(&str, u8); 14] = [
    ("limits", 0),
    ("metrics", 0),
    ("short_octets", 0),
    ("protocol", 1),
    ("message", 2),
    ("routing", 2),
    ("definitions", 3),
    ("store", 3),
    ("queue", 4),
    ("connection", 5),
    ("shard", 6),
    ("control", 7),
    ("server", 8),
    ("simulator", 9),
];
/// Files that stand outside of the floors.
const ROOTS: [&str; 3] = ["lib.rs", "main.rs", "tidy.rs"];
/// The only files (or, with a slash at the end, directories) that know the executor.
const DRIVERS: [&str; 8] = [
    "server/listener.rs",
    "server/shards.rs",
    "server/preflight.rs",
    "server/shutdown.rs",
    "shard/event_loop.rs",
    "shard/mesh.rs",
    "shard/socket.rs",
    "control/",
];
const DRIVER_WORDS: [&str; 3] = ["async", "await", "glommio"];
/// Files whose need for `unsafe` a profile has shown.
const UNSAFE_FILES: [&str; 2] = ["shard/socket.rs", "server/allocator.rs"];
const NAMES_FORBIDDEN: [&str; 8] = ["util", "utils", "helper", "helpers", "common", "manager", "misc", "base"];
const LINES_MAX: usize = 650;

/// What is wrong with one file. `path` is relative to `src/`.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let code = blank_out(text);
    let words: Vec<&str> = code.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).collect();
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{path}: {lines} lines; more than {LINES_MAX} want to be two files"));
    }
    for name in path.trim_end_matches(".rs").split('/').filter(|name| NAMES_FORBIDDEN.contains(name)) {
        found.push(format!("{path}: '{name}' says nothing; name the file after its subject"));
    }
    if !DRIVERS.iter().any(|driver| path == *driver || driver.ends_with('/') && path.starts_with(driver)) {
        for word in DRIVER_WORDS.iter().filter(|word| words.contains(word)) {
            found.push(format!("{path}: only drivers say '{word}'"));
        }
    }
    if words.contains(&"unsafe") && !UNSAFE_FILES.contains(&path) {
        found.push(format!("{path}: 'unsafe' is forbidden but in named files"));
    }
    if !ROOTS.contains(&path) {
        found.extend(floor_complaints(path, &code));
    }
    found
}

fn floor_complaints(path: &str, code: &str) -> Vec<String> {
    let floor_of = |name: &str| FLOORS.iter().find(|(module, _)| *module == name).map(|&(_, floor)| floor);
    let own = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some(own_floor) = floor_of(own) else { return vec![format!("{path}: give the module '{own}' a floor")] };
    let mut found = Vec::new();
    if code.contains("super::super::") {
        found.push(format!("{path}: write 'crate::' instead of climbing with 'super::super::'"));
    }
    for name in crate_names(code).into_iter().filter(|name| *name != own) {
        // Macros and re-exports of the crate root have no floor; they are named rarely and seen in review.
        if floor_of(name).is_some_and(|floor| floor >= own_floor) {
            found.push(format!("{path}: '{own}' may not name '{name}', which is not on a lower floor"));
        }
    }
    found
}

/// The first names of all paths that start at the crate, in groups (`crate::{a::b, c}`) too.
fn crate_names(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = code[at + prefix.len()..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first_word(rest));
            continue;
        };
        let mut depth = 0_usize;
        let mut starts = vec![0];
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => starts.push(at + 1),
                _ => {}
            }
        }
        names.extend(starts.into_iter().map(|start| first_word(group[start..].trim_start())));
    }
    names
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn first_word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// The text with comments, strings and characters replaced by spaces.
fn blank_out(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let blank = if code.ends_with(is_word) && c != '"' && c != '\'' { 0 } else { blank_len(rest) };
        let taken = if blank == 0 { c.len_utf8() } else { blank };
        code.push_str(if blank == 0 { &rest[..taken] } else { " " });
        rest = &rest[taken..];
    }
    code
}

/// How many octets at the front of `text` are a comment or a literal; 0 if it starts with neither.
fn blank_len(text: &str) -> usize {
    let until = |from: usize, end: &str| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix('r')).unwrap_or("");
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until(2, "*/");
    }
    if raw[hashes..].starts_with('"') {
        return until(text.len() - raw.len() + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
    }
    if text.starts_with('"') {
        let mut characters = text.char_indices().skip(1);
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => drop(characters.next()),
                '"' => return at + 1,
                _ => {}
            }
        }
        return text.len();
    }
    // A character, not a lifetime: it is escaped, or closed after one character.
    let mut characters = text.char_indices();
    match (characters.next(), characters.next(), characters.next()) {
        (Some((_, '\'')), Some((_, '\\')), Some((at, c))) => until(at + c.len_utf8(), "'"),
        (Some((_, '\'')), Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_tree(directory: &Path, root: &Path, found: &mut Vec<String>) -> usize {
        let mut files = 0;
        for entry in fs::read_dir(directory).expect("directory") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                files += check_tree(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root).expect("below the root").to_str().expect("plain name");
                found.extend(complaints(relative, &fs::read_to_string(&path).expect("text")));
                files += 1;
            }
        }
        files
    }

    /// Goal: the whole source is tidy. Method: read every file below `src/`.
    #[test]
    fn source_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        let files = check_tree(&root, &root, &mut found);
        assert!(files >= ROOTS.len(), "the source was not found");
        found.sort();
        assert!(found.is_empty(), "\n{}", found.join("\n"));
    }

    fn check(path: &str, text: &str, expected: &[&str]) {
        let found = complaints(path, text);
        assert_eq!(found.len(), expected.len(), "{path}: {text}: {found:?}");
        for (complaint, part) in found.iter().zip(expected) {
            assert!(complaint.contains(part), "{complaint}");
        }
    }

    /// Goal: each rule complains where it is broken and only there. Method: both sides of each.
    #[test]
    fn each_rule_complains() {
        check("queue/mod.rs", &"\n".repeat(LINES_MAX), &[]);
        check("queue/mod.rs", &"\n".repeat(LINES_MAX + 1), &["651 lines"]);
        check("queue/ready_util.rs", "", &[]);
        check("queue/util/mod.rs", "", &["'util' says nothing"]);
        check("shard/mesh.rs", "use glommio; async fn f() { g().await }", &[]);
        check("control/http.rs", "async fn f() {}", &[]);
        check("shard/outbox.rs", "use glommio; async fn f() { g().await }", &["'async'", "'await'", "'glommio'"]);
        check("shard/outbox.rs", "fn recover_async() {} // async", &[]);
        check("message.rs", "unsafe { f() }", &["'unsafe'"]);
        check("message.rs", "#![deny(unsafe_code)] /* unsafe */", &[]);
        check("novelty.rs", "", &["give the module 'novelty' a floor"]);
        check("queue/mod.rs", "use super::super::shard;", &["write 'crate::'"]);
        check("queue/mod.rs", "use crate::message::Body; use crate::queue::ready;", &[]);
        check("queue/mod.rs", "use crate::shard::Shard;", &["may not name 'shard'"]);
        check("queue/mod.rs", "fn f() { crate::connection::f() }", &["may not name 'connection'"]);
        check("message.rs", "use crate::routing::Topic;", &["may not name 'routing'"]);
        check(
            "queue/mod.rs",
            "use crate::{\n  limits::{A, B},\n  shard, connection::C};",
            &["'shard'", "'connection'"],
        );
    }

    /// Goal: comments and literals are not taken for code, and code behind them is. Method: each kind before a word.
    #[test]
    fn comments_and_literals_are_blanked_out() {
        for text in [
            "// unsafe\nasync",
            "/* unsafe */ async",
            r#""unsafe \" unsafe" async"#,
            "r\"unsafe\\\" async",
            "br#\"unsafe \" unsafe\"# async",
            "b\"unsafe\" async",
            "'\"' async 'x",
            "'\\'' async",
            "fn f<'a>(a: &'a str) -> char { '\u{e9}' } async",
            "r#type async",
        ] {
            let code = blank_out(text);
            assert!(!code.contains("unsafe") && code.contains("async"), "{text}: {code}");
        }
    }
}
