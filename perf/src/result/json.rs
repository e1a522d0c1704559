//! Result files as JSON, `FORMAT.md` in the crate's folder describes them.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::{FileError, ResultFile, SCHEMA};

#[derive(Deserialize)]
struct Header {
    schema: Option<serde_json::Value>,
    /// Of the first format, which had no histograms that can be merged.
    lepus_perf_format: Option<serde_json::Value>,
}

impl ResultFile {
    /// The file's content; ends with a line feed.
    pub fn to_json(&self) -> String {
        // Infinite and undefined numbers become `null`, which readers would refuse: nothing writes them.
        let mut text = serde_json::to_string(self).expect("keys are strings, and writing to memory does not fail");
        text.push('\n');
        text
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read, is cut off, is no result of lepus-perf, or one of another version of the format.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(|error| FileError::whole(path, error.to_string()))?;
        Self::from_json(&text, path)
    }

    /// Reads the content of a file; the path is for errors.
    ///
    /// # Errors
    /// As [`ResultFile::read`].
    pub fn from_json(text: &str, path: &Path) -> Result<Self, FileError> {
        let header: Header = serde_json::from_str(text).map_err(|error| fault(path, &error))?;
        match (&header.schema, &header.lepus_perf_format) {
            (Some(schema), _) if schema == SCHEMA => {}
            (Some(schema), _) => {
                let reason = format!("its format is {schema}; this lepus-perf reads \"{SCHEMA}\"");
                return Err(FileError::whole(path, reason));
            }
            (None, Some(format)) => {
                let reason = format!(
                    "its format is {format}, of an earlier lepus-perf; this one reads \"{SCHEMA}\": run it again"
                );
                return Err(FileError::whole(path, reason));
            }
            (None, None) => {
                return Err(FileError::whole(path, "JSON, but no result of lepus-perf: it has no field \"schema\""));
            }
        }
        let file: Self = serde_json::from_str(text).map_err(|error| fault(path, &error))?;
        if file.runs.is_empty() { Err(FileError::whole(path, "there is no run in it")) } else { Ok(file) }
    }
}

fn fault(path: &Path, error: &serde_json::Error) -> FileError {
    let reason = if error.is_eof() {
        format!("cut off: {error}")
    } else if error.is_syntax() {
        format!("not JSON: {error}")
    } else {
        format!("no result of lepus-perf: {error}")
    };
    FileError::at(path, error.line().max(1), reason)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// Goal: a file comes back with every value.
    #[test]
    fn a_file_comes_back() {
        let file = sample::two_brokers(3);
        let text = file.to_json();
        let back = ResultFile::from_json(&text, Path::new("x")).expect("our own");
        assert!(back.to_json() == text, "something has changed");
        assert_eq!(back.runs[0].histogram("response"), file.runs[0].histogram("response"));
    }

    /// Goal: what is no result file is refused by file, line and reason, wherever it is cut off.
    #[test]
    fn refusals() {
        let check = |text: &str, expected: &str| {
            let fault = ResultFile::from_json(text, Path::new("a.json")).expect_err("refused").to_string();
            assert!(fault.starts_with("a.json:") && fault.contains(expected), "{fault}");
        };
        check("{\n\"a\": }", "a.json:2: not JSON");
        check("", "a.json:1: cut off");
        check("[1]", "no result of lepus-perf");
        check("{}", "no field \"schema\"");
        check("{\"schema\": \"lepus-perf/99\"}", "its format is \"lepus-perf/99\"");
        check("{\"lepus_perf_format\": 1}", "earlier lepus-perf");
        check("{\"schema\": \"lepus-perf/2\",\n\"origin\": 5}", "a.json:2: no result of lepus-perf: invalid type");
        let text = sample::two_brokers(1).to_json();
        for octets in (0..text.len() - 2).step_by(text.len() / 50 + 1) {
            check(&text[..octets], "cut off");
        }
        check(&text.replacen("\"response\":\"HIST", "\"response\":\"!IST", 1), "not base64");
    }

    /// Goal: FORMAT.md names each field that a file has.
    #[test]
    fn each_field_is_described() {
        fn fields(value: &serde_json::Value, all: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(object) => {
                    for (name, value) in object {
                        all.push(name.clone());
                        if name != "workload" {
                            fields(value, all);
                        }
                    }
                }
                serde_json::Value::Array(values) => values.iter().for_each(|value| fields(value, all)),
                _ => {}
            }
        }
        let value = serde_json::to_value(sample::two_brokers(1)).expect("JSON");
        let mut all = Vec::new();
        fields(&value, &mut all);
        assert!(all.len() > 60, "{all:?}");
        let document = include_str!("../../FORMAT.md");
        for name in all {
            assert!(document.contains(&format!("`{name}`")), "FORMAT.md does not describe `{name}`");
        }
    }
}
