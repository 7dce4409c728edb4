/** Publishes what its messages ask for, through main. */
import { type Context, Exchange, errors, Queue, type WorkerContext } from '#src/index';

interface Asked {
  readonly do: string;
  readonly to: string;
  readonly id?: string;
  readonly count?: number;
  readonly ms?: number;
  readonly size?: number;
}

let own: ReturnType<WorkerContext['producer']> | undefined;

export function setup(context: WorkerContext): void {
  context.pools.setLimit(3);
  own = context.producer({ routingKey: 'nowhere' });
}

export async function teardown(context: WorkerContext): Promise<void> {
  const last = process.env.MOZUKU_LAST_WORDS;
  // Not waited for: it goes out all the same.
  if (last !== undefined) void context.producer({ routingKey: last }).publish({ worker: context.worker });
}

function block(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

export default async function handle(body: unknown, _message: unknown, context: Context): Promise<void> {
  const { do: what, to, id, count = 1, ms = 0, size = 10 } = body as Asked;
  const results = context.producer({ serializer: 'json' });
  const publishAll = (): Promise<void>[] =>
    Array.from({ length: count }, (_, i) =>
      results.publish({ i, id, pad: 'x'.repeat(size) }, { routingKey: to, headers: { i, bytes: Buffer.from([1, 2]) } }),
    );
  switch (what) {
    case 'publish':
      await Promise.all(publishAll());
      break;
    case 'forget':
      // The message is settled when they are confirmed, though nobody waits here.
      publishAll();
      break;
    case 'block':
      publishAll();
      block(ms);
      await own!.publish({ i: 'own' }, { routingKey: to });
      break;
    case 'declare': {
      const exchange = new Exchange(`${to}.x`, { type: 'topic', autoDelete: true });
      const queue = new Queue(to, exchange, {
        routingKey: 'a.*',
        maxLength: 5,
        queueArguments: { 'x-overflow': 'drop-head' },
      });
      const producer = context.producer({ exchange, routingKey: 'a.b', compression: 'zlib' });
      await producer.publish(['declared'], { declare: [queue] });
      break;
    }
    case 'mandatory': {
      const returned: unknown[] = [];
      const producer = context.producer({ onReturn: (...told) => returned.push(told) });
      try {
        await producer.publish('lost', { routingKey: `${to}.missing`, mandatory: true });
      } catch (error) {
        const { name, code, details } = error as errors.KombuError;
        const isOurs = error instanceof errors.MessageReturned;
        await own!.publish(
          { name, code, isOurs, replyCode: details.replyCode, told: returned.length },
          { routingKey: to },
        );
      }
      break;
    }
    case 'outlives':
      results.publish({ i: 0 }, { routingKey: to, timeout: ms });
      break;
    case 'connection':
      await results.publish(
        { hostname: context.connection.hostname, same: results === context.producer({ serializer: 'json' }) },
        { routingKey: to },
      );
      break;
    case 'pools': {
      // Two at a time of this thread's own pool, whatever other threads do.
      const producers = context.pools.producers.get(context.connection);
      const publish = async (i: number): Promise<void> => {
        const producer = await producers.acquire({ block: true });
        try {
          await producer.publish({ i, limit: producers.limit }, { routingKey: to });
        } finally {
          await producer.release();
        }
      };
      await Promise.all(Array.from({ length: count }, (_, i) => publish(i)));
      block(ms);
      await publish(count);
      break;
    }
    case 'badUser':
      await results.publish('refused', { routingKey: to, userId: 'nobody' });
      break;
    case 'unclonable': {
      const good = publishAll();
      const queue = new Queue('never', { queueArguments: { a: () => 1 } });
      await results.publish('bad', { routingKey: to, declare: [queue] }).finally(() => Promise.all(good));
      break;
    }
    case 'ownForget':
      // Asked for in setup, and not waited for: it is this message's all the same.
      void own!.publish('lost', { routingKey: `${to}.missing`, mandatory: true });
      break;
    case 'types':
      await results.publish({ when: (body as { when: object }).when.constructor.name, back: body }, { routingKey: to });
      break;
    default:
      throw new Error(`what is ${what}?`);
  }
}
