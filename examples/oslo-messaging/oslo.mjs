// The messages of oslo.messaging, OpenStack's library over kombu: its envelope, its notifications, calls to its RPC servers.

import { randomUUID } from 'node:crypto';
import { Exchange, errors, Queue, serialization } from 'mozuku';

/** Where OpenStack's services meet unless they are told otherwise (`control_exchange`). */
export const CONTROL_EXCHANGE = 'openstack';

const topicExchange = (name) => new Exchange(name, { type: 'topic', durable: false });

/** The queue of one topic and priority: `notifications.info`. */
export function notificationQueue(topic, priority, exchange = CONTROL_EXCHANGE) {
  const name = `${topic}.${priority}`;
  return new Queue(name, topicExchange(exchange), { routingKey: name, durable: false });
}

/** A message inside its envelope: JSON inside JSON. */
export function seal(message) {
  return { 'oslo.version': '2.0', 'oslo.message': JSON.stringify({ ...message, _unique_id: hex() }) };
}

/** What an envelope holds: the message, and the context of the caller, which travels as `_context_…`. */
export function open(body) {
  const text = body['oslo.message'];
  // Python's integers may be larger than a Number holds, so not JSON.parse.
  const whole = text === undefined ? body : serialization.loads(Buffer.from(text), 'application/json');
  const message = {};
  const context = {};
  for (const [key, value] of Object.entries(whole)) {
    if (key.startsWith('_context_')) context[key.slice(9)] = value;
    else message[key] = value;
  }
  return { message, context };
}

/** A method of a server that failed; `details.remote` has its class, module and traceback. */
export class RemoteError extends errors.KombuError {
  static code = 'OSLO_REMOTE_ERROR';
}

/** Calls methods of RPC servers. `await using client = await RpcClient.open(connection)`. */
export class RpcClient {
  #exchange;
  #replies;
  #consumer;
  #producer;
  #waiting = new Map();

  static async open(connection, { exchange = CONTROL_EXCHANGE } = {}) {
    const client = new RpcClient();
    client.#exchange = topicExchange(exchange);
    // Only we consume it; servers send to it by name.
    client.#replies = new Queue(`reply_${hex()}`, undefined, { exclusive: true, autoDelete: true, durable: false });
    client.#producer = connection.Producer({ exchange: client.#exchange });
    client.#consumer = connection.Consumer([client.#replies], {
      callbacks: [(body, message) => client.#take(open(body).message, message)],
    });
    await client.#consumer.consume();
    return client;
  }

  /**
   * Resolves with what the method returns. `server`: that one, else any that serves the topic. `timeout` in ms.
   * Throws `RemoteError`, `TimeoutError`, and `MessageReturned` where nobody serves the topic.
   */
  async call(topic, method, args = {}, { server, version = '1.0', context = {}, timeout = 60_000 } = {}) {
    const id = hex();
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    answer.catch(() => undefined); // publish may fail first
    const late = () => {
      this.#waiting.get(id)?.reject(new errors.TimeoutError(`no answer of ${topic}.${method} within ${timeout} ms`));
    };
    const timer = setTimeout(late, timeout);
    try {
      const packed = Object.fromEntries(Object.entries(context).map(([key, value]) => [`_context_${key}`, value]));
      const message = { method, args, version, ...packed, _msg_id: id, _reply_q: this.#replies.name, _timeout: null };
      await this.#producer.publish(seal(message), {
        routingKey: server === undefined ? topic : `${topic}.${server}`,
        expiration: timeout, // nobody waits for it any more then
        mandatory: true,
        timeout,
      });
      return await answer;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  #take({ _msg_id: id, result, failure, ending }, message) {
    message.ack();
    const waiting = this.#waiting.get(id);
    if (waiting === undefined || !ending) return; // too late, or only a sign of life
    if (failure === null) return waiting.resolve(result);
    const remote = JSON.parse(failure);
    waiting.reject(new RemoteError(`${remote.class}: ${remote.message}`, { details: { remote } }));
  }

  async close() {
    await this.#producer.close();
    await this.#consumer.close();
    for (const { reject } of this.#waiting.values()) reject(new errors.ClosedError('the client is closed'));
  }

  async [Symbol.asyncDispose]() {
    await this.close();
  }
}

const hex = () => randomUUID().replaceAll('-', '');
