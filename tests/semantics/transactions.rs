//! The class tx, and how it gets on with confirms.

use crate::support::broker::Broker;
use crate::support::methods::{self, EXCLUSIVE, MANDATORY, basic, confirm, tx};
use crate::support::octets::{MethodId, Octets};
use crate::support::wire::Wire;

fn bare(id: MethodId) -> Vec<u8> {
    Octets::method(id).0
}

#[test]
fn a_commit_publishes_and_a_rollback_does_not() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut wire = Wire::open(&broker);
    let mut other = Wire::open(&broker);
    let name = wire.declare(1, &crate::support::unique("tx"), 0);
    wire.call(1, &bare(tx::SELECT), tx::SELECT_OK);
    wire.publish(1, "", &name, 0, b"first");
    wire.publish(1, "", &name, 0, b"second");
    wire.synchronise(1);
    assert_eq!(other.counts(1, &name).0, 0);
    wire.call(1, &bare(tx::COMMIT), tx::COMMIT_OK);
    assert_eq!(other.counts(1, &name).0, 2);
    wire.publish(1, "", &name, 0, b"taken back");
    wire.call(1, &bare(tx::ROLLBACK), tx::ROLLBACK_OK);
    wire.call(1, &bare(tx::COMMIT), tx::COMMIT_OK);
    assert_eq!(other.counts(1, &name).0, 2);
    assert_eq!(other.get(1, &name, true).expect("it is there").text(), "first");
    assert_eq!(other.get(1, &name, true).expect("it is there").text(), "second");
    other.call(1, &methods::queue_delete(&name), methods::queue::DELETE_OK);
}

/// Acknowledgements are part of the transaction; a rollback makes them outstanding again, it redelivers nothing.
#[test]
fn acknowledgements_wait_for_the_commit() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    wire.publish(1, "", &queue, 0, b"x");
    wire.call(1, &bare(tx::SELECT), tx::SELECT_OK);
    let got = wire.get(1, &queue, false).expect("it is there");
    wire.send_method(1, &methods::ack(got.delivery_tag, false));
    wire.call(1, &bare(tx::ROLLBACK), tx::ROLLBACK_OK);
    assert!(wire.get(1, &queue, false).is_none());
    wire.send_method(1, &methods::ack(got.delivery_tag, false));
    wire.call(1, &bare(tx::COMMIT), tx::COMMIT_OK);
    wire.call(1, &methods::recover(true), basic::RECOVER_OK);
    assert!(wire.get(1, &queue, false).is_none(), "it was acknowledged");
}

/// Returns come with the commit, in front of commit-ok.
#[test]
fn unroutable_messages_return_at_the_commit() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.call(1, &bare(tx::SELECT), tx::SELECT_OK);
    wire.publish(1, "", "nowhere", MANDATORY, b"x");
    wire.expect_quiet();
    wire.send_method(1, &bare(tx::COMMIT));
    assert_eq!(wire.expect_method(1, basic::RETURN).u16(), 312);
    wire.expect_content(1);
    wire.expect_method(1, tx::COMMIT_OK);
}

#[track_caller]
fn check_refused(first: Option<(&[u8], MethodId)>, then: &[u8], text: &str) {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    if let Some((method, answer)) = first {
        wire.call(1, method, answer);
    }
    wire.send_method(1, then);
    wire.expect_channel_close(1, 406, text);
}

#[test]
fn modes_do_not_mix() {
    let not = "PRECONDITION_FAILED - channel is not transactional";
    check_refused(None, &bare(tx::COMMIT), not);
    check_refused(None, &bare(tx::ROLLBACK), not);
    let select = methods::confirm_select();
    let text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
    check_refused(Some((&select, confirm::SELECT_OK)), &bare(tx::SELECT), text);
    let text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
    check_refused(Some((&bare(tx::SELECT), tx::SELECT_OK)), &select, text);
}
