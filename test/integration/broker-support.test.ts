// The support code for RabbitMQ, tried with amqplib alone: a node of one's own, its stops and deaths, the shared node, and
// the trace behind the proxy on real traffic.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import * as amqplib from 'amqplib';
import { AmqpTrace } from '../support/amqp-trace.js';
import { LineChild } from '../support/line-child.js';
import { TcpProxy } from '../support/proxy.js';
import { brokerTest, nodeTest, queueStats, RabbitNode, uniqueName, waitForQueue } from '../support/rabbitmq.js';
import { ROOT } from '../support/scripts.js';

/** A connection, and a promise of how it ends: the error's text, empty without one. */
async function open(url: string) {
  const connection = await amqplib.connect(url);
  connection.on('error', () => undefined);
  const ended = new Promise<string>((resolve) => connection.on('close', (error) => resolve(error?.message ?? '')));
  return {
    connection,
    ended,
    // a connection that a failed test leaves open would keep the process alive
    [Symbol.asyncDispose]: () => connection.close().catch(() => undefined),
  };
}

/** Publishes a durable message and waits for the broker's confirm. */
async function publish(url: string, queue: string, body: string): Promise<void> {
  await using opened = await open(url);
  const channel = await opened.connection.createConfirmChannel();
  await channel.assertQueue(queue, { durable: true });
  channel.sendToQueue(queue, Buffer.from(body), { persistent: true, messageId: body });
  await channel.waitForConfirms();
}

async function getOne(url: string, queue: string): Promise<string | undefined> {
  await using opened = await open(url);
  const channel = await opened.connection.createChannel();
  const message = await channel.get(queue);
  if (message) channel.ack(message);
  await channel.close();
  return message ? message.content.toString() : undefined;
}

function refused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(false);
    });
    socket.on('error', () => resolve(true));
  });
}

nodeTest('a node of its own stops, starts, dies and comes back with its data', async () => {
  await using node = await RabbitNode.start({ config: { consumer_timeout: '3600000' } });
  const { port, url } = node;
  assert.ok(node.pid);
  await publish(url, 'q', 'first');
  assert.deepEqual(await queueStats(node.ctl.bind(node), 'q'), { ready: 1, unacked: 0, consumers: 0 });

  await using first = await open(url);
  await node.stopApp();
  assert.match(await first.ended, /CONNECTION_FORCED|closed/i);
  assert.equal(await refused(port), true);
  await node.startApp();
  assert.equal(await getOne(url, 'q'), 'first');

  await publish(url, 'q', 'second');
  await using second = await open(url);
  const pid = node.pid;
  await node.kill();
  await second.ended;
  assert.equal(node.pid, undefined);
  assert.equal(await refused(port), true);
  await node.restart();
  assert.equal(node.port, port);
  assert.notEqual(node.pid, pid);
  assert.equal(await getOne(url, 'q'), 'second');

  await publish(url, 'q', 'third');
  await node.restart();
  assert.equal(await getOne(url, 'q'), 'third');

  const folder = node.folder;
  await node.dispose();
  assert.equal(await refused(port), true);
  assert.equal(existsSync(folder), false);
});

nodeTest('a node does not outlive a process that is killed', async () => {
  const module = pathToFileURL(join(ROOT, 'scripts/lib/rabbitmq.mjs')).href;
  const program = `
    const { RabbitNode } = await import(${JSON.stringify(module)});
    const { port, folder } = await RabbitNode.start();
    console.log(JSON.stringify({ port, folder }));
    setInterval(() => undefined, 1000);`;
  await using owner = new LineChild(process.execPath, ['--input-type=module', '-e', program]);
  const { port, folder } = (await owner.json()) as { port: number; folder: string };
  assert.equal(await refused(port), false);
  owner.kill('SIGKILL');
  for (const until = Date.now() + 20_000; !(await refused(port)) || existsSync(folder); await sleep(50)) {
    assert.ok(Date.now() < until, 'the node still runs, or its folder is still there');
  }
});

nodeTest('a node whose configuration is wrong fails with what it printed', async () => {
  await assert.rejects(
    RabbitNode.start({ config: { 'no.such.setting': 'x' } }),
    /ended while it started:[\s\S]*no\.such\.setting/,
  );
});

