/** amqplib as most services use it: the callback parses the JSON on the main thread and acks. */
import { connect } from 'amqplib';
import { idOf, Tally } from '../tally.js';
import type { Start } from './peer.js';

/** `ackEvery` 1: each message its own ack. More: one ack for that many, `allUpTo`. */
export function inlinePeer(ackEvery: number): Start {
  return async (task, meter) => {
    const connection = await connect(task.url);
    const channel = await connection.createChannel();
    await channel.prefetch(task.prefetch);
    const tally = new Tally();
    let count = 0;
    await channel.consume('bench', (message) => {
      if (message === null) throw new Error('the consumer was cancelled');
      meter.begin();
      tally.add(idOf(JSON.parse(message.content.toString())));
      count++;
      if (ackEvery === 1) channel.ack(message);
      else if (count % ackEvery === 0 || count === task.count) channel.ack(message, true);
    });
    return {
      close: () => connection.close(),
      handled: () => ({ handled: count, tally: tally.counts() }),
    };
  };
}
