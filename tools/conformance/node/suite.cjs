// The suite of amqplib, by promises. Prints PLAN, PASS and FAIL lines for tools/conformance/run.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const crypto = require('node:crypto');
const path = require('node:path');
const { parseArgs } = require('node:util');

const { values: options } = parseArgs({
  options: {
    broker: { type: 'string' },
    modules: { type: 'string' },
    case: { type: 'string', default: '' },
    'has-definitions': { type: 'boolean', default: false },
  },
});
const amqp = require(path.join(options.modules, 'amqplib'));

const WAIT_MILLIS = 20000;
const CASES_AT_ONCE = 4;
const CASE_MILLIS_MAX = 60000;
const RUN = `conf-node-${crypto.randomBytes(4).toString('hex')}`;
let numbers = 0;
const unique = (kind = 'q') => `${RUN}-${kind}${++numbers}`;

const cases = [];
/** Registers a case. `body` gets a connection and a channel, both closed afterwards. */
const test = (name, body) => cases.push([name, body]);

const url = ({ user = 'guest', password = 'guest', vhost = '%2F', query = '' } = {}) =>
  `amqp://${user}:${password}@${options.broker}/${vhost}${query}`;

/** An emitter that reports errors nobody else asked for by no means other than the promises. */
const quiet = (emitter) => emitter.on('error', () => {});

const connect = async (...how) => quiet(await amqp.connect(url(...how)));
const channelOf = async (connection) => quiet(await connection.createChannel());
const confirmChannelOf = async (connection) => quiet(await connection.createConfirmChannel());

