/**
 * A publisher while its broker restarts ten times (stopped and started, killed): every promise that resolved is a message in the
 * queue, every other one rejects by its deadline. Once with `retry`, once without.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, errors, Queue } from '#src/index';
import { RabbitNode, uniqueName } from '../support/rabbitmq.js';
import { until } from '../support/rig.js';

const RESTARTS = Number(process.env.MOZUKU_SOAK_RESTARTS ?? 10);
const TIMEOUT = 30_000;
/** What a busy machine may be late by, ms. */
const LATE = 2_000;

interface Outcome {
  readonly id: string;
  readonly error: unknown;
  readonly took: number;
}

for (const retry of [true, false]) {
  test(`${RESTARTS} restarts under a publisher, ${retry ? 'with' : 'without'} retry`, {
    timeout: 1_200_000,
  }, async () => {
    await using node = await RabbitNode.start();
    const queue = new Queue(uniqueName('soak'));
    const connection = new Connection(node.url);
    const producer = connection.Producer({ routingKey: queue.name });
    await queue.declare(connection);
    // A node that is killed forgets a declaration of a moment ago, with all that is in the queue then.
    await node.stopApp();
    await node.startApp();
    const outcomes: Outcome[] = [];
    const underWay = new Set<Promise<void>>();
    let restarting = true;
    let last = 0;

    const publish = async (): Promise<void> => {
      const id = `m${last++}`;
      const begun = performance.now();
      const options = { messageId: id, timeout: TIMEOUT, retry, mandatory: true };
      const error: unknown = await producer.publish({ id }, options).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      outcomes.push({ id, error, took: performance.now() - begun });
    };
    const publisher = (async () => {
      while (restarting) {
        while (underWay.size < 500) {
          const one = publish().finally(() => underWay.delete(one));
          underWay.add(one);
        }
        await Promise.race(underWay);
        // What cannot be published rejects at once where nothing is sent again: not in a loop without end.
        if (outcomes.at(-1)?.error !== undefined) await sleep(20);
      }
      await Promise.all(underWay);
    })();
    const confirmed = (): number => outcomes.reduce((sum, { error }) => sum + (error === undefined ? 1 : 0), 0);

    for (let restart = 1; restart <= RESTARTS; restart++) {
      const before = confirmed();
      await until('it publishes again', () => confirmed() > before + 2_000, { timeoutMs: 120_000 });
      if (restart % 2 === 0) {
        await node.stopApp();
        await node.startApp();
      } else {
        await node.kill();
        await node.restart();
      }
      process.stdout.write(`restart ${restart}: ${confirmed()} confirmed, ${outcomes.length} ended\n`);
    }
    const before = confirmed();
    await until('it publishes again', () => confirmed() > before + 2_000, { timeoutMs: 120_000 });
    restarting = false;
    await publisher;

    const there = new Map<string, number>();
    const bound = queue.bind(connection);
    for (;;) {
      const message = await bound.get({ noAck: true });
      if (message === null) break;
      const { messageId } = message.properties;
      there.set(messageId!, (there.get(messageId!) ?? 0) + 1);
    }
    const taken = outcomes.filter(({ error }) => error === undefined);
    const refused = outcomes.filter(({ error }) => error !== undefined);
    const lost = taken.filter(({ id }) => !there.has(id));
    const late = outcomes.filter(({ took }) => took > TIMEOUT + LATE);
    const kinds = new Map<string, number>();
    for (const { error } of refused) {
      const { name } = error as Error;
      kinds.set(name, (kinds.get(name) ?? 0) + 1);
    }
    process.stdout.write(
      `resolved ${taken.length}; of these asked 0, measured ${lost.length} not in the queue; rejected ${refused.length} ${JSON.stringify([...kinds])}; ` +
        `asked 0, measured ${late.length} after their deadline; longest ${outcomes.reduce((most, { took }) => Math.max(most, took), 0).toFixed(0)} ms; ` +
        `sent twice ${[...there.values()].filter((count) => count > 1).length}\n`,
    );
    assert.equal(outcomes.length, last);
    assert.deepEqual(lost, []);
    assert.deepEqual(late, []);
    const known = [errors.ConnectionError, errors.ChannelError, errors.ClosedError, errors.TimeoutError];
    for (const { error } of refused)
      assert.ok(
        known.some((each) => error instanceof each),
        String(error),
      );
    await connection.close();
  });
}
