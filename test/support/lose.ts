/** Losing a connection as a broken network or a broker would have it: what is at this end hears of it, and is not asked. */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { Connection } from '#src/index';
import { memoryBroker } from '#src/main/transports/memory/broker';
import type { Scene } from './both-brokers.js';

/** Resolves when the connection has noticed. On the embedded broker all connections of the scene go with it. */
export async function lose(scene: Scene, connection: Connection): Promise<void> {
  const channel = await connection.channel();
  const gone = channel.ended;
  if (scene.kind === 'memory') memoryBroker(connection.hostname).closeConnections('an operator wants it so');
  else {
    const { stream } = channel.raw.connection as unknown as { stream: Socket };
    const closed = once(stream, 'close').catch(() => undefined);
    stream.destroy(new Error('the network is gone'));
    await closed;
  }
  await gone;
}