const within = (promise, what, millis = WAIT_MILLIS) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${millis} ms`)), millis);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const eventually = async (probe, what) => {
  const end = Date.now() + WAIT_MILLIS;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what}: not within ${WAIT_MILLIS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};

const ready = async (channel, queue) => (await channel.checkQueue(queue)).messageCount;
const exclusive = async (channel, more = {}) =>
  (await channel.assertQueue(unique(), { exclusive: true, durable: false, ...more })).queue;
const take = (channel, queue) => eventually(() => channel.get(queue, { noAck: true }), `a message in ${queue}`);
const takeAll = async (channel, queue, count) => {
  const bodies = [];
  while (bodies.length < count) bodies.push((await take(channel, queue)).content.toString());
  assert.equal(await channel.get(queue), false, 'one too many');
  return bodies;
};

/** The promise is refused and the channel closed with this; the connection lives on. */
const refused = async (connection, code, text, attempt) => {
  const channel = await connection.createChannel();
  const closed = new Promise((resolve) => channel.on('error', resolve));
  await Promise.resolve(attempt(channel)).catch(() => {});
  const error = await within(closed, `a channel error ${code}`);
  assert.equal(error.code, code);
  const quoted = /with message "(.*)"$/s.exec(error.message);
  assert.ok(quoted, error.message);
  if (text instanceof RegExp) assert.match(quoted[1], text);
  else assert.equal(quoted[1], text);
  await (await channelOf(connection)).close();
};

const collect = async (channel, queue, consumeOptions) => {
  const got = [];
  const waiting = [];
  const ok = await channel.consume(
    queue,
    (message) => {
      got.push(message);
      for (const wake of waiting.splice(0)) wake();
    },
    consumeOptions,
  );
  const until = async (count) => {
    while (got.length < count) {
      await within(new Promise((resolve) => waiting.push(resolve)), `${count} deliveries (has ${got.length})`);
    }
    return got;
  };
  return { got, until, tag: ok.consumerTag };
};

test('connects and sees the capabilities', async (connection) => {
  const { serverProperties } = connection.connection;
  for (const name of ['product', 'version', 'platform']) assert.ok(serverProperties[name], name);
  for (const name of ['publisher_confirms', 'basic.nack', 'consumer_cancel_notify', 'exchange_exchange_bindings']) {
    assert.equal(serverProperties.capabilities[name], true, name);
  }
});

test('bad password is 403', async () => {
  await assert.rejects(amqp.connect(url({ password: 'wrong' })), /403 \(ACCESS-REFUSED\).*ACCESS_REFUSED - Login was refused/s);
});

test('unknown vhost is 530', async () => {
  await assert.rejects(amqp.connect(url({ vhost: 'nowhere' })), /vhost nowhere not found|ConnectionClose/s);
});

test('negotiates smaller limits', async () => {
  const connection = await connect({ query: '?frameMax=4096&channelMax=3&heartbeat=30' });
  const channel = await channelOf(connection);
  const queue = await exclusive(channel);
  const body = crypto.randomBytes(50_000);
  channel.sendToQueue(queue, body);
  assert.deepEqual((await take(channel, queue)).content, body);
  await connection.close();
});

test('an idle connection lives by heartbeats', async () => {
  const connection = await connect({ query: '?heartbeat=1' });
  let closed = false;
  connection.on('close', () => {
    closed = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 3300));
  assert.equal(closed, false);
  await (await channelOf(connection)).close();
  await connection.close();
});

test('update-secret', async (connection, channel) => {
  const answered = once(connection, 'update-secret-ok');
  await connection.updateSecret(Buffer.from('guest'), 'renewed');
  await within(answered, 'update-secret-ok');
  await exclusive(channel);
});

test('direct, fanout and topic exchanges', async (connection, channel) => {
  const keys = ['a', 'b', 'a.x'];
  for (const [type, bindings] of [
    ['direct', { a: ['a'], b: ['b'] }],
    ['fanout', { x: keys, y: keys }],
    ['topic', { 'a.#': ['a', 'a.x'], '*': ['a', 'b'], '#.x': ['a.x'], '#': keys }],
  ]) {
    const { exchange } = await channel.assertExchange(unique('x'), type, { durable: false, autoDelete: true });
    const queues = {};
    for (const pattern of Object.keys(bindings)) {
      queues[pattern] = await exclusive(channel);
      await channel.bindQueue(queues[pattern], exchange, pattern);
    }
    for (const key of keys) channel.publish(exchange, key, Buffer.from(key));
    for (const [pattern, expected] of Object.entries(bindings)) {
      assert.deepEqual(await takeAll(channel, queues[pattern], expected.length), expected, `${type} ${pattern}`);
    }
  }
});

test('headers exchanges', async (connection, channel) => {
  const { exchange } = await channel.assertExchange(unique('x'), 'headers', { durable: false, autoDelete: true });
  for (const [match, table, expected] of [
    ['all', { a: 1, b: 'two' }, ['0']],
    ['any', { a: 1, b: 'two' }, ['0', '1', '2']],
    ['all-with-x', { a: 1, 'x-y': 'z' }, ['1']],
    ['any-with-x', { c: 1, 'x-y': 'z' }, ['1']],
  ]) {
    const queue = await exclusive(channel);
    await channel.bindQueue(queue, exchange, '', { 'x-match': match, ...table });
    const sent = [{ a: 1, b: 'two' }, { a: 1, 'x-y': 'z' }, { b: 'two' }, { a: '1' }];
    sent.forEach((headers, number) => channel.publish(exchange, '', Buffer.from(`${number}`), { headers }));
    assert.deepEqual(await takeAll(channel, queue, expected.length), expected, match);
    await channel.deleteQueue(queue);
    await channel.assertExchange(exchange, 'headers', { durable: false, autoDelete: true });
  }
  await channel.deleteExchange(exchange);
});

test('exchange to exchange, alternate and internal', async (connection, channel) => {
  const make = (type, more) => channel.assertExchange(unique('x'), type, { durable: false, ...more });
  const { exchange: last } = await make('fanout');
  const { exchange: inner } = await make('fanout', { internal: true });
  const { exchange: entry } = await make('direct', { alternateExchange: last });
  await channel.bindExchange(inner, entry, 'k');
  const [one, two] = [await exclusive(channel), await exclusive(channel)];
  await channel.bindQueue(one, inner, '');
  await channel.bindQueue(two, last, '');
  channel.publish(entry, 'k', Buffer.from('1'));
  channel.publish(entry, 'other', Buffer.from('2'));
  assert.deepEqual(await takeAll(channel, one, 1), ['1']);
  assert.deepEqual(await takeAll(channel, two, 1), ['2']);
  await channel.unbindExchange(inner, entry, 'k');
  channel.publish(entry, 'k', Buffer.from('3'));
  assert.deepEqual(await takeAll(channel, two, 1), ['3']);
  await refused(connection, 403, `ACCESS_REFUSED - cannot publish to internal exchange '${inner}' in vhost '/'`, (c) =>
    c.publish(inner, '', Buffer.from('x')),
  );
  for (const exchange of [last, inner, entry]) await channel.deleteExchange(exchange);
});

test('queues: named by the server, checked, purged, deleted', async (connection, channel) => {
  const { queue } = await channel.assertQueue('', { exclusive: true });
  assert.match(queue, /^amq\.gen-/);
  for (let n = 0; n < 3; n++) channel.sendToQueue(queue, Buffer.from('x'));
  await eventually(async () => (await ready(channel, queue)) === 3, 'three');
  assert.equal((await channel.purgeQueue(queue)).messageCount, 3);
  channel.sendToQueue(queue, Buffer.from('x'));
  assert.equal((await channel.deleteQueue(queue)).messageCount, 1);
  assert.equal((await channel.deleteQueue(queue)).messageCount, 0);
});

test('errors with code and text', async (connection, channel) => {
  const missing = unique();
  await refused(connection, 404, `NOT_FOUND - no queue '${missing}' in vhost '/'`, (c) => c.checkQueue(missing));
  await refused(connection, 404, `NOT_FOUND - no exchange '${missing}' in vhost '/'`, (c) => c.checkExchange(missing));
  await refused(connection, 404, `NOT_FOUND - no queue '${missing}' in vhost '/'`, (c) => c.get(missing));
  await refused(connection, 404, `NOT_FOUND - no exchange '${missing}' in vhost '/'`, (c) => c.publish(missing, '', Buffer.from('x')));
  const queue = await exclusive(channel);
  await refused(
    connection,
    406,
    `PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '${queue}' in vhost '/': received 'true' but current is 'false'`,
    (c) => c.assertQueue(queue, { exclusive: true, autoDelete: true }),
  );
  await refused(
    connection,
    406,
    `PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '${queue}' in vhost '/': received the value '7' of type 'signedint' but current is none`,
    (c) => c.assertQueue(queue, { exclusive: true, durable: false, maxLength: 7 }),
  ).catch((error) => {
    // amqplib picks the smallest integer type that fits, another one in another version.
    assert.match(error.message, /received the value '7' of type '\w+' but current is none/);
  });
  channel.sendToQueue(queue, Buffer.from('x'));
  await eventually(() => ready(channel, queue), 'one');
  await refused(connection, 406, `PRECONDITION_FAILED - queue '${queue}' in vhost '/' not empty`, (c) =>
    c.deleteQueue(queue, { ifEmpty: true }),
  );
  await refused(connection, 403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'", (c) => c.assertQueue('amq.mine'));
  await refused(connection, 406, 'PRECONDITION_FAILED - unknown delivery tag 7', (c) => c.ack({ fields: { deliveryTag: 7 } }));
  const other = await connect();
  await refused(other, 405, new RegExp(`^RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${queue}' in vhost '/'\\.`), (c) =>
    c.checkQueue(queue),
  );
  await other.close();
});

