//! What of a run nobody has looked at: a check that says nothing of it must not be read as praise.

use crate::engine::check::Finding;
use crate::engine::stamp::STAMP_OCTETS;
use crate::options::RunOptions;

/// A sentence for each thing that was not checked; none where everything was. `is_complete`: everything was awaited that could
/// come.
pub fn reasons(options: &RunOptions, is_complete: bool) -> Vec<String> {
    if options.workload.is_churn() {
        return vec!["messages: these operations send none".to_owned()];
    }
    if options.consumers == 0 {
        return vec!["messages in the queues: nobody has received them (-y 0)".to_owned()];
    }
    let short = format!(
        "whether bodies are damaged, and latencies: below {STAMP_OCTETS} octets they have neither checksum nor times (-s)"
    );
    [
        (options.producers == 0, "whether messages were lost: others have sent them (-x 0)".to_owned()),
        (
            options.producers > 0 && !is_complete,
            "whether messages were lost: the run ended before all could have come".to_owned(),
        ),
        (options.producers > 0 && options.size.least() < STAMP_OCTETS, short),
    ]
    .into_iter()
    .filter_map(|(is_so, sentence)| is_so.then_some(sentence))
    .collect()
}

/// What refused messages leave open.
pub fn refused(finding: &Finding) -> Option<String> {
    let undecided = finding.undecided;
    (undecided > 0).then(|| {
        format!(
            "whether messages were lost besides the {undecided} refused or returned ones: of a queue with several consumers, \
             and of very many of them, it is not known which of these came all the same"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each kind of run says what it leaves open, and a complete one with checksums nothing.
    #[test]
    fn what_is_left_open() {
        let check = |line: &str, is_complete, expected: &[&str]| {
            let options = RunOptions::try_parse_from(line.split_whitespace()).expect(line);
            let found = reasons(&options, is_complete);
            assert_eq!(found.len(), expected.len(), "{line}: {found:?}");
            found
                .iter()
                .zip(expected)
                .for_each(|(found, expected)| assert!(found.contains(expected), "{line}: {found}"));
        };
        check("-s 16", true, &[]);
        check("-w rpc", true, &[]);
        check("-s 15", true, &["whether bodies are damaged"]);
        check("-s uniform:6-100", true, &["whether bodies are damaged"]);
        check("-s 15", false, &["whether messages were lost", "whether bodies are damaged"]);
        check("", false, &["the run ended before"]);
        check("-x 0", true, &["others have sent them"]);
        check("-y 0", true, &["nobody has received"]);
        check("-w queue-churn", true, &["these operations send none"]);
    }
}
