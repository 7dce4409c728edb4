// Publishes pictures to the queue "thumbnails": node examples/thumbnails/publish.mjs [how many]
// AMQP_URL names the broker.

import { Connection, Queue } from 'mozuku';

const WIDTH = 640;
const HEIGHT = 480;

/** A picture nobody has to download: rings around a point, three bytes for each pixel. */
function picture(number) {
  const pixels = Buffer.alloc(WIDTH * HEIGHT * 3);
  const centerX = (number * 97) % WIDTH;
  const centerY = (number * 61) % HEIGHT;
  for (let y = 0, at = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++, at += 3) {
      const distance = Math.hypot(x - centerX, y - centerY);
      pixels[at] = 128 + 127 * Math.sin(distance / 9);
      pixels[at + 1] = (255 * x) / WIDTH;
      pixels[at + 2] = (255 * y) / HEIGHT;
    }
  }
  return { name: `picture-${number}`, width: WIDTH, height: HEIGHT, pixels };
}

const connection = new Connection(process.env.AMQP_URL ?? 'amqp://guest:guest@localhost:5672//');
const queue = new Queue('thumbnails');
const producer = connection.Producer({ routingKey: queue.name, serializer: 'msgpack', compression: 'zlib' });
const count = Number(process.argv[2] ?? 20);
try {
  for (let number = 1; number <= count; number++) {
    // Resolves when the broker has taken the message; the queue is declared before the first.
    await producer.publish(picture(number), { declare: [queue], messageId: `picture-${number}` });
  }
  console.log(`${count} pictures published`);
} finally {
  await connection.close();
}