test('a connection error with code and text', async () => {
  const connection = await amqp.connect(url());
  const failed = new Promise((resolve) => connection.on('error', resolve));
  const channel = await channelOf(connection);
  const queue = await exclusive(channel);
  await channel.consume(queue, () => {}, { consumerTag: 'tag' });
  channel.consume(queue, () => {}, { consumerTag: 'tag' }).catch(() => {});
  const error = await within(failed, 'the error');
  assert.equal(error.code, 530);
  assert.match(error.message, /NOT_ALLOWED - attempt to reuse consumer tag 'tag'/);
});

test('acknowledgements of all kinds', async (connection, channel) => {
  const queue = await exclusive(channel);
  for (let n = 0; n < 8; n++) channel.sendToQueue(queue, Buffer.from(`${n}`));
  const messages = (await (await collect(channel, queue)).until(8)).slice();
  channel.ack(messages[1], true);
  channel.nack(messages[2], false, false);
  channel.reject(messages[3], false);
  channel.ack(messages[4]);
  await channel.close();
  const again = await channelOf(connection);
  const inbox = await collect(again, queue);
  await inbox.until(3);
  assert.deepEqual(
    inbox.got.map((m) => [m.content.toString(), m.fields.redelivered]),
    [['5', true], ['6', true], ['7', true]],
  );
  again.nack(inbox.got[1], true, true);
  await inbox.until(5);
  assert.deepEqual(inbox.got.slice(3).map((m) => m.content.toString()).sort(), ['5', '6']);
  again.ackAll();
  await again.close();
  const last = await channelOf(connection);
  assert.equal(await ready(last, queue), 0);
});

