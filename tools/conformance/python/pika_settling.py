"""pika, blocking: acknowledgements of all kinds, requeueing and prefetch."""

import pika

from harness import case, check, equal, eventually
from pika_support import Inbox, Session, channel_closes, connection_closes


def held(session, queue, count):
    """Gets `count` messages without acknowledging them; returns their tags."""
    return [session.get(queue)[0].delivery_tag for _ in range(count)]


def ten(session):
    queue = session.queue()
    session.publish(queue, *[b"%d" % number for number in range(10)])
    eventually(lambda: session.ready(queue) == 10, "ten messages")
    return queue


def left_after_close(session, queue):
    """What comes back when the channel closes, as (body, redelivered)."""
    session.channel.close()
    session.channel = session.connection.channel()
    got = []
    while True:
        method, _, body = session.channel.basic_get(queue, auto_ack=True)
        if method is None:
            return got
        got.append((int(body), method.redelivered))


@case
def acknowledging_one(broker):
    with Session(broker) as session:
        queue = ten(session)
        tags = held(session, queue, 10)
        for tag in tags:
            if tag not in (tags[3], tags[7]):
                session.channel.basic_ack(tag)
        session.barrier()
        equal(left_after_close(session, queue), [(3, True), (7, True)])


@case
def acknowledging_multiple(broker):
    with Session(broker) as session:
        queue = ten(session)
        tags = held(session, queue, 10)
        session.channel.basic_ack(tags[2])
        session.channel.basic_ack(tags[6], multiple=True)
        session.barrier()
        equal(left_after_close(session, queue), [(7, True), (8, True), (9, True)])


@case
def acknowledging_zero_multiple_means_all(broker):
    with Session(broker) as session:
        queue = ten(session)
        held(session, queue, 8)
        session.channel.basic_ack(0, multiple=True)
        session.barrier()
        equal(left_after_close(session, queue), [(8, False), (9, False)])
        session.channel.basic_ack(0, multiple=True)  # nothing outstanding: no error
        session.barrier()


@case
def nack_drops_or_requeues(broker):
    with Session(broker) as session:
        queue = ten(session)
        tags = held(session, queue, 10)
        session.channel.basic_nack(tags[4], multiple=True, requeue=False)
        session.channel.basic_nack(tags[6], requeue=True)
        session.channel.basic_nack(tags[8], requeue=False)
        session.barrier()
        eventually(lambda: session.ready(queue) == 1, "one is back")
        equal(left_after_close(session, queue), [(5, True), (6, True), (7, True), (9, True)])


@case
def nack_multiple_requeues_all_in_order(broker):
    with Session(broker) as session:
        queue = ten(session)
        tags = held(session, queue, 10)
        session.channel.basic_nack(tags[-1], multiple=True, requeue=True)
        eventually(lambda: session.ready(queue) == 10, "all are back")
        equal(left_after_close(session, queue), [(number, True) for number in range(10)])


@case
def nack_zero_multiple_means_all(broker):
    with Session(broker) as session:
        queue = ten(session)
        held(session, queue, 4)
        session.channel.basic_nack(0, multiple=True, requeue=True)
        eventually(lambda: session.ready(queue) == 10, "all are back")
        equal(left_after_close(session, queue), [(number, number < 4) for number in range(10)])


@case
def reject_drops_or_requeues_to_the_old_place(broker):
    with Session(broker) as session:
        queue = ten(session)
        tags = held(session, queue, 4)
        session.channel.basic_reject(tags[0], requeue=False)
        session.channel.basic_reject(tags[2], requeue=True)
        eventually(lambda: session.ready(queue) == 7, "one is back")
        method, _, body = session.get(queue)
        equal((body, method.redelivered), (b"2", True))
        method, _, body = session.get(queue)
        equal((body, method.redelivered), (b"4", False))


@case
def a_requeued_message_goes_to_a_waiting_consumer(broker):
    with Session(broker) as session:
        queue = session.queue()
        one = Inbox(session, queue, channel=session.connection.channel(), auto_ack=False)
        two = Inbox(session, queue, channel=session.connection.channel(), auto_ack=False)
        session.publish(queue, b"hot")
        session.pump_until(lambda: one.bodies or two.bodies, "the first delivery")
        first, second = (one, two) if one.bodies else (two, one)
        first.channel.basic_reject(first.methods[0].delivery_tag, requeue=True)
        session.pump_until(lambda: len(one.bodies) + len(two.bodies) == 2, "the second delivery")
        last = second if second.methods else first
        check(last.methods[-1].redelivered, "not marked as redelivered")


