/**
 * The service whose consumer is put to the test: `service-main.js SETTINGS`, told what to do by lines, answers each with one.
 * Its effects go to MOZUKU_EFFECTS.
 */
import { createInterface } from 'node:readline';
import { Connection, Queue, ShardedConsumer } from '#src/index';
import { EFFECTS_HANDLER } from '../support/rig.js';
import { type ServiceSettings, serviceOptions } from './service.js';

const { url, queue, options, transportOptions, ...settings } = JSON.parse(process.argv[2]!) as ServiceSettings;
const consumer = new ShardedConsumer(new Connection(url, { transportOptions }), new Queue(queue, options), {
  handler: EFFECTS_HANDLER,
  ...serviceOptions(settings),
});
const errors: string[] = [];
consumer.on('error', ({ message }) => {
  errors.push(message);
  if (errors.length > 20) errors.shift();
});
const say = (answer: unknown): void => console.log(JSON.stringify(answer));
await consumer.consume();
process.once('SIGTERM', () => void consumer.close());
say('consuming');
const orders = createInterface({ input: process.stdin });
orders.on('close', () => process.exit(2));
orders.on('line', (line) => {
  const [word, number] = line.split(' ');
  const done = (): void => say('done');
  const failed = ({ message }: Error): void => say({ failed: message });
  if (word === 'scale') consumer.scale(Number(number)).then(done, failed);
  else if (word === 'pause') consumer.pause().then(done, failed);
  else if (word === 'resume') consumer.resume().then(done, failed);
  else if (word === 'stats') say({ ...consumer.stats(), errors });
  else say({ failed: `what is '${line}'?` });
});
await consumer.closed;
process.exit(0);