test('recover', async (connection, channel) => {
  const queue = await exclusive(channel);
  const inbox = await collect(channel, queue);
  channel.sendToQueue(queue, Buffer.from('x'));
  await inbox.until(1);
  await channel.recover();
  await inbox.until(2);
  assert.deepEqual(inbox.got.map((m) => m.fields.redelivered), [false, true]);
});

test('prefetch by consumer and by channel', async (connection) => {
  for (const [isGlobal, expected] of [[false, 6], [true, 3]]) {
    const channel = await channelOf(connection);
    const queue = await exclusive(channel);
    await channel.prefetch(3, isGlobal);
    const inboxes = [await collect(channel, queue), await collect(channel, queue)];
    const count = () => inboxes[0].got.length + inboxes[1].got.length;
    for (let n = 0; n < 10; n++) channel.sendToQueue(queue, Buffer.from('x'));
    await eventually(async () => count() === expected && (await ready(channel, queue)) === 10 - expected, `${expected} of ten`);
    channel.ack(inboxes.find((inbox) => inbox.got.length).got[0]);
    await eventually(async () => count() === expected + 1 && (await ready(channel, queue)) === 9 - expected, 'one more');
    await channel.close();
  }
});

test('returns come before confirms', async (connection) => {
  const channel = await confirmChannelOf(connection);
  const events = [];
  channel.on('return', (message) => events.push(['return', message.fields.replyCode, message.fields.replyText, message.content.toString()]));
  const confirmed = [];
  for (let n = 0; n < 100; n++) {
    confirmed.push(
      new Promise((resolve, reject) => {
        channel.publish('', unique(), Buffer.from(`${n}`), { mandatory: true }, (error) => {
          events.push(['confirm', n]);
          error ? reject(error) : resolve();
        });
      }),
    );
  }
  await within(Promise.all(confirmed), 'all confirms');
  for (let n = 0; n < 100; n++) {
    const returned = events.findIndex((e) => e[0] === 'return' && e[3] === `${n}`);
    const settled = events.findIndex((e) => e[0] === 'confirm' && e[1] === n);
    assert.ok(returned >= 0 && returned < settled, `${n}: return at ${returned}, confirm at ${settled}`);
    assert.deepEqual(events[returned].slice(1, 3), [312, 'NO_ROUTE']);
  }
});

test('thousands of confirms in flight', async (connection) => {
  const channel = await confirmChannelOf(connection);
  const queue = await exclusive(channel);
  for (let n = 0; n < 10_000; n++) channel.sendToQueue(queue, Buffer.from(`${n}`), { persistent: n % 2 === 0 });
  await within(channel.waitForConfirms(), 'all confirms');
  assert.equal(await ready(channel, queue), 10_000);
});

test('nacks by a full queue', async (connection) => {
  const channel = await confirmChannelOf(connection);
  const queue = await exclusive(channel, { maxLength: 2, arguments: { 'x-overflow': 'reject-publish' } });
  const answers = [];
  for (let n = 0; n < 5; n++) {
    answers.push(new Promise((resolve) => channel.sendToQueue(queue, Buffer.from('x'), {}, (error) => resolve(error === null))));
  }
  assert.deepEqual(await within(Promise.all(answers), 'all answers'), [true, true, false, false, false]);
});

