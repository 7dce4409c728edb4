/** Losing a connection as a broken network or a broker would have it: what is at this end hears of it, and is not asked. */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { Connection } from '#src/index';
import { memoryBroker } from '#src/main/transports/memory/broker';
import type { Scene } from './both-brokers.js';
import { connectRedis } from './redis.js';

/** Resolves when the connection has noticed. On the embedded broker and on Redis all connections of the scene go with it. */
export async function lose(scene: Scene, connection: Connection): Promise<void> {
  const channel = await connection.channel();
  const gone = channel.ended;
  if (scene.kind === 'memory') memoryBroker(connection.hostname).closeConnections('an operator wants it so');
  else if (scene.kind === 'redis') await killClients(scene.url);
  else {
    const { stream } = channel.raw.connection as unknown as { stream: Socket };
    const closed = once(stream, 'close').catch(() => undefined);
    stream.destroy(new Error('the network is gone'));
    await closed;
  }
  await gone;
}

/** All of ours in the database, which is the scene's own. */
async function killClients(url: string): Promise<void> {
  const operator = await connectRedis(url);
  const list = String(await operator.call('CLIENT', 'LIST'));
  const database = new URL(url).pathname.slice(1);
  for (const line of list.split('\n')) {
    const [, id, name, db] = /^id=(\d+) .* name=(\S*) .* db=(\d+) /.exec(line) ?? [];
    if (db === database && name?.startsWith('mozuku')) await operator.call('CLIENT', 'KILL', 'ID', id!);
  }
  operator.close();
}
