//! Options that were given and would do nothing: who gives them expects something else than what would be measured.

use crate::options::{RunOptions, Workload};

/// What operations without messages have no use for.
const OF_MESSAGES: [&str; 14] = [
    "size",
    "confirm",
    "tx-size",
    "in-flight",
    "consumers",
    "producer-channel-count",
    "consumer-channel-count",
    "prefetch",
    "multi-ack-every",
    "auto-ack",
    "nack-share",
    "requeue",
    "consumer-delay",
    "consumer-rate",
];

/// What only producers have a use for.
const OF_PRODUCERS: [&str; 9] =
    ["rate", "arrivals", "ramp", "rate-profile", "trace", "size", "confirm", "tx-size", "in-flight"];

/// Long names of such options, each with the reason.
pub fn idle(options: &RunOptions) -> Vec<(&'static str, &'static str)> {
    let is_paced = options.is_open_loop() && options.trace.is_none();
    let workload = options.workload;
    let single = [
        ("arrivals", !is_paced, "it spreads messages within a rate (-r, --ramp or --rate-profile)"),
        ("send-lag-limit", !options.is_open_loop(), "it belongs to a rate (-r, --ramp, --rate-profile or --trace)"),
        ("requeue", options.nack_share <= 0.0, "nothing is refused without --nack-share"),
        ("multi-ack-every", options.auto_ack, "nothing is acknowledged under --auto-ack"),
        ("polling-interval", workload != Workload::Get, "it belongs to -w get"),
        ("cold", workload != Workload::Backlog, "it belongs to -w backlog"),
        ("reply-queue", workload != Workload::Rpc, "it belongs to -w rpc"),
    ];
    let churn = OF_MESSAGES.map(|name| (name, workload.is_churn(), "these operations send no messages"));
    let producers = OF_PRODUCERS.map(|name| (name, options.producers == 0, "nobody publishes (-x 0)"));
    let all = single.into_iter().chain(churn).chain(producers);
    all.filter(|(name, is_idle, _)| *is_idle && options.is_given(name)).map(|(name, _, why)| (name, why)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what does nothing is refused with its reason; beside what it belongs to it is not.
    #[test]
    fn what_does_nothing_is_refused() {
        for (line, reason, sensible) in [
            ("--arrivals poisson", "--arrivals would do nothing: it spreads", "--arrivals poisson -r 5"),
            ("--arrivals constant --trace x", "--arrivals would", "--arrivals constant --ramp 1:2"),
            ("--send-lag-limit 5", "it belongs to a rate", "--send-lag-limit 5 --trace x"),
            ("--requeue", "without --nack-share", "--requeue --nack-share 0.1"),
            ("-A 5 -a", "under --auto-ack", "-A 5"),
            ("--polling-interval 5", "-w get", "--polling-interval 5 -w get"),
            ("--cold", "-w backlog", "--cold -w backlog --count 5"),
            ("--reply-queue", "-w rpc", "--reply-queue -w rpc"),
            ("-w queue-churn -c 5", "--confirm would do nothing: these operations", "-w queue-churn -x 5"),
            ("-w channel-churn --in-flight 5", "--in-flight", "-w channel-churn --count 5"),
            ("-w connection-churn -s 100", "--size", "-w rpc -s 100"),
            ("-x 0 --in-flight 5", "nobody publishes", "-x 1 --in-flight 5"),
            ("-x 0 -r 5", "nobody publishes", "-x 0 --count 5"),
        ] {
            let parse = |line: &str| RunOptions::try_parse_from(line.split_whitespace());
            let fault = parse(line).expect_err(line);
            assert!(fault.contains(reason), "{line}: {fault}");
            assert!(parse(sensible).is_ok(), "{sensible}: {:?}", parse(sensible));
        }
    }
}