test('consumers: cancel, exclusive, priority', async (connection, channel) => {
  const queue = await exclusive(channel);
  const alone = await collect(channel, queue, { exclusive: true, consumerTag: 'mine' });
  assert.equal(alone.tag, 'mine');
  await refused(connection, 403, `ACCESS_REFUSED - queue '${queue}' in vhost '/' in exclusive use`, (c) => c.consume(queue, () => {}));
  await channel.cancel('mine');
  channel.prefetch(1);
  const low = await collect(channel, queue, { priority: 1 });
  const high = await collect(channel, queue, { priority: 5 });
  channel.sendToQueue(queue, Buffer.from('first'));
  channel.sendToQueue(queue, Buffer.from('second'));
  await high.until(1);
  await low.until(1);
  assert.equal(high.got[0].content.toString(), 'first');
});

test('a deleted queue cancels its consumers', async (connection, channel) => {
  const { queue } = await channel.assertQueue(unique(), { durable: false });
  const inbox = await collect(channel, queue);
  const other = await channelOf(connection);
  await other.deleteQueue(queue);
  await inbox.until(1);
  assert.equal(inbox.got[0], null);
});

test('properties and header types both ways', async (connection, channel) => {
  const queue = await exclusive(channel);
  const headers = {
    yes: true,
    int: -5,
    big: 2 ** 40,
    double: 1.5,
    text: 'größe',
    nothing: null,
    octets: Buffer.from([0, 255]),
    list: [1, 'two', { three: [3] }],
    table: { a: { b: { c: 1 } } },
    byte: { '!': 'byte', value: -7 },
    short: { '!': 'int16', value: -700 },
    int32: { '!': 'int32', value: 70_000 },
    int64: { '!': 'int64', value: 7 },
    float: { '!': 'float', value: 0.5 },
    time: { '!': 'timestamp', value: 1_700_000_000 },
    decimal: { '!': 'decimal', value: { digits: 314, places: 2 } },
  };
  channel.sendToQueue(queue, Buffer.from('x'), {
    headers,
    contentType: 'text/plain',
    contentEncoding: 'identity',
    persistent: true,
    priority: 3,
    correlationId: 'c',
    replyTo: 'r',
    expiration: 60000,
    messageId: 'm',
    timestamp: 1_700_000_000,
    type: 't',
    userId: 'guest',
    appId: 'a',
  });
  const { properties } = await take(channel, queue);
  for (const [name, value] of Object.entries({
    contentType: 'text/plain', contentEncoding: 'identity', deliveryMode: 2, priority: 3, correlationId: 'c', replyTo: 'r',
    expiration: '60000', messageId: 'm', timestamp: 1_700_000_000, type: 't', userId: 'guest', appId: 'a',
  })) assert.equal(properties[name], value, name);
  const got = properties.headers;
  for (const name of ['yes', 'int', 'big', 'double', 'text', 'nothing', 'list', 'table', 'octets']) assert.deepEqual(got[name], headers[name], name);
  for (const [name, value] of [['byte', -7], ['short', -700], ['int32', 70_000], ['int64', 7], ['float', 0.5]]) assert.equal(got[name], value, name);
  assert.deepEqual(got.time.value, 1_700_000_000);
  assert.deepEqual(got.decimal.value, { digits: 314, places: 2 });
});

test('large and empty bodies', async (connection, channel) => {
  const queue = await exclusive(channel);
  const inbox = await collect(channel, queue, { noAck: true });
  const bodies = [crypto.randomBytes(5_000_000), Buffer.alloc(0), Buffer.alloc(131072 - 8, 1), Buffer.alloc(131072 - 7, 2)];
  for (const body of bodies) channel.sendToQueue(queue, body);
  await inbox.until(bodies.length);
  bodies.forEach((body, n) => assert.ok(body.equals(inbox.got[n].content), `body ${n} changed`));
});

