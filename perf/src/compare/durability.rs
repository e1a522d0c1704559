//! What to say where durability is compared: persistent messages are the same request to each broker, and not the same promise.

use crate::result::Run;

/// What a confirm of a persistent message promises, by product: where that is known.
const PROMISES: [(&str, &str); 2] = [
    (
        "RabbitMQ",
        "RabbitMQ's classic queues of version 1 (the default before RabbitMQ 4) sync to the disk before they confirm; those of version \
         2 (the default since) confirm without a sync, so that a power cut may take what was confirmed",
    ),
    ("Lepus", "Lepus keeps messages on disk where it has a --data-dir, and in memory alone otherwise"),
];

/// For runs side by side. Nothing where there is one broker, or no message was persistent.
pub fn notes(runs: &[&Run]) -> Vec<String> {
    let is_persistent = |run: &&&Run| run.workload.get("flag").is_some_and(|flags| flags.contains("persistent"));
    let persistent: Vec<&&Run> = runs.iter().filter(is_persistent).collect();
    let are_several = persistent.iter().any(|run| run.target.name != persistent[0].target.name);
    if !are_several {
        return Vec::new();
    }
    let general = "the messages are persistent, and only equal durability can be compared. When a broker confirms one (at once, \
                   written, synced to the disk, on several replicas) is a matter of its configuration and queue type";
    let promises =
        PROMISES.into_iter().filter(|(product, _)| persistent.iter().any(|run| run.target.product == *product));
    [general.to_owned()].into_iter().chain(promises.map(|(_, promise)| promise.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::sample;

    /// Goal: what each broker promises is said where persistent messages are compared, and only there.
    #[test]
    fn what_is_said() {
        let run = |name, product, flag: &str| {
            let mut run = sample::bare(name, product, 0);
            run.workload.insert("flag".to_owned(), flag.to_owned());
            run
        };
        let [lepus, rabbit, other] = [
            run("a", "Lepus", "persistent"),
            run("b", "RabbitMQ", "persistent"),
            run("c", "x", "mandatory persistent"),
        ];
        let said = |runs: &[&Run]| notes(runs).join(" ");
        assert!(said(&[&lepus, &rabbit]).contains("equal durability"));
        assert!(said(&[&lepus, &rabbit]).contains("without a sync") && said(&[&lepus, &rabbit]).contains("--data-dir"));
        assert_eq!(notes(&[&lepus, &other]).len(), 2);
        assert!(notes(&[&lepus, &lepus]).is_empty() && notes(&[]).is_empty());
        assert!(notes(&[&run("a", "Lepus", "mandatory"), &run("b", "RabbitMQ", "")]).is_empty());
    }
}
