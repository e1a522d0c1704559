package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func dialError(address string) *amqp.Error {
	connection, err := amqp.Dial(address)
	if err == nil {
		_ = connection.Close()
		panic("connected where a refusal is due")
	}
	var failure *amqp.Error
	check(errors.As(err, &failure), "%v is no AMQP error", err)
	return failure
}

func init() {
	register("connects and sees the capabilities", func(s *session) {
		capabilities := s.connection.Properties["capabilities"].(amqp.Table)
		for _, name := range []string{"publisher_confirms", "basic.nack", "consumer_cancel_notify", "exchange_exchange_bindings"} {
			equal(capabilities[name], any(true), name)
		}
		equal(s.connection.Config.ChannelMax, 2047, "channel_max")
		equal(s.connection.Config.FrameSize, 131072, "frame_max")
	})
	register("bad password is 403", func(*session) {
		equal(dialError(url("guest", "wrong", "%2F")).Code, 403, "code")
	})
	register("unknown vhost is 530", func(*session) {
		equal(dialError(url("guest", "guest", "nowhere")).Code, 530, "code")
	})
	register("an idle connection lives by heartbeats", func(*session) {
		connection, err := amqp.DialConfig(url("guest", "guest", "%2F"), amqp.Config{Heartbeat: time.Second})
		must(err)
		closed := connection.NotifyClose(make(chan *amqp.Error, 1))
		select {
		case failure := <-closed:
			panic(fmt.Sprintf("closed: %v", failure))
		case <-time.After(3300 * time.Millisecond):
		}
		must(connection.Close())
	})
	register("update-secret", func(s *session) {
		must(s.connection.UpdateSecret("guest", "renewed"))
		s.queue(nil)
	})
	register("direct, fanout and topic exchanges", func(s *session) {
		keys := []string{"a", "b", "a.x"}
		for kind, bindings := range map[string]map[string]string{
			"direct": {"a": "a", "b": "b"},
			"fanout": {"x": "a b a.x", "y": "a b a.x"},
			"topic":  {"a.#": "a a.x", "*": "a b", "#.x": "a.x", "#": "a b a.x"},
		} {
			exchange := s.exchange(kind, nil)
			queues := map[string]string{}
			for pattern := range bindings {
				queues[pattern] = s.queue(nil)
				must(s.channel.QueueBind(queues[pattern], pattern, exchange, false, nil))
			}
			for _, key := range keys {
				s.publish(exchange, key, key)
			}
			for pattern, expected := range bindings {
				equal(s.bodies(queues[pattern], len(strings.Fields(expected))), expected, kind+" "+pattern)
			}
		}
	})
	register("headers exchanges", func(s *session) {
		exchange := s.exchange("headers", nil)
		keep := s.queue(nil)
		must(s.channel.QueueBind(keep, "", exchange, false, amqp.Table{"x-match": "any", "never": true}))
		sent := []amqp.Table{{"a": int32(1), "b": "two"}, {"a": int64(1), "x-y": "z"}, {"b": "two"}, {"a": "1"}}
		for match, one := range map[string]struct {
			table    amqp.Table
			expected string
		}{
			"all":        {amqp.Table{"a": int32(1), "b": "two"}, "0"},
			"any":        {amqp.Table{"b": "two", "c": true}, "0 2"},
			"all-with-x": {amqp.Table{"x-y": "z"}, "1"},
			"any-with-x": {amqp.Table{"c": int32(1), "x-y": "z"}, "1"},
		} {
			queue := s.queue(nil)
			one.table["x-match"] = match
			must(s.channel.QueueBind(queue, "", exchange, false, one.table))
			for number, headers := range sent {
				must(s.channel.Publish(exchange, "", false, false, amqp.Publishing{Headers: headers, Body: []byte(strconv.Itoa(number))}))
			}
			equal(s.bodies(queue, len(strings.Fields(one.expected))), one.expected, match)
			must(s.channel.QueueUnbind(queue, "", exchange, one.table))
		}
	})
	register("exchange to exchange and alternate", func(s *session) {
		last := s.exchange("fanout", nil)
		entry := s.exchange("direct", amqp.Table{"alternate-exchange": last})
		inner := s.exchange("fanout", nil)
		must(s.channel.ExchangeBind(inner, "k", entry, false, nil))
		one, two := s.queue(nil), s.queue(nil)
		must(s.channel.QueueBind(one, "", inner, false, nil))
		must(s.channel.QueueBind(two, "", last, false, nil))
		s.publish(entry, "k", "1")
		s.publish(entry, "other", "2")
		equal(s.bodies(one, 1), "1", "bound")
		equal(s.bodies(two, 1), "2", "alternate")
		must(s.channel.ExchangeUnbind(inner, "k", entry, false, nil))
	})
	register("queues named, inspected, purged, deleted", func(s *session) {
		queue, err := s.channel.QueueDeclare("", false, false, true, false, nil)
		must(err)
		check(strings.HasPrefix(queue.Name, "amq.gen-"), "name %s", queue.Name)
		for n := 0; n < 3; n++ {
			s.publish("", queue.Name, "x")
		}
		eventually(func() bool { return s.ready(queue.Name) == 3 }, "three")
		purged, err := s.channel.QueuePurge(queue.Name, false)
		must(err)
		equal(purged, 3, "purged")
		s.publish("", queue.Name, "x")
		deleted, err := s.channel.QueueDelete(queue.Name, false, false, false)
		must(err)
		equal(deleted, 1, "deleted")
	})
	register("no-wait methods", func(s *session) {
		queue, exchange := unique("q"), unique("x")
		must(s.channel.ExchangeDeclare(exchange, "fanout", false, true, false, true, nil))
		_, err := s.channel.QueueDeclare(queue, false, false, true, true, nil)
		must(err)
		must(s.channel.QueueBind(queue, "", exchange, true, nil))
		deliveries, err := s.channel.Consume(queue, "tag", true, false, false, true, nil)
		must(err)
		s.publish(exchange, "", "x")
		equal(string(receive(deliveries, "the delivery").Body), "x", "body")
		must(s.channel.Cancel("tag", true))
	})
	register("errors with code and text", func(s *session) {
		missing := unique("q")
		noQueue := fmt.Sprintf("NOT_FOUND - no queue '%s' in vhost '/'", missing)
		noExchange := fmt.Sprintf("NOT_FOUND - no exchange '%s' in vhost '/'", missing)
		s.refused(404, noQueue, func(c *amqp.Channel) error {
			_, err := c.QueueDeclarePassive(missing, false, false, false, false, nil)
			return err
		})
		s.refused(404, noQueue, func(c *amqp.Channel) error { _, _, err := c.Get(missing, true); return err })
		s.refused(404, noExchange, func(c *amqp.Channel) error {
			return c.Publish(missing, "", false, false, amqp.Publishing{})
		})
		queue := s.queue(nil)
		s.refused(404, noExchange, func(c *amqp.Channel) error { return c.QueueBind(queue, "", missing, false, nil) })
		s.refused(406, fmt.Sprintf("PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '%s' in vhost '/': received 'true' but current is 'false'", queue),
			func(c *amqp.Channel) error {
				_, err := c.QueueDeclare(queue, false, true, true, false, nil)
				return err
			})
		s.refused(406, fmt.Sprintf("PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '%s' in vhost '/': received the value '7' of type 'signedint' but current is none", queue),
			func(c *amqp.Channel) error {
				_, err := c.QueueDeclare(queue, false, false, true, false, amqp.Table{"x-max-length": int32(7)})
				return err
			})
		s.refused(406, "PRECONDITION_FAILED - unknown delivery tag 82", func(c *amqp.Channel) error { return c.Ack(82, false) })
		s.refused(406, "PRECONDITION_FAILED - channel is not transactional", func(c *amqp.Channel) error { return c.TxCommit() })
		s.refused(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'", func(c *amqp.Channel) error {
			_, err := c.QueueDeclare("amq.mine", false, false, false, false, nil)
			return err
		})
		other := open()
		defer other.close()
		other.refused(405, fmt.Sprintf("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.", queue),
			func(c *amqp.Channel) error { _, _, err := c.Get(queue, true); return err })
	})
	register("a connection error with code and text", func(*session) {
		s := open()
		closed := s.connection.NotifyClose(make(chan *amqp.Error, 1))
		_ = s.channel.Publish("", "x", false, true, amqp.Publishing{})
		failure := receive(closed, "the connection error")
		equal(failure.Code, 540, "code")
		equal(failure.Reason, "NOT_IMPLEMENTED - immediate=true", "text")
	})
	register("acknowledgements of all kinds", func(s *session) {
		queue := s.queue(nil)
		for n := 0; n < 8; n++ {
			s.publish("", queue, strconv.Itoa(n))
		}
		channel := s.newChannel()
		deliveries := s.consume(channel, queue, "", false, nil)
		var got []amqp.Delivery
		for n := 0; n < 8; n++ {
			got = append(got, receive(deliveries, "a delivery"))
		}
		must(got[1].Ack(true))
		must(got[2].Nack(false, false))
		must(got[3].Reject(false))
		must(got[4].Ack(false))
		must(channel.Close())
		channel = s.newChannel()
		deliveries = s.consume(channel, queue, "", false, nil)
		for _, expected := range []string{"5", "6", "7"} {
			delivery := receive(deliveries, "a redelivery")
			equal(string(delivery.Body), expected, "body")
			check(delivery.Redelivered, "not marked as redelivered")
			if expected == "6" {
				must(delivery.Nack(true, true))
			}
		}
		back := map[string]bool{}
		for n := 0; n < 2; n++ {
			back[string(receive(deliveries, "a requeued one").Body)] = true
		}
		check(back["5"] && back["6"], "back are %v", back)
		must(channel.Ack(0, true))
		must(channel.Close())
		equal(s.ready(queue), 0, "left")
	})
	register("prefetch by consumer and by channel", func(s *session) {
		for _, global := range []bool{false, true} {
			expected := map[bool]int{false: 6, true: 3}[global]
			queue := s.queue(nil)
			channel := s.newChannel()
			must(channel.Qos(3, 0, global))
			one, two := s.consume(channel, queue, "", false, nil), s.consume(channel, queue, "", false, nil)
			for n := 0; n < 10; n++ {
				s.publish("", queue, "x")
			}
			eventually(func() bool { return s.ready(queue) == 10-expected }, "the rest stays")
			either := func() amqp.Delivery {
				select {
				case delivery := <-one:
					return delivery
				case delivery := <-two:
					return delivery
				case <-time.After(waitMax):
					panic("no delivery")
				}
			}
			first := either()
			for n := 1; n < expected; n++ {
				either()
			}
			must(first.Ack(false))
			either()
			eventually(func() bool { return s.ready(queue) == 9-expected }, "the rest stays")
			must(channel.Close())
		}
	})
	register("returns come before confirms", func(s *session) {
		must(s.channel.Confirm(false))
		events := make(chan string, 1000)
		returns := s.channel.NotifyReturn(make(chan amqp.Return))
		confirms := s.channel.NotifyPublish(make(chan amqp.Confirmation))
		go func() {
			// Both channels are unbuffered: what the library hands over first is here first.
			for {
				select {
				case returned, open := <-returns:
					if !open {
						return
					}
					events <- fmt.Sprintf("return %s %d %s", returned.MessageId, returned.ReplyCode, returned.ReplyText)
				case confirmed, open := <-confirms:
					if !open {
						return
					}
					events <- fmt.Sprintf("confirm %d %v", confirmed.DeliveryTag, confirmed.Ack)
				}
			}
		}()
		seen := map[string]bool{}
		for n := 1; n <= 50; n++ {
			must(s.channel.Publish("", unique("nowhere"), true, false, amqp.Publishing{MessageId: strconv.Itoa(n)}))
			for k := 0; k < 2; k++ {
				event := receive(events, "an event")
				if strings.HasPrefix(event, "confirm") {
					check(seen[fmt.Sprintf("return %d 312 NO_ROUTE", n)], "%s before its return", event)
				}
				seen[event] = true
			}
		}
	})
	register("thousands of confirms in flight", func(s *session) {
		must(s.channel.Confirm(false))
		queue := s.queue(nil)
		var pending []*amqp.DeferredConfirmation
		for n := 0; n < 10000; n++ {
			confirmation, err := s.channel.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{Body: []byte("x"), DeliveryMode: uint8(1 + n%2)})
			must(err)
			pending = append(pending, confirmation)
		}
		ctx, cancel := context.WithTimeout(context.Background(), waitMax)
		defer cancel()
		for number, confirmation := range pending {
			acked, err := confirmation.WaitContext(ctx)
			must(err)
			check(acked, "%d nacked", number)
		}
		equal(s.ready(queue), 10000, "queued")
	})
	register("nacks by a full queue", func(s *session) {
		must(s.channel.Confirm(false))
		queue := s.queue(amqp.Table{"x-max-length": int32(2), "x-overflow": "reject-publish"})
		for n := 0; n < 5; n++ {
			confirmation, err := s.channel.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{})
			must(err)
			equal(confirmation.Wait(), n < 2, "ack")
		}
	})
	register("transactions", func(s *session) {
		channel := s.newChannel()
		must(channel.Tx())
		queue := s.queue(nil)
		must(channel.Publish("", queue, false, false, amqp.Publishing{Body: []byte("no")}))
		must(channel.TxRollback())
		must(channel.Publish("", queue, false, false, amqp.Publishing{Body: []byte("yes")}))
		equal(s.ready(queue), 0, "before the commit")
		must(channel.TxCommit())
		equal(s.bodies(queue, 1), "yes", "committed")
	})
	register("a deleted queue cancels its consumers", func(s *session) {
		queue := s.queue(nil)
		cancelled := s.channel.NotifyCancel(make(chan string, 1))
		deliveries := s.consume(s.channel, queue, "tag", true, nil)
		_, err := s.newChannel().QueueDelete(queue, false, false, false)
		must(err)
		equal(receive(cancelled, "the cancellation"), "tag", "tag")
		_, open := <-deliveries
		check(!open, "the deliveries go on")
	})
	register("exclusive consumers and priorities", func(s *session) {
		queue := s.queue(nil)
		_, err := s.channel.Consume(queue, "alone", false, true, false, false, nil)
		must(err)
		s.refused(403, fmt.Sprintf("ACCESS_REFUSED - queue '%s' in vhost '/' in exclusive use", queue), func(c *amqp.Channel) error {
			_, err := c.Consume(queue, "", false, false, false, false, nil)
			return err
		})
		must(s.channel.Cancel("alone", false))
		must(s.channel.Qos(1, 0, false))
		low := s.consume(s.channel, queue, "", false, amqp.Table{"x-priority": int32(1)})
		high := s.consume(s.channel, queue, "", false, amqp.Table{"x-priority": int32(5)})
		s.publish("", queue, "first")
		s.publish("", queue, "second")
		equal(string(receive(high, "the first").Body), "first", "high")
		equal(string(receive(low, "the second").Body), "second", "low")
	})
	register("properties and header types both ways", func(s *session) {
		queue := s.queue(nil)
		when := time.Unix(1700000000, 0)
		headers := amqp.Table{
			"bool": true, "byte": byte(250), "int8": int8(-7), "int16": int16(-700), "int32": int32(-70000), "int64": int64(1) << 40,
			"uint16": uint16(65000), "uint32": uint32(4000000000), "float32": float32(0.5), "float64": 1.25, "string": "größe",
			"bytes": []byte{0, 255}, "time": when, "nil": nil, "decimal": amqp.Decimal{Scale: 2, Value: 314},
			"list":  []any{int32(1), "two", nil, []any{true}},
			"table": amqp.Table{"deep": amqp.Table{"deeper": int32(1)}},
		}
		sent := amqp.Publishing{Headers: headers, ContentType: "text/plain", ContentEncoding: "identity", DeliveryMode: 2, Priority: 3,
			CorrelationId: "c", ReplyTo: "r", Expiration: "60000", MessageId: "m", Timestamp: when, Type: "t", UserId: "guest", AppId: "a", Body: []byte("x")}
		must(s.channel.Publish("", queue, false, false, sent))
		got := s.get(queue)
		for name, value := range headers {
			equal(fmt.Sprintf("%T %v", got.Headers[name], got.Headers[name]), fmt.Sprintf("%T %v", value, value), name)
		}
		equal(fmt.Sprint(got.ContentType, got.ContentEncoding, got.DeliveryMode, got.Priority, got.CorrelationId, got.ReplyTo, got.Expiration, got.MessageId, got.Timestamp.Unix(), got.Type, got.UserId, got.AppId),
			fmt.Sprint(sent.ContentType, sent.ContentEncoding, sent.DeliveryMode, sent.Priority, sent.CorrelationId, sent.ReplyTo, sent.Expiration, sent.MessageId, when.Unix(), sent.Type, sent.UserId, sent.AppId), "properties")
	})
	register("large and empty bodies", func(s *session) {
		queue := s.queue(nil)
		deliveries := s.consume(s.channel, queue, "", true, nil)
		for _, size := range []int{5_000_000, 0, 131072 - 8, 131072 - 7, 1} {
			body := bytes.Repeat([]byte{byte(size)}, size)
			must(s.channel.Publish("", queue, false, false, amqp.Publishing{Body: body}))
			check(bytes.Equal(receive(deliveries, "the delivery").Body, body), "%d octets changed", size)
		}
	})
	register("time-outs, dead letters, bounds, priorities", func(s *session) {
		dead := s.queue(nil)
		with := func(arguments amqp.Table) string {
			arguments["x-dead-letter-exchange"] = ""
			arguments["x-dead-letter-routing-key"] = dead
			return s.queue(arguments)
		}
		death := func(reason, queue string) {
			entry := s.get(dead).Headers["x-death"].([]any)[0].(amqp.Table)
			equal(fmt.Sprint(entry["reason"], entry["queue"], entry["count"]), fmt.Sprint(reason, queue, 1), "x-death")
		}
		expiring := with(amqp.Table{"x-message-ttl": int32(30)})
		s.publish("", expiring, "x")
		death("expired", expiring)
		bounded := with(amqp.Table{"x-max-length": int32(1)})
		s.publish("", bounded, "x")
		s.publish("", bounded, "y")
		death("maxlen", bounded)
		rejecting := with(amqp.Table{})
		s.publish("", rejecting, "x")
		must(receive(s.consume(s.channel, rejecting, "", false, nil), "a delivery").Reject(false))
		death("rejected", rejecting)
		ordered := s.queue(amqp.Table{"x-max-priority": int32(5)})
		for _, priority := range []uint8{1, 5, 3} {
			must(s.channel.Publish("", ordered, false, false, amqp.Publishing{Priority: priority, Body: []byte{'0' + priority}}))
		}
		eventually(func() bool { return s.ready(ordered) == 3 }, "three")
		equal(s.bodies(ordered, 3), "5 3 1", "order")
	})
	register("remote calls by direct reply-to", func(s *session) {
		requests := s.queue(nil)
		server := s.newChannel()
		deliveries := s.consume(server, requests, "", true, nil)
		replies := s.consume(s.channel, "amq.rabbitmq.reply-to", "", true, nil)
		for n := 0; n < 20; n++ {
			must(s.channel.Publish("", requests, false, false, amqp.Publishing{ReplyTo: "amq.rabbitmq.reply-to", CorrelationId: strconv.Itoa(n)}))
			request := receive(deliveries, "the request")
			must(server.Publish("", request.ReplyTo, false, false, amqp.Publishing{CorrelationId: request.CorrelationId}))
			equal(receive(replies, "the reply").CorrelationId, strconv.Itoa(n), "correlation id")
		}
	})
	register("recover", func(s *session) {
		queue := s.queue(nil)
		deliveries := s.consume(s.channel, queue, "", false, nil)
		s.publish("", queue, "x")
		equal(receive(deliveries, "the delivery").Redelivered, false, "redelivered")
		must(s.channel.Recover(true))
		equal(receive(deliveries, "the redelivery").Redelivered, true, "redelivered")
	})
	register("a hundred thousand messages in order", func(s *session) {
		const count, window = 100_000, 2_000
		queue := s.queue(nil)
		must(s.channel.Confirm(false))
		confirms := s.channel.NotifyPublish(make(chan amqp.Confirmation, window))
		consumer := s.newChannel()
		must(consumer.Qos(1000, 0, false))
		deliveries := s.consume(consumer, queue, "", false, nil)
		failure := make(chan string, 1)
		go func() {
			confirmed := 0
			for n := 0; n < count; n++ {
				if err := s.channel.Publish("", queue, false, false, amqp.Publishing{Body: []byte(strconv.Itoa(n))}); err != nil {
					failure <- err.Error()
					return
				}
				for ; n+1-confirmed >= window || (n+1 == count && confirmed < count); confirmed++ {
					if confirmation, open := <-confirms; !open || !confirmation.Ack || confirmation.DeliveryTag != uint64(confirmed+1) {
						failure <- fmt.Sprintf("confirm %v where %d is due", confirmation, confirmed+1)
						return
					}
				}
			}
			failure <- ""
		}()
		for n := 0; n < count; n++ {
			delivery := receive(deliveries, "a delivery")
			if string(delivery.Body) != strconv.Itoa(n) {
				panic(fmt.Sprintf("%s where %d is due", delivery.Body, n))
			}
			if (n+1)%200 == 0 {
				must(delivery.Ack(true))
			}
		}
		equal(receive(failure, "the confirms"), "", "publisher")
		equal(s.ready(queue), 0, "left")
	})
}
