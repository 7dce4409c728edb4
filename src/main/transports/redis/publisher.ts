/**
 * Publishes envelopes, gathered over a turn of the event loop: those for the default exchange are one LPUSH a list, others a
 * script each, which looks for the bindings and pushes in one step. All of a turn go in one write; the reply is the confirm.
 */
import { randomUUID } from 'node:crypto';
import { writeEnvelope } from '../../../codec/envelope.js';
import { ClosedError } from '../../../errors.js';
import type { Outgoing } from '../transport.js';
import type { Client } from './client.js';
import { errorFromRedis, leadsNowhere } from './errors.js';
import type { Exchanges } from './exchanges.js';
import type { Keys } from './keys.js';

/** No answer, so long that whoever publishes should wait. */
const HIGH_WATER = 4096;
/** Of one LPUSH. */
const MOST_TOGETHER = 256;
const MOST_BYTES_TOGETHER = 1024 * 1024;

interface Waiting {
  readonly message: Outgoing;
  /** How many queues have it. */
  readonly settle: (error: unknown, queues: number) => void;
}

interface Push {
  readonly list: string;
  readonly envelopes: Buffer[];
  readonly waiting: Waiting[];
  bytes: number;
}

export class RedisPublisher {
  readonly #client: Client;
  readonly #keys: Keys;
  readonly #exchanges: Exchanges;
  readonly #bodyEncoding: 'base64' | 'utf-8';
  readonly #deadletterQueue: string;
  /** The server cannot serve us: the connection is of no use. */
  readonly #onUseless: (error: unknown) => void;
  readonly #onDrain = new Set<() => void>();
  #gathered: { readonly message: Waiting; readonly envelope: Buffer }[] = [];
  #scheduled = false;
  #unanswered = 0;
  #closed = false;

  constructor(
    client: Client,
    keys: Keys,
    exchanges: Exchanges,
    options: { readonly bodyEncoding: 'base64' | 'utf-8'; readonly deadletterQueue?: string },
    onUseless: (error: unknown) => void,
  ) {
    this.#client = client;
    this.#keys = keys;
    this.#exchanges = exchanges;
    this.#bodyEncoding = options.bodyEncoding;
    this.#deadletterQueue = options.deadletterQueue ?? '';
    this.#onUseless = onUseless;
  }

  /** False while more is unanswered than is good: `onDrain` is called when there is room again. Throws what cannot be encoded. */
  publish(message: Outgoing, settle: (error: unknown, queues: number) => void, onDrain: () => void): boolean {
    if (this.#closed) throw new ClosedError('the connection is closed');
    const envelope = writeEnvelope({ ...message, deliveryTag: randomUUID(), bodyEncoding: this.#bodyEncoding });
    this.#gathered.push({ message: { message, settle }, envelope });
    this.#unanswered++;
    if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(this.#onTick);
    }
    if (this.#unanswered < HIGH_WATER) return true;
    this.#onDrain.add(onDrain);
    return false;
  }

  /** Nothing more is published. What is gathered goes out. */
  close(): void {
    this.flush();
    this.#closed = true;
  }

  readonly #onTick = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  /** What is gathered goes out now: before whatever is asked next over the connection. */
  flush(): void {
    const gathered = this.#gathered;
    if (gathered.length === 0) return;
    this.#gathered = [];
    const pipeline = this.#client.pipeline();
    const answers: ((error: unknown, reply: unknown) => void)[] = [];
    const pushes = new Map<string, Push>();
    const push = (each: Push): void => {
      pushes.delete(each.list);
      pipeline.lpush(each.list, ...each.envelopes);
      answers.push((error) => {
        for (const waiting of each.waiting) this.#settle(waiting, error, 1);
      });
    };
    for (const { message: waiting, envelope } of gathered) {
      const { exchange, routingKey, properties } = waiting.message;
      const priority = properties.priority ?? 0;
      const type = this.#exchanges.typeOf(exchange);
      if (exchange === '') {
        const list = this.#keys.list(routingKey, priority);
        const expires = this.#exchanges.expires.get(routingKey);
        let together = pushes.get(list);
        if (together === undefined) {
          together = { list, envelopes: [], waiting: [], bytes: 0 };
          pushes.set(list, together);
        }
        together.envelopes.push(envelope);
        together.waiting.push(waiting);
        together.bytes += envelope.length;
        if (together.envelopes.length >= MOST_TOGETHER || together.bytes >= MOST_BYTES_TOGETHER) push(together);
        if (expires !== undefined) {
          if (pushes.has(list)) push(together);
          for (const each of this.#keys.lists(routingKey)) {
            pipeline.pexpire(each, expires);
            answers.push(() => undefined);
          }
        }
      } else if (type === 'fanout') {
        // In the order of the calls, also where they lead to the same queue by different ways.
        for (const each of [...pushes.values()]) push(each);
        pipeline.publish(this.#keys.fanout(exchange, routingKey), envelope);
        answers.push((error, reply) => this.#settle(waiting, error, reply as number));
      } else {
        for (const each of [...pushes.values()]) push(each);
        const lasting = [...this.#exchanges.expires].flat();
        const suffix = this.#keys.stepSuffix('', this.#keys.stepOf(priority));
        const { prefix, separator } = this.#keys;
        const topic = type === 'topic' ? '1' : '';
        (pipeline as unknown as Client).mozukuPublish(
          1,
          this.#keys.bindings(exchange),
          ...[prefix, separator, routingKey, topic, suffix, envelope, topic ? '' : this.#deadletterQueue, ...lasting],
        );
        answers.push((error, reply) => this.#settle(waiting, error, reply as number));
      }
    }
    for (const each of [...pushes.values()]) push(each);
    pipeline.exec().then(
      (replies) => {
        for (const [i, answer] of answers.entries()) {
          const [error, reply] = replies?.[i] ?? [new ClosedError('the connection was lost'), undefined];
          answer(error, reply);
        }
      },
      (error: unknown) => {
        for (const answer of answers) answer(error, 0);
      },
    );
  }

  #settle({ settle, message }: Waiting, error: unknown, queues: number): void {
    this.#unanswered--;
    if (error) {
      settle(errorFromRedis(error, `publishing to '${message.exchange}' with '${message.routingKey}'`), 0);
      if (leadsNowhere(error)) this.#onUseless(error);
    } else {
      settle(null, queues);
    }
    if (this.#unanswered >= HIGH_WATER / 2 || this.#onDrain.size === 0) return;
    const waiting = [...this.#onDrain];
    this.#onDrain.clear();
    for (const tell of waiting) tell();
  }
}
