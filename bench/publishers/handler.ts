/** Publishes as many messages as it is told to, with a window of 1024. */
import type { Context } from '#src/index';
import { publishMany } from './many.js';

const BODY = { id: 1, pad: 'x'.repeat(170) };

export default async function handle(body: unknown, _message: unknown, context: Context): Promise<void> {
  const { count, queue } = body as { count: number; queue: string };
  const producer = context.producer({ serializer: 'json', routingKey: queue });
  await publishMany(count, () => producer.publish(BODY));
}
