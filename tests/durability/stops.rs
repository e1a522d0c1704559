//! A broker that is stopped in order has forgotten nothing, and knows exactly what was delivered.

use crate::client::{Client, Properties};
use crate::site::{Site, stop};
use crate::support::methods;
use crate::support::octets::Table;

const QUEUES: usize = 5;
const MESSAGES: usize = 400;
/// So many of each queue are looked at in the first round, twice as many in the second, and so on.
const LOOKED_AT: usize = 70;

fn name(queue: usize) -> String {
    format!("stopped-{queue}")
}

/// Gets `count` messages of a queue, which are those of `expected` in their order; the ones up to the `delivered`th were delivered
/// before, and say so. Acknowledges those that `settles` picks.
#[track_caller]
fn get(client: &mut Client, queue: usize, expected: &[usize], delivered: usize, settles: impl Fn(usize) -> bool) {
    for number in expected {
        let got = client.wire.get(1, &name(queue), false).unwrap_or_else(|| panic!("{number} is missing"));
        assert_eq!(
            (got.text(), got.redelivered),
            (number.to_string().as_str(), *number < delivered),
            "{}",
            name(queue)
        );
        if settles(*number) {
            client.wire.send_method(1, &methods::ack(got.delivery_tag, false));
        }
    }
}

/// Goal: after a stop in order nothing is lost, nothing that was acknowledged is back, and exactly what was delivered says so.
/// Method: some queues, of which a part is delivered and a part of that acknowledged; stops, with one shard, then two, then three,
/// then one again. What was looked at in one round says so in the next.
#[test]
fn redelivered_flags_are_exact_after_a_stop() {
    let Some(site) = Site::new() else { return };
    let mut left: Vec<usize> = (0..MESSAGES).collect();
    let mut delivered = 0;
    for (round, shards) in ["1", "2", "3", "1", "2"].iter().enumerate() {
        let broker = site.start(&["--shards", shards]);
        let mut client = Client::publisher(&broker);
        for queue in 0..QUEUES {
            if round == 0 {
                client.declare(&name(queue), &Table::new());
                left.iter().for_each(|number| {
                    client.publish(&name(queue), Properties::default(), number.to_string().as_bytes());
                });
                client.wait_confirmed();
            }
            assert_eq!(client.ready(&name(queue)), left.len() as u64, "{} in round {round}", name(queue));
            let count = (LOOKED_AT * (round + 1)).min(left.len());
            get(&mut client, queue, &left[..count], delivered, |number| is_settled(number, round));
        }
        let count = (LOOKED_AT * (round + 1)).min(left.len());
        delivered = delivered.max(left[count - 1] + 1);
        let looked_at: Vec<usize> = left.drain(..count).collect();
        left.splice(0..0, looked_at.into_iter().filter(|number| !is_settled(*number, round)));
        client.wire.synchronise(1);
        // With the connection open: what it holds goes back.
        stop(broker);
    }
    assert!(left.len() < MESSAGES / 2);
}

/// Which messages are acknowledged in a round: all between others.
fn is_settled(number: usize, round: usize) -> bool {
    number % 6 == round
}
