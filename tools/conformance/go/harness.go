// The suite of amqp091-go. Prints PLAN, PASS and FAIL lines for tools/conformance/run.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	waitMax     = 20 * time.Second
	caseMax     = 60 * time.Second
	casesAtOnce = 4
)

var (
	address = flag.String("broker", "", "HOST:PORT")
	chosen  = flag.String("case", "", "only cases whose name contains this")
	_       = flag.Bool("has-definitions", false, "ignored")
	run     = randomName()
	numbers atomic.Int64
	cases   []testCase
)

type testCase struct {
	name string
	body func(*session)
}

// register adds a case; its body fails by panicking, by way of the checks below.
func register(name string, body func(*session)) { cases = append(cases, testCase{name, body}) }

func randomName() string {
	octets := make([]byte, 4)
	if _, err := rand.Read(octets); err != nil {
		panic(err)
	}
	return "conf-go-" + hex.EncodeToString(octets)
}

func unique(kind string) string { return fmt.Sprintf("%s-%s%d", run, kind, numbers.Add(1)) }

func check(condition bool, format string, values ...any) {
	if !condition {
		panic(fmt.Sprintf(format, values...))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func equal[T comparable](got, expected T, what string) {
	check(got == expected, "%s: expected %#v, got %#v", what, expected, got)
}

func eventually(probe func() bool, what string) {
	end := time.Now().Add(waitMax)
	for !probe() {
		check(time.Now().Before(end), "%s: not within %s", what, waitMax)
		time.Sleep(5 * time.Millisecond)
	}
}

// receive takes one value from a channel, or fails.
func receive[T any](from <-chan T, what string) T {
	select {
	case value, open := <-from:
		check(open, "%s: the channel is closed", what)
		return value
	case <-time.After(waitMax):
		panic(what + ": not in time")
	}
}

func url(user, password, vhost string) string {
	return fmt.Sprintf("amqp://%s:%s@%s/%s", user, password, *address, vhost)
}

// session is a connection and a channel, closed when the case ends.
type session struct {
	connection *amqp.Connection
	channel    *amqp.Channel
}

func open() *session {
	connection, err := amqp.Dial(url("guest", "guest", "%2F"))
	must(err)
	s := &session{connection: connection}
	s.channel = s.newChannel()
	return s
}

func (s *session) close() { _ = s.connection.Close() }

func (s *session) newChannel() *amqp.Channel {
	channel, err := s.connection.Channel()
	must(err)
	return channel
}

func (s *session) queue(arguments amqp.Table) string {
	queue, err := s.channel.QueueDeclare(unique("q"), false, false, true, false, arguments)
	must(err)
	return queue.Name
}

func (s *session) exchange(kind string, arguments amqp.Table) string {
	name := unique("x")
	must(s.channel.ExchangeDeclare(name, kind, false, true, false, false, arguments))
	return name
}

func (s *session) publish(exchange, key, body string) {
	must(s.channel.Publish(exchange, key, false, false, amqp.Publishing{Body: []byte(body)}))
}

func (s *session) ready(queue string) int {
	state, err := s.channel.QueueDeclarePassive(queue, false, false, true, false, nil)
	must(err)
	return state.Messages
}

func (s *session) get(queue string) amqp.Delivery {
	var got amqp.Delivery
	eventually(func() bool {
		delivery, ok, err := s.channel.Get(queue, true)
		must(err)
		got = delivery
		return ok
	}, "a message in "+queue)
	return got
}

// bodies takes `count` messages, after which the queue must be empty.
func (s *session) bodies(queue string, count int) string {
	var bodies []string
	for len(bodies) < count {
		bodies = append(bodies, string(s.get(queue).Body))
	}
	_, more, err := s.channel.Get(queue, true)
	must(err)
	check(!more, "one too many in %s", queue)
	return strings.Join(bodies, " ")
}

func (s *session) consume(channel *amqp.Channel, queue, tag string, autoAck bool, arguments amqp.Table) <-chan amqp.Delivery {
	deliveries, err := channel.Consume(queue, tag, autoAck, false, false, false, arguments)
	must(err)
	return deliveries
}

// refused runs the attempt on a channel of its own, which the broker must close so; the connection lives on.
func (s *session) refused(code int, text string, attempt func(*amqp.Channel) error) {
	channel := s.newChannel()
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	err := attempt(channel)
	failure := receive(closed, fmt.Sprintf("channel error %d", code))
	equal(failure.Code, code, "reply code")
	equal(failure.Reason, text, "reply text")
	var returned *amqp.Error
	if errors.As(err, &returned) {
		equal(returned.Code, code, "returned code")
	}
	must(s.newChannel().Close())
}

func runCase(one testCase) (ok bool) {
	begun := time.Now()
	done := make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		s := open()
		defer s.close()
		one.body(s)
	}()
	var failure any
	select {
	case failure = <-done:
	case <-time.After(caseMax):
		failure = "hangs"
	}
	seconds := time.Since(begun).Seconds()
	if failure == nil {
		fmt.Printf("PASS %s %.3f\n", one.name, seconds)
		return true
	}
	fmt.Printf("FAIL %s %.3f | %s\n", one.name, seconds, strings.Join(strings.Fields(fmt.Sprint(failure)), " "))
	return false
}

func main() {
	flag.Parse()
	var asked []testCase
	for _, one := range cases {
		if strings.Contains(one.name, *chosen) {
			asked = append(asked, one)
		}
	}
	fmt.Printf("PLAN %d\n", len(asked))
	queue := make(chan testCase)
	var failures atomic.Int64
	var workers sync.WaitGroup
	for n := 0; n < casesAtOnce; n++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for one := range queue {
				if !runCase(one) {
					failures.Add(1)
				}
			}
		}()
	}
	for _, one := range asked {
		queue <- one
	}
	close(queue)
	workers.Wait()
	if failures.Load() > 0 {
		os.Exit(1)
	}
}
