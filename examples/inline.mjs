// A producer and a consumer whose callbacks run on the main thread, as kombu's do: node examples/inline.mjs
// AMQP_URL names the broker. For callbacks that wait more than they compute.

import { Connection, Exchange, Queue } from 'mozuku';

const connection = new Connection(process.env.AMQP_URL ?? 'amqp://guest:guest@localhost:5672//');
const media = new Exchange('example-media', { type: 'topic', durable: false, autoDelete: true });
const videos = new Queue('example-videos', media, { routingKey: 'video.*', expires: 60_000 });

let last;
const lastCame = new Promise((resolve) => {
  last = resolve;
});

const consumer = connection.Consumer(videos, {
  prefetchCount: 10,
  callbacks: [
    (body, message) => {
      console.log(message.deliveryInfo.routingKey, body);
      message.ack();
      if (body.last) last();
    },
  ],
});
consumer.on('error', (error) => console.error(error));

try {
  // Declares the exchange, the queue and its binding.
  await consumer.consume();
  const producer = connection.Producer({ exchange: media });
  await producer.publish({ name: 'cats.webm', seen: new Date(0) }, { routingKey: 'video.new' });
  await producer.publish({ name: 'dogs.webm', last: true }, { routingKey: 'video.new', compression: 'gzip' });
  // No queue takes audio here: without `mandatory` the broker would drop it silently.
  await producer.publish({ name: 'song.ogg' }, { routingKey: 'audio.new', mandatory: true }).catch((error) => {
    console.log(`${error.name}: ${error.message}`);
  });
  await lastCame;
} finally {
  await consumer.close();
  await videos.delete(connection);
  await connection.close();
}
