//! Whether the broker still does its work for everybody else.

use super::broker::Broker;
use super::methods::{EXCLUSIVE, NO_ACK};
use super::wire::Wire;

/// A connection that lives through a whole test and must not notice anything of it.
pub struct Canary {
    wire: Wire,
    queue: String,
    published: u64,
}

impl Canary {
    #[track_caller]
    pub fn new(broker: &Broker) -> Canary {
        let mut wire = Wire::open(broker);
        let queue = wire.declare(1, "", EXCLUSIVE);
        wire.consume(1, &queue, "canary", NO_ACK);
        Canary { wire, queue, published: 0 }
    }

    /// Publishes a few messages and receives them in order.
    #[track_caller]
    pub fn sing(&mut self) {
        let first = self.published;
        for number in first..first + 5 {
            self.wire.publish(1, "", &self.queue, 0, number.to_string().as_bytes());
        }
        for number in first..first + 5 {
            assert_eq!(
                self.wire.expect_delivery(1).text(),
                number.to_string(),
                "the canary's messages are out of order"
            );
        }
        self.published += 5;
    }
}

/// A fresh connection can do everything in order, and the process runs without complaint.
#[track_caller]
pub fn broker_is_unhurt(broker: &mut Broker) {
    let mut canary = Canary::new(broker);
    canary.sing();
    canary.wire.close();
    broker.expect_running();
}
