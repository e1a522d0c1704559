//! Queues with limits of length and time.

use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::methods::{self, EXCLUSIVE, NO_ACK, basic, confirm, queue};
use crate::support::octets::Table;
use crate::support::unique;
use crate::support::wire::Wire;

const SOON: Duration = Duration::from_secs(20);

fn declare(wire: &mut Wire, name: &str, arguments: &Table) {
    wire.call(1, &methods::queue_declare(name, EXCLUSIVE, arguments), queue::DECLARE_OK);
}

/// Goal: what would put a queue over its limit is refused before it is looked for who takes it, as in RabbitMQ.
/// Method: a limit of no message at all, with a consumer that waits for one; then one of one message, for comparison.
#[test]
fn a_full_queue_refuses_also_while_a_consumer_waits() {
    let broker = Broker::start(&["--shards", "2"]);
    for (most, answer) in [(0, basic::NACK), (1, basic::ACK)] {
        let mut wire = Wire::open(&broker);
        let name = unique("refusing");
        declare(&mut wire, &name, &Table::new().i32("x-max-length", most).text("x-overflow", "reject-publish"));
        wire.call(1, &methods::consume(&name, "c", NO_ACK), basic::CONSUME_OK);
        wire.open_channel(2);
        wire.call(2, &methods::confirm_select(), confirm::SELECT_OK);
        wire.publish(2, "", &name, 0, b"x");
        loop {
            let frame = wire.read_frame();
            if frame.channel == 2 && frame.method_id().is_some() {
                assert_eq!(frame.method_id(), Some(answer), "with a limit of {most}");
                break;
            }
        }
    }
}

/// Goal: no consumer gets what has expired, however much of it there is, and all of it reaches the dead letter exchange soon.
/// Method: many times what one turn expires; a consumer and a `basic.get` come when all of it has expired at once.
#[test]
fn very_many_that_expire_at_once_go_to_the_dead_letter_exchange_only() {
    const MESSAGES: usize = 20_000;
    let broker = Broker::start(&["--shards", "2"]);
    // Connections on either shard: the two queues are at home on different ones.
    let (mut wire, mut other) = (Wire::open(&broker), Wire::open(&broker));
    let dead = unique("dead");
    other.call(1, &methods::queue_declare(&dead, 0, &Table::new()), queue::DECLARE_OK);
    let name = unique("expiring");
    let arguments = Table::new().i32("x-message-ttl", 1_500);
    let arguments = arguments.text("x-dead-letter-exchange", "").text("x-dead-letter-routing-key", &dead);
    let began = Instant::now();
    declare(&mut wire, &name, &arguments);
    for _ in 0..MESSAGES {
        wire.publish(1, "", &name, 0, b"late");
    }
    wire.synchronise(1);
    std::thread::sleep(Duration::from_millis(1_600).saturating_sub(began.elapsed()));
    assert!(wire.get(1, &name, true).is_none(), "an expired message was got");
    wire.call(1, &methods::consume(&name, "c", NO_ACK), basic::CONSUME_OK);
    let limit = Instant::now() + SOON;
    loop {
        let mut declared =
            other.call(1, &methods::queue_declare(&dead, methods::PASSIVE, &Table::new()), queue::DECLARE_OK);
        declared.short();
        if declared.u32() as usize == MESSAGES {
            break;
        }
        assert!(Instant::now() < limit, "the dead letters do not come");
    }
    wire.expect_quiet();
    other.call(1, &methods::queue_delete(&dead), queue::DELETE_OK);
}
