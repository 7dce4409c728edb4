/** Priorities, as kombu's own integration tests have them: the highest number first, requeued messages in their place. */
import assert from 'node:assert/strict';
import { Queue } from '#src/index';
import { onBothBrokers, type Scene } from '../support/both-brokers.js';

const BODIES = [
  ['first', 3],
  ['second', 6],
  ['third', 3],
] as const;

/** Redis takes the lowest first unless told so; 3, 6 and 9 have lists of their own there. */
const HIGHEST_FIRST = { onRedis: { priorityOrder: 'highestFirst' } };

async function filled(scene: Scene): Promise<Queue> {
  const queue = scene.keep(new Queue(scene.unique('q'), { maxPriority: 10, channel: scene.connection }));
  await queue.declare();
  await using producer = scene.connection.Producer({ routingKey: queue.name });
  for (const [body, priority] of BODIES) await producer.publish(body, { priority });
  return queue;
}

onBothBrokers(
  'messages come by priority, and in their order where it is the same',
  async (scene) => {
    const queue = await filled(scene);
    const bodies: unknown[] = [];
    for await (const message of scene.connection.Consumer(queue)) {
      bodies.push(message.payload);
      message.ack();
      if (bodies.length === 3) break;
    }
    assert.deepEqual(bodies, ['second', 'first', 'third']);
  },
  HIGHEST_FIRST,
);

onBothBrokers(
  'what is requeued comes in the order of priorities again, behind what is more urgent',
  async (scene) => {
    const queue = await filled(scene);
    const taken = [await queue.get(), await queue.get(), await queue.get()];
    assert.deepEqual(
      taken.map((message) => message?.payload),
      ['second', 'first', 'third'],
    );
    for (const message of taken) message!.requeue();
    await using producer = scene.connection.Producer({ routingKey: queue.name });
    await producer.publish('fourth', { priority: 9 });
    const bodies: unknown[] = [];
    for await (const message of scene.connection.Consumer(queue)) {
      bodies.push(message.payload);
      message.ack();
      if (bodies.length === 4) break;
    }
    assert.deepEqual(bodies, ['fourth', 'second', 'first', 'third']);
  },
  HIGHEST_FIRST,
);