brokerTest(
  'the shared node: queueStats tells ready, unacked and consumers',
  async (broker) => {
    const queue = uniqueName('stats');
    await using opened = await open(broker.url);
    const channel = await opened.connection.createConfirmChannel();
    await channel.assertQueue(queue, { durable: true, autoDelete: false });
    for (const body of ['1', '2', '3']) channel.sendToQueue(queue, Buffer.from(body));
    await channel.waitForConfirms();
    await channel.prefetch(2);
    const { consumerTag } = await channel.consume(queue, () => undefined);
    await waitForQueue(
      broker.ctl,
      queue,
      ({ ready, unacked, consumers }) => ready === 1 && unacked === 2 && consumers === 1,
    );
    await channel.cancel(consumerTag);
    await channel.deleteQueue(queue);
    await assert.rejects(queueStats(broker.ctl, queue), /no queue/);
  },
  { ctl: true },
);

brokerTest('the trace behind the proxy: clean traffic is clean, a double ack is found', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  const trace = AmqpTrace.attach(proxy, { keepBodies: true });
  const queue = uniqueName('trace');
  await using opened = await open(proxy.url);
  const { connection } = opened;
  const channel = await connection.createConfirmChannel();
  channel.on('error', () => undefined);
  await channel.assertQueue(queue, { durable: true, autoDelete: false });
  const bodies = ['', 'a', 'b'.repeat(300_000)];
  for (const body of bodies)
    channel.sendToQueue(queue, Buffer.from(body), { messageId: `id-${body.length}`, headers: { h: 1 } });
  await channel.waitForConfirms();

  const settled: string[] = [];
  trace.onSettle((delivery, { kind }) => settled.push(`${kind} ${delivery.messageId}`));
  const messages: amqplib.ConsumeMessage[] = [];
  await new Promise<void>((resolve) => {
    void channel.consume(queue, (message) => {
      if (message && messages.push(message) === bodies.length) resolve();
    });
  });
  channel.nack(messages[0]!, false, false);
  channel.ack(messages[2]!, true);
  await channel.checkQueue(queue);
  assert.deepEqual(settled, ['nack id-0', 'ack id-1', 'ack id-300000']);
  assert.deepEqual(
    trace.deliveries.map(({ body }) => body?.toString()),
    bodies,
  );
  trace.assertClean();

  const closed = new Promise((resolve) => channel.once('close', resolve));
  channel.ack(messages[1]!);
  await closed;
  assert.match(trace.violations.join('\n'), /tag 2 .*already settled/);
  const remover = await connection.createChannel();
  await remover.deleteQueue(queue);
  await connection.close();
  assert.equal(await opened.ended, '');
});

brokerTest('the proxy cuts a real connection and lets the next one through', async (broker) => {
  await using proxy = await TcpProxy.listen(broker.url);
  proxy.onConnection((connection) => {
    if (connection.id === 1) connection.cutAfter(300, 'toClient');
  });
  await assert.rejects(amqplib.connect(proxy.url));
  const first = await proxy.connection(1);
  await first.closed;
  assert.equal(first.forwarded.toClient, 300);
  await using second = await open(proxy.url);
  proxy.cutAll();
  assert.match(await second.ended, /ECONNRESET|closed/i);
});

test('a test that needs a broker fails where CI=true and is skipped elsewhere', async () => {
  const module = new URL('../support/rabbitmq.js', import.meta.url).href;
  const program = `
    const { brokerTest } = await import(${JSON.stringify(module)});
    brokerTest('needs one', () => Promise.resolve());`;
  const outcome = (CI: string | undefined) =>
    new Promise<string>((resolve) => {
      const { MOZUKU_TEST_AMQP_URL: _url, NODE_TEST_CONTEXT: _context, ...env } = process.env;
      const args = ['--test-reporter=tap', '--input-type=module', '-e', program];
      execFile(process.execPath, args, { env: { ...env, CI } }, (_error, stdout) => resolve(stdout));
    });
  assert.match(await outcome(undefined), /ok 1 - needs one # SKIP no broker: run the tests with npm test/);
  assert.match(await outcome('true'), /not ok 1 - needs one/);
});
