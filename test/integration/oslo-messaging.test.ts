/** examples/oslo-messaging against Python's oslo.messaging: RPC calls, and the notification that one of them sends. */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Connection } from '#src/index';
import { LineChild } from '../support/line-child.js';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';
import { ROOT } from '../support/scripts.js';

const FOLDER = join(ROOT, 'examples', 'oslo-messaging');

/** A Python that has the module. Debian's own first: python3-oslo.messaging installs there. */
function osloPython(): string | undefined {
  return [process.env.MOZUKU_TEST_PYTHON, '/usr/bin/python3', 'python3'].find((python) => {
    if (!python) return false;
    try {
      execFileSync(python, ['-c', 'import oslo_messaging'], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  });
}

brokerTest('the example calls a server of oslo.messaging and consumes what it notifies', async ({ url }, context) => {
  const python = osloPython();
  if (python === undefined) {
    context.skip("Python's oslo.messaging is not installed: apt-get install -y python3-oslo.messaging");
    return;
  }
  const [topic, exchange] = [uniqueName('oslo'), uniqueName('oslo-exchange')];
  const rabbit = `${url.replace(/^amqp:/, 'rabbit:').replace(/\/*$/, '')}//`;
  const service = new LineChild(python, [join(FOLDER, 'service.py'), rabbit, topic, exchange]);
  try {
    assert.equal(await service.line(), `serving ${topic}`);
    const env = { ...process.env, AMQP_URL: url, OSLO_TOPIC: topic, OSLO_EXCHANGE: exchange };
    const { stdout } = await promisify(execFile)(process.execPath, [join(FOLDER, 'main.mjs')], { env });
    const notification = {
      publisher_id: `${topic}.one`,
      event_type: 'calculator.added',
      priority: 'INFO',
      payload: { numbers: [1, 2, 39], total: 42 },
    };
    const lines = stdout.trim().split('\n');
    const told = lines
      .filter((text) => text.startsWith('notified '))
      .map((text) => JSON.parse(text.slice(9)) as object);
    assert.equal(told.length, 1);
    const { payload, publisher_id, event_type, priority, context: caller } = told[0] as Record<string, unknown>;
    assert.deepEqual({ publisher_id, event_type, priority, payload }, notification);
    assert.equal((caller as { user?: unknown }).user, 'kelp');
    assert.deepEqual(
      lines.filter((text) => !text.startsWith('notified ')).map((text) => text.replace(/"context":.*/, '…')),
      ['add 42', 'echo {"value":["é",null],…', 'RemoteError: ZeroDivisionError: division by zero', 'MessageReturned'],
    );
  } finally {
    await service.finish();
    await using connection = new Connection(url);
    const channel = await connection.channel();
    // oslo.messaging leaves what it declares
    for (const queue of [topic, `${topic}.one`, `${topic}-notifications.info`]) await channel.raw.deleteQueue(queue);
    await channel.raw.deleteExchange(exchange);
  }
});