@case
def a_closed_channel_gives_back_what_it_held(broker):
    with Session(broker) as session:
        queue = ten(session)
        other = session.connection.channel()
        other.basic_qos(prefetch_count=6)
        inbox = Inbox(session, queue, channel=other, auto_ack=False)
        inbox.wait(6)
        other.basic_ack(inbox.methods[1].delivery_tag)
        session.barrier(other)
        other.close()
        eventually(lambda: session.ready(queue) == 9, "nine are back")
        equal(
            left_after_close(session, queue),
            [(number, number < 7) for number in range(10) if number != 1],
        )


@case
def recover_requeues_what_is_unacknowledged(broker):
    with Session(broker) as session:
        queue = ten(session)
        tags = held(session, queue, 5)
        session.channel.basic_ack(tags[0])
        session.channel.basic_recover(requeue=True)
        eventually(lambda: session.ready(queue) == 9, "all but one are ready")
        equal(left_after_close(session, queue), [(number, number < 5) for number in range(1, 10)])


@case
def recover_async_does_the_same(broker):
    with Session(broker) as session:
        queue = ten(session)
        held(session, queue, 5)
        session.channel._impl._send_method(pika.spec.Basic.RecoverAsync(requeue=True))
        eventually(lambda: session.ready(queue) == 10, "all are ready")
        equal(left_after_close(session, queue), [(number, number < 5) for number in range(10)])


@case
def a_recovered_consumer_gets_its_messages_again(broker):
    with Session(broker) as session:
        queue = session.queue()
        inbox = Inbox(session, queue, auto_ack=False)
        session.publish(queue, b"1", b"2")
        inbox.wait(2)
        session.channel.basic_recover(requeue=True)
        inbox.wait(4)
        equal(sorted(inbox.bodies[2:]), [b"1", b"2"])
        equal([method.redelivered for method in inbox.methods], [False, False, True, True])


@case
def settling_twice_is_406(broker):
    with Session(broker) as session:
        queue = ten(session)
        for settle in (
            lambda channel, tag: channel.basic_ack(tag),
            lambda channel, tag: channel.basic_nack(tag, requeue=False),
            lambda channel, tag: channel.basic_reject(tag, requeue=False),
            lambda channel, tag: channel.basic_ack(tag, multiple=True),
        ):
            tag = held(session, queue, 1)[0]
            session.channel.basic_ack(tag)
            with channel_closes(session, 406, f"PRECONDITION_FAILED - unknown delivery tag {tag}") as channel:
                settle(channel, tag)


@case
def unknown_tags_are_406(broker):
    with Session(broker) as session:
        for settle in (
            lambda channel: channel.basic_ack(82),
            lambda channel: channel.basic_nack(82),
            lambda channel: channel.basic_reject(82),
        ):
            with channel_closes(session, 406, "PRECONDITION_FAILED - unknown delivery tag 82") as channel:
                settle(channel)


@case
def what_came_without_acknowledgement_cannot_be_acknowledged(broker):
    with Session(broker) as session:
        queue = session.queue()
        inbox = Inbox(session, queue, auto_ack=True)
        session.publish(queue, b"x")
        inbox.wait(1)
        with channel_closes(session, 406, "PRECONDITION_FAILED - unknown delivery tag 1") as channel:
            channel.basic_ack(1)


@case
def a_tag_of_another_channel_is_unknown(broker):
    with Session(broker) as session:
        queue = ten(session)
        held(session, queue, 3)
        other = session.connection.channel()
        with channel_closes(session, 406, "PRECONDITION_FAILED - unknown delivery tag 3", channel=other) as channel:
            channel.basic_ack(3)
        session.channel.basic_ack(3, multiple=True)
        session.barrier()


@case
def prefetch_limits_each_consumer(broker):
    with Session(broker) as session:
        queue = session.queue()
        session.channel.basic_qos(prefetch_count=3)
        one, two = Inbox(session, queue, auto_ack=False), Inbox(session, queue, auto_ack=False)
        session.publish(queue, *[b"%d" % number for number in range(10)])
        session.pump_until(lambda: len(one.bodies) == 3 and len(two.bodies) == 3, "three each")
        eventually(lambda: session.ready(queue) == 4, "the rest stays")
        one.channel.basic_ack(one.methods[0].delivery_tag)
        session.pump_until(lambda: len(one.bodies) == 4, "one more")
        eventually(lambda: session.ready(queue) == 3, "the rest stays")
        equal((len(one.bodies), len(two.bodies)), (4, 3))


@case
def prefetch_one_works_through_the_queue(broker):
    with Session(broker) as session:
        queue = session.queue()
        session.channel.basic_qos(prefetch_count=1)
        got = []

        def on_message(channel, method, _properties, body):
            got.append(int(body))
            channel.basic_ack(method.delivery_tag)

        session.channel.basic_consume(queue, on_message)
        session.publish(queue, *[b"%d" % number for number in range(300)])
        session.pump_until(lambda: len(got) == 300, "all")
        equal(got, list(range(300)))


