/** Consumes and settles nothing, telling each payload on a line: `holding-consumer.js URL QUEUE TRANSPORT-OPTIONS`. */
import { Connection, Queue } from '#src/index';

const [, , url = '', queue = '', options = '{}'] = process.argv;
const connection = new Connection(url, { transportOptions: JSON.parse(options) as Record<string, unknown> });
const consumer = connection.Consumer([new Queue(queue)], {
  autoDeclare: false,
  onMessage: (message) => console.log(JSON.stringify(message.payload)),
});
await consumer.consume();
