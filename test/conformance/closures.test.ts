/** How channels and connections end, and what is said to whoever still asks. */
import assert from 'node:assert/strict';
import { errors } from '#src/index';
import { onBothBrokers } from '../support/both-brokers.js';

onBothBrokers('a channel that closes by itself says nothing but that', async (scene) => {
  const channel = await scene.connection.channel();
  let closes = 0;
  channel.raw.on('close', () => closes++);
  channel.raw.on('error', () => assert.fail('no error'));
  await channel.raw.close();
  assert.equal(await channel.ended, undefined);
  assert.equal(closes, 1);
});

onBothBrokers('a closed channel refuses everything at once', async (scene) => {
  const raw = await scene.open();
  await raw.close();
  const illegal = { name: 'IllegalOperationError', message: 'Channel closed' };
  assert.throws(() => raw.publish('', 'q', Buffer.from('x')), illegal);
  assert.throws(() => raw.ackAll(), illegal);
  await assert.rejects(raw.checkQueue('q'), illegal);
  await assert.rejects(raw.close(), illegal);
});

onBothBrokers('a closing channel refuses too, and does not answer what it was asked', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const asked = [raw.checkQueue(queue), raw.checkQueue(queue)];
  const closing = raw.close();
  assert.throws(() => raw.publish('', queue, Buffer.from('x')), { message: 'Channel closing' });
  const outcomes = await Promise.allSettled(asked);
  assert.match(String((outcomes[1] as PromiseRejectedResult).reason), /Channel ended, no reply will be forthcoming/);
  await closing;
});

onBothBrokers('a mistake on one channel leaves the others alone', async (scene) => {
  const queue = await scene.queue();
  const [bad, good] = [await scene.connection.channel(), await scene.connection.channel()];
  await assert.rejects(bad.raw.checkQueue(scene.unique('none')));
  assert.ok((await bad.ended) instanceof errors.NotFound);
  assert.equal((await good.raw.checkQueue(queue)).queue, queue);
});

onBothBrokers('the error of a closed channel has code and method', async (scene) => {
  const channel = await scene.connection.channel();
  const heard = new Promise<Error & Record<string, unknown>>((resolve) => channel.raw.once('error', resolve));
  const name = scene.unique('none');
  await assert.rejects(channel.raw.purgeQueue(name), { code: 404, classId: 50, methodId: 30 });
  const error = await heard;
  assert.deepEqual([error.code, error.classId, error.methodId], [404, 50, 30]);
  assert.equal(
    error.message,
    `Channel closed by server: 404 (NOT-FOUND) with message "NOT_FOUND - no queue '${name}' in vhost '/'"`,
  );
});

onBothBrokers('what was asked behind a refused question gets no answer', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const [first, second] = await Promise.allSettled([raw.checkQueue(scene.unique('none')), raw.checkQueue(queue)]);
  assert.match(String((first as PromiseRejectedResult).reason), /^Error: Operation failed: QueueDeclare; 404/);
  assert.match(String((second as PromiseRejectedResult).reason), /Channel ended, no reply will be forthcoming/);
});

onBothBrokers('after a mistake the connection opens another default channel', async (scene) => {
  const channel = await scene.connection.defaultChannel();
  await assert.rejects(
    channel.call('checking', (raw) => raw.checkQueue(scene.unique('none'))),
    errors.NotFound,
  );
  await channel.ended;
  const other = await scene.connection.defaultChannel();
  assert.notEqual(other, channel);
  assert.equal(other.closed, false);
});

onBothBrokers('a connection that closes ends its channels without a reason', async (scene) => {
  const connection = scene.connect();
  const channel = await connection.channel();
  const disconnected = new Promise((resolve) => connection.once('disconnected', resolve));
  await connection.close();
  assert.equal(await channel.ended, undefined);
  assert.equal(await disconnected, undefined);
  assert.equal(connection.connected, false);
  await assert.rejects(connection.channel(), errors.ClosedError);
});

onBothBrokers('a connection can be opened again after it was closed', async (scene) => {
  const queue = await scene.queue();
  const connection = scene.connect();
  await connection.connect();
  await connection.close();
  await connection.connect();
  assert.equal((await (await scene.open(connection)).checkQueue(queue)).queue, queue);
});

onBothBrokers('what the broker ends a connection with reaches its channels', async (scene) => {
  const connection = scene.connect();
  const errorsHeard: Error[] = [];
  connection.on('error', (error) => errorsHeard.push(error));
  const [guilty, bystander] = [await connection.channel(), await connection.channel()];
  await assert.rejects(guilty.raw.assertExchange(scene.unique('x'), 'no-such'));
  const reason = await bystander.ended;
  assert.ok(reason instanceof errors.ConnectionError);
  assert.equal(reason.details.replyCode, 503);
  assert.deepEqual(errorsHeard, [reason]);
  await connection.connect();
  assert.equal(connection.connected, true);
});

onBothBrokers('publishes that nobody waited for are on the queue after the channel has closed', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  for (let i = 0; i < 20; i++) raw.sendToQueue(queue, Buffer.from('x'));
  await raw.close();
  assert.equal(await scene.size(queue), 20);
});

onBothBrokers('answers come in the order of the questions, never at once', async (scene) => {
  const queue = await scene.queue();
  const raw = await scene.open();
  const heard: number[] = [];
  const asked = [1, 2, 3].map((i) => raw.checkQueue(queue).then(() => heard.push(i)));
  await Promise.resolve();
  assert.deepEqual(heard, []);
  await Promise.all(asked);
  assert.deepEqual(heard, [1, 2, 3]);
});

onBothBrokers('a channel that is full says so, and when it is not any more', async (scene) => {
  const queue = await scene.queue({ messageTtl: 1 });
  const raw = await scene.open();
  const drained = new Promise((resolve) => raw.once('drain', resolve));
  let written = 0;
  while (raw.sendToQueue(queue, Buffer.from('x'))) if (++written > 100_000) assert.fail('it never filled');
  await drained;
  assert.ok(written >= 500 && written < 50_000, String(written));
  await raw.waitForConfirms();
});