test('time-outs, dead letters, bounds, priorities', async (connection, channel) => {
  const dead = await exclusive(channel);
  const deadLetter = { deadLetterExchange: '', deadLetterRoutingKey: dead };
  const expiring = await exclusive(channel, { messageTtl: 30, ...deadLetter });
  channel.sendToQueue(expiring, Buffer.from('expired'));
  let message = await take(channel, dead);
  assert.equal(message.properties.headers['x-death'][0].reason, 'expired');
  assert.equal(message.properties.headers['x-death'][0].count, 1);
  const bounded = await exclusive(channel, { maxLength: 1, ...deadLetter });
  channel.sendToQueue(bounded, Buffer.from('dropped'));
  channel.sendToQueue(bounded, Buffer.from('kept'));
  message = await take(channel, dead);
  assert.equal(message.content.toString(), 'dropped');
  assert.equal(message.properties.headers['x-death'][0].reason, 'maxlen');
  const ordered = await exclusive(channel, { maxPriority: 5 });
  for (const priority of [1, 5, 3]) channel.sendToQueue(ordered, Buffer.from(`${priority}`), { priority });
  await eventually(async () => (await ready(channel, ordered)) === 3, 'three');
  assert.deepEqual(await takeAll(channel, ordered, 3), ['5', '3', '1']);
});

test('CC and BCC', async (connection, channel) => {
  const [to, cc, bcc] = [await exclusive(channel), await exclusive(channel), await exclusive(channel)];
  channel.sendToQueue(to, Buffer.from('x'), { CC: [cc], BCC: bcc });
  for (const queue of [to, cc, bcc]) {
    const { headers } = (await take(channel, queue)).properties;
    assert.deepEqual(headers.CC, [cc]);
    assert.equal(headers.BCC, undefined);
  }
});

test('remote calls by direct reply-to', async (connection, channel) => {
  const server = await channelOf(connection);
  const requests = await exclusive(server);
  await server.consume(requests, (m) => {
    server.sendToQueue(m.properties.replyTo, Buffer.from(`re: ${m.content}`), { correlationId: m.properties.correlationId });
    server.ack(m);
  });
  const inbox = await collect(channel, 'amq.rabbitmq.reply-to', { noAck: true });
  for (let n = 0; n < 20; n++) {
    channel.sendToQueue(requests, Buffer.from(`${n}`), { replyTo: 'amq.rabbitmq.reply-to', correlationId: `${n}` });
  }
  await inbox.until(20);
  inbox.got.forEach((m, n) => {
    assert.equal(m.content.toString(), `re: ${n}`);
    assert.equal(m.properties.correlationId, `${n}`);
  });
});

test('a hundred thousand messages in order', async (connection) => {
  const count = 100_000;
  const channel = await confirmChannelOf(connection);
  const consumer = await channelOf(connection);
  await consumer.prefetch(1000);
  const queue = await exclusive(channel);
  let next = 0;
  const all = new Promise((resolve, reject) => {
    consumer.consume(queue, (message) => {
      const number = Number(message.content.toString());
      if (number !== next) reject(new Error(`${number} where ${next} is due`));
      next++;
      if (next % 200 === 0) consumer.ack(message, true);
      if (next === count) resolve();
    });
  });
  for (let n = 0; n < count; n++) {
    if (!channel.sendToQueue(queue, Buffer.from(`${n}`))) await within(once(channel, 'drain'), 'drain');
  }
  await within(channel.waitForConfirms(), 'all confirms');
  await within(all, 'all deliveries');
});

const runOne = async ([name, body]) => {
  const begun = Date.now();
  let connection;
  try {
    connection = await connect();
    const channel = await channelOf(connection);
    await within(Promise.resolve(body(connection, channel)), 'the case', CASE_MILLIS_MAX);
    console.log(`PASS ${name} ${((Date.now() - begun) / 1000).toFixed(3)}`);
    return true;
  } catch (error) {
    const reason = String(error?.message ?? error).replace(/\s+/g, ' ');
    console.log(`FAIL ${name} ${((Date.now() - begun) / 1000).toFixed(3)} | ${reason}`);
    console.log(String(error?.stack ?? '').replace(/^/gm, '    '));
    return false;
  } finally {
    await connection?.close().catch(() => {});
  }
};

const main = async () => {
  const chosen = cases.filter(([name]) => name.includes(options.case));
  console.log(`PLAN ${chosen.length}`);
  let failures = 0;
  const worker = async () => {
    while (chosen.length) if (!(await runOne(chosen.shift()))) failures++;
  };
  await Promise.all(Array.from({ length: CASES_AT_ONCE }, worker));
  process.exit(failures ? 1 : 0);
};

main();
