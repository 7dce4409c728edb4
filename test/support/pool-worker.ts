// A worker thread that publishes through the pools, which it knows by the pool's folder alone; nothing of the main thread's is
// loaded before it acquires. Each message to it is a body to publish; with a flag it first blocks the thread until that is set.

import { parentPort, workerData } from 'node:worker_threads';
import type { ConnectionParameters } from '#src/connection-parameters';
import { producers, reset } from '#src/pool/pools';

export interface PoolWorkerData {
  readonly parameters: ConnectionParameters;
  readonly routingKey: string;
  readonly flag: Int32Array;
}

export interface PoolWorkerAnswer {
  readonly heartbeat: number | undefined;
  readonly interval: number;
  readonly error?: string;
}

const { parameters, routingKey, flag } = workerData as PoolWorkerData;

parentPort!.on('message', async ({ body, block }: { body: unknown; block: boolean }) => {
  if (body === undefined) {
    await reset();
    parentPort!.close();
    return;
  }
  if (block) {
    Atomics.store(flag, 0, 1);
    Atomics.notify(flag, 0);
    Atomics.wait(flag, 0, 1);
  }
  const pool = producers.get(parameters);
  try {
    const producer = await pool.acquire();
    await producer.publish(body, { routingKey });
    await producer.release();
    const connection = await pool.connections.acquire();
    const answer = { heartbeat: connection.heartbeat, interval: connection.getHeartbeatInterval() };
    await connection.release();
    parentPort!.postMessage(answer);
  } catch (error) {
    parentPort!.postMessage({ heartbeat: -1, interval: -1, error: String(error) });
  }
});
