// Calls an RPC server of oslo.messaging, and consumes the notification that it sends about it:
//
//   python3 examples/oslo-messaging/service.py rabbit://guest:guest@localhost:5672//     in another terminal
//   node examples/oslo-messaging/main.mjs
//
// AMQP_URL names the broker, OSLO_TOPIC and OSLO_EXCHANGE what the service was told.

import { Connection } from 'mozuku';
import { CONTROL_EXCHANGE, notificationQueue, open, RemoteError, RpcClient } from './oslo.mjs';

const topic = process.env.OSLO_TOPIC ?? 'calculator';
const exchange = process.env.OSLO_EXCHANGE ?? CONTROL_EXCHANGE;
const connection = new Connection(process.env.AMQP_URL ?? 'amqp://guest:guest@localhost:5672//');

const queue = notificationQueue(`${topic}-notifications`, 'info', exchange);
let taken;
const notified = new Promise((resolve) => {
  taken = resolve;
});
const consumer = connection.Consumer([queue], {
  callbacks: [
    (body, message) => {
      const { message: notification, context } = open(body);
      console.log(
        'notified',
        JSON.stringify({ ...notification, message_id: undefined, timestamp: undefined, context }),
      );
      message.ack();
      taken();
    },
  ],
});
const client = await RpcClient.open(connection, { exchange });
try {
  await consumer.consume(); // before the call: what nobody consumes waits in the queue, but there must be one
  const total = await client.call(topic, 'add', { numbers: [1, 2, 39] }, { context: { user: 'kelp' } });
  console.log('add', total);
  await notified;
  console.log('echo', JSON.stringify(await client.call(topic, 'echo', { value: ['é', null] }, { server: 'one' })));
  await client.call(topic, 'divide', { a: 1, b: 0 }).catch((error) => {
    if (!(error instanceof RemoteError)) throw error;
    console.log(`${error.name}: ${error.message}`);
  });
  await client.call(`${topic}-not-there`, 'add').catch((error) => console.log(error.name));
} finally {
  await client.close();
  await consumer.close();
  await connection.close();
}
