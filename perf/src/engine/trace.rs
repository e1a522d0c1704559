//! Trace files: when which message was sent, to be played again.

use std::path::Path;

use crate::options::sizes::Sizes;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceLine {
    /// When it is sent, in nanoseconds after the first could be.
    pub offset: u64,
    /// Octets of its body, where the line says so.
    pub size: Option<usize>,
    /// Routing key, where the line has one.
    pub routing_key: Option<String>,
}

/// Reads a file.
///
/// # Errors
/// A sentence with the file and, where a line is wrong, its number.
pub fn read(path: &Path) -> Result<Vec<TraceLine>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).map_err(|(line, reason)| match line {
        0 => format!("{}: {reason}", path.display()),
        _ => format!("{}, line {line}: {reason}", path.display()),
    })
}

/// Blank lines, and lines that begin with `#`, count for nothing.
fn parse(text: &str) -> Result<Vec<TraceLine>, (usize, String)> {
    let mut lines: Vec<TraceLine> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let line = parse_line(content).map_err(|reason| (number, reason))?;
        if lines.last().is_some_and(|last| last.offset > line.offset) {
            return Err((number, "it is earlier than the line before".to_owned()));
        }
        lines.push(line);
    }
    if lines.is_empty() { Err((0, "there is no message in it".to_owned())) } else { Ok(lines) }
}

fn parse_line(content: &str) -> Result<TraceLine, String> {
    let fields: Vec<&str> = if content.contains(',') {
        content.split(',').map(str::trim).collect()
    } else {
        content.split_whitespace().collect()
    };
    if fields.len() > 3 {
        return Err("more than a time, a size and a routing key".to_owned());
    }
    let seconds = fields[0].parse::<f64>().ok().filter(|seconds| (0.0..1e9).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("'{}' is no time in seconds", fields[0]))?;
    let size = match fields.get(1) {
        None | Some(&"") => None,
        Some(text) => match text.parse() {
            Ok(Sizes::Fixed(octets)) => Some(octets),
            Ok(_) => return Err(format!("'{text}' is not one size")),
            Err(fault) => return Err(format!("'{text}' is no size: {fault}")),
        },
    };
    let routing_key = fields.get(2).map(|&key| key.to_owned());
    if routing_key.as_ref().is_some_and(|key| key.len() > 255) {
        return Err("the routing key has more than 255 octets".to_owned());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
    let offset = (seconds * 1e9).round() as u64;
    Ok(TraceLine { offset, size, routing_key })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each part of a line is read, and what is wrong is told with its line.
    #[test]
    fn lines() {
        let lines = parse("# a\n0\n\n0.5 100\n0.5,,k\n2, 16 , a b\n").expect("well-formed");
        let expected = [
            (0, None, None),
            (500_000_000, Some(100), None),
            (500_000_000, None, Some("k")),
            (2_000_000_000, Some(16), Some("a b")),
        ];
        assert_eq!(lines.len(), expected.len());
        for (line, (offset, size, key)) in lines.iter().zip(expected) {
            assert_eq!((line.offset, line.size, line.routing_key.as_deref()), (offset, size, key));
        }
        for (text, number) in
            [("", 0), ("#\n", 0), ("0\nx\n", 2), ("0\n\n-1", 3), ("1\n0.5", 2), ("0 5", 1), ("0 16 a b", 1), ("nan", 1)]
        {
            assert_eq!(parse(text).expect_err(text).0, number, "{text:?}");
        }
    }
}
