/** In every way a worker can end, in the middle of 10,000 messages each. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deaths, dieInTheMiddle } from '../support/deaths.js';
import { sharedBroker } from '../support/rabbitmq.js';

const COUNT = Number(process.env.MOZUKU_SOAK_MESSAGES ?? 10_000);

for (const [name, death] of Object.entries(deaths)) {
  test(`a message that ${name}, in the middle of ${COUNT}`, { timeout: 600_000 }, async () => {
    const broker = sharedBroker();
    assert.ok(broker !== undefined, 'this soak needs a RabbitMQ');
    const { handled, handledTwice, deadLettered, exits, wrongAcks } = await dieInTheMiddle(broker, death, COUNT);
    console.log(
      `${name}: handled: asked ${COUNT - 1}, measured ${handled}, twice ${handledTwice}; dead-lettered with its bytes: asked 1, measured ${deadLettered}; deaths ${exits}; wrong acks ${wrongAcks}`,
    );
  });
}
