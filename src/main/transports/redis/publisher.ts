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

/** What a client and a pipeline have in common. */
interface Asked {
  lpush(list: string, ...envelopes: Buffer[]): unknown;
  pexpire(list: string, milliseconds: number): unknown;
  publish(channel: string, envelope: Buffer): unknown;
  mozukuPublish(keys: number, ...args: (string | number | Buffer)[]): unknown;
}

interface Question {
  readonly ask: (of: Asked) => unknown;
  readonly answer: (error: unknown, reply: unknown) => void;
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
    const questions: Question[] = [];
    const pushes = new Map<string, Push>();
    const push = (each: Push): void => {
      pushes.delete(each.list);
      questions.push({
        ask: (of) => of.lpush(each.list, ...each.envelopes),
        answer: (error) => {
          for (const waiting of each.waiting) this.#settle(waiting, error, 1);
        },
      });
    };
    for (const { message: waiting, envelope } of gathered) {
      const { exchange, routingKey, properties } = waiting.message;
      const priority = properties.priority ?? 0;
      const type = this.#exchanges.typeOf(exchange);
      if (exchange === '') {
        const list = this.#keys.list(routingKey, priority);
        const expires = this.#exchanges.lasting.get(routingKey);
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
            questions.push({ ask: (of) => of.pexpire(each, expires), answer: () => undefined });
          }
        }
      } else if (type === 'fanout') {
        // In the order of the calls, also where they lead to the same queue by different ways.
        for (const each of [...pushes.values()]) push(each);
        questions.push({
          ask: (of) => of.publish(this.#keys.fanout(exchange, routingKey), envelope),
          answer: (error, reply) => this.#settle(waiting, error, reply as number),
        });
      } else {
        for (const each of [...pushes.values()]) push(each);
        const { lasting } = this.#exchanges;
        const { prefix, separator, steps } = this.#keys;
        const suffixOf = (step: number): string => this.#keys.stepSuffix('', step);
        const suffix = suffixOf(this.#keys.stepOf(priority));
        const topic = type === 'topic' ? '1' : '';
        const args = [
          this.#keys.bindings(exchange),
          ...[prefix, separator, routingKey, topic, suffix, envelope, topic ? '' : this.#deadletterQueue],
          ...[lasting.size > 0 ? '1' : '', steps.length, ...steps.map(suffixOf)],
          ...lasting.of(exchange, routingKey, topic !== ''),
        ];
        questions.push({
          ask: (of) => of.mozukuPublish(1, ...args),
          answer: (error, reply) => {
            if (error || typeof reply === 'number') this.#settle(waiting, error, reply as number);
            else this.#renewOthers(waiting, reply as [number, ...string[]]);
          },
        });
      }
    }
    for (const each of [...pushes.values()]) push(each);
    this.#ask(questions);
  }

  #ask(questions: readonly Question[]): void {
    const [first] = questions;
    if (first !== undefined && questions.length === 1) {
      // A pipeline costs more than what it would carry.
      const { answer } = first;
      (first.ask(this.#client) as Promise<unknown>).then(
        (reply) => answer(null, reply),
        (error: unknown) => answer(error, undefined),
      );
      return;
    }
    const pipeline = this.#client.pipeline();
    for (const { ask } of questions) ask(pipeline as unknown as Asked);
    pipeline.exec().then(
      (replies) => {
        for (const [i, { answer }] of questions.entries()) {
          const [error, reply] = replies?.[i] ?? [new ClosedError('the connection was lost'), undefined];
          answer(error, reply);
        }
      },
      (error: unknown) => {
        for (const { answer } of questions) answer(error, undefined);
      },
    );
  }

  /** It has reached queues that others have bound. Those that last for a time only have it anew before the publish is confirmed. */
  #renewOthers(waiting: Waiting, [count, ...reached]: [number, ...string[]]): void {
    const pipeline = this.#client.pipeline();
    for (const queue of reached) {
      const milliseconds = this.#exchanges.lasting.get(queue);
      if (milliseconds === undefined) continue;
      for (const list of this.#keys.lists(queue)) pipeline.pexpire(list, milliseconds);
    }
    // Published it is, whatever becomes of the time.
    const settle = (): void => this.#settle(waiting, null, count);
    if (pipeline.length === 0) settle();
    else pipeline.exec().then(settle, settle);
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