@case
def a_changed_prefetch_is_for_new_consumers(broker):
    with Session(broker) as session:
        one_queue, two_queue = session.queue(), session.queue()
        session.channel.basic_qos(prefetch_count=2)
        one = Inbox(session, one_queue, auto_ack=False)
        session.channel.basic_qos(prefetch_count=4)
        two = Inbox(session, two_queue, auto_ack=False)
        for queue in (one_queue, two_queue):
            session.publish(queue, *[b"x"] * 6)
        session.pump_until(lambda: len(one.bodies) == 2 and len(two.bodies) == 4, "two and four")
        eventually(lambda: session.ready(one_queue) == 4 and session.ready(two_queue) == 2, "the rest stays")


@case
def a_global_prefetch_limits_the_channel(broker):
    with Session(broker) as session:
        queues = [session.queue(), session.queue()]
        session.channel.basic_qos(prefetch_count=5, global_qos=True)
        inboxes = [Inbox(session, queue, auto_ack=False) for queue in queues]
        for queue in queues:
            session.publish(queue, *[b"x"] * 10)

        def delivered():
            return sum(len(inbox.bodies) for inbox in inboxes)

        session.pump_until(lambda: delivered() == 5, "five in all")
        eventually(lambda: sum(map(session.ready, queues)) == 15, "the rest stays")
        for inbox in inboxes:
            if inbox.methods:
                inbox.channel.basic_ack(inbox.methods[0].delivery_tag)
                break
        session.pump_until(lambda: delivered() == 6, "one more")
        eventually(lambda: sum(map(session.ready, queues)) == 14, "the rest stays")


@case
def a_global_and_a_consumer_prefetch_together(broker):
    with Session(broker) as session:
        queue = session.queue()
        session.channel.basic_qos(prefetch_count=3)
        session.channel.basic_qos(prefetch_count=5, global_qos=True)
        one, two = Inbox(session, queue, auto_ack=False), Inbox(session, queue, auto_ack=False)
        session.publish(queue, *[b"x"] * 10)
        session.pump_until(lambda: len(one.bodies) + len(two.bodies) == 5, "five in all")
        eventually(lambda: session.ready(queue) == 5, "the rest stays")
        check(max(len(one.bodies), len(two.bodies)) <= 3, "more than three for one")


@case
def a_lifted_global_prefetch_sets_deliveries_going(broker):
    with Session(broker) as session:
        queue = session.queue()
        session.channel.basic_qos(prefetch_count=2, global_qos=True)
        inbox = Inbox(session, queue, auto_ack=False)
        session.publish(queue, *[b"x"] * 10)
        session.pump_until(lambda: len(inbox.bodies) == 2, "two")
        session.channel.basic_qos(prefetch_count=0, global_qos=True)
        session.pump_until(lambda: len(inbox.bodies) == 10, "all")


@case
def prefetch_does_not_limit_get_nor_consumers_without_acknowledgement(broker):
    with Session(broker) as session:
        queue = ten(session)
        session.channel.basic_qos(prefetch_count=1)
        held(session, queue, 5)
        Inbox(session, queue, auto_ack=True).wait(5)


@case
def a_prefetch_size_is_540(broker):
    with Session(broker) as session:
        with connection_closes(session, 540, "NOT_IMPLEMENTED - prefetch_size!=0 (1000)") as channel:
            channel.basic_qos(prefetch_size=1000)


@case
def a_cancelled_consumer_keeps_what_it_has(broker):
    with Session(broker) as session:
        queue = ten(session)
        session.channel.basic_qos(prefetch_count=4)
        cancelled = []
        tag = session.channel._impl.basic_consume(queue, lambda *all_of_it: cancelled.append(all_of_it[1].delivery_tag))
        session.pump_until(lambda: len(cancelled) == 4, "four")
        session.channel._impl.basic_cancel(tag, lambda _frame: cancelled.append("cancelled"))
        session.pump_until(lambda: cancelled[-1] == "cancelled", "cancel-ok")
        equal(session.ready(queue), 6)
        session.channel.basic_ack(cancelled[0])
        session.barrier()
        equal(session.ready(queue), 6)
        equal(left_after_close(session, queue), [(number, number < 4) for number in range(1, 10)])


@case
def many_thousand_unacknowledged(broker):
    count = 20_000
    with Session(broker) as session:
        queue = session.queue()
        inbox = Inbox(session, queue, auto_ack=False)
        for _ in range(count):
            session.publish(queue, b"x")
        inbox.wait(count)
        equal(session.ready(queue), 0)
        # Every second one singly, the rest at once.
        for method in inbox.methods[::2]:
            inbox.channel.basic_ack(method.delivery_tag)
        inbox.channel.basic_nack(0, multiple=True, requeue=False)
        session.barrier()
        session.channel.close()
        session.channel = session.connection.channel()
        equal(session.ready(queue), 0)
