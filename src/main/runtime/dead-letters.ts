/**
 * Messages that cannot be decoded, failed for good, or took their worker down too often: published with their bytes to the
 * dead-letter queue, confirmed, and only then acked. Until that works they stay unsettled and are tried again.
 */
import type { DeliveryInfo, MessageProperties } from '../../message.js';
import { type Delivery, NO_DECODING, RETRIES_HEADER } from '../../pool/delivery.js';
import { NOTE_BYTES, slot } from '../../pool/layout.js';
import type { Memory } from '../../pool/memory.js';
import { openDelivery } from '../../pool/open-delivery.js';
import type { Dispatcher } from './dispatcher.js';
import { messageOf, ORIGIN, originOf, readOr } from './letter.js';
import type { Letter, Route } from './outlet.js';
import type { Outlets } from './outlets.js';

/** Where dead letters go. In a string `<queue>` stands for the name of the message's queue. */
export type DeadLetterTarget = string | { readonly exchange: string; readonly routingKey?: string };

export type DeadLetterReason = 'failed' | 'decode' | 'deaths' | 'tooLarge';

export interface DeadLetter {
  readonly reason: DeadLetterReason;
  /** The error's text and stack, at most 1 KiB. */
  readonly error: string;
  readonly queue: string;
  readonly deliveryTag: number;
  readonly messageId?: string;
  /** The queue or exchange it went to. */
  readonly target: string;
}

export interface DeadLettersOptions {
  readonly outlets: Outlets;
  readonly target: DeadLetterTarget;
  readonly memory: Memory;
  readonly dispatcher: Dispatcher;
  /** Queue names by consumer tag. */
  readonly queueOf: ReadonlyMap<string, string>;
  readonly onDead: (letter: DeadLetter) => void;
  /** A slot was settled: acks may be written. */
  readonly onSettled: () => void;
}

interface Job {
  readonly index: number;
  /** The slot's STATE when the job began: another value means that the message is no longer ours. */
  readonly word: number;
  readonly reason: DeadLetterReason | undefined;
  readonly error: string | undefined;
}

/** What is known of a message before its dead letter is written. */
interface Facts {
  readonly reason: DeadLetterReason;
  readonly error: string;
  readonly info: DeliveryInfo;
  readonly properties: MessageProperties;
}

export class DeadLetters {
  readonly #options: DeadLettersOptions;

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /** Takes a HELD slot; its note has the reason unless one is given. */
  add(index: number, reason?: DeadLetterReason, error?: string): void {
    const { dispatcher, outlets } = this.#options;
    const job = { index, word: dispatcher.stateOf(index), reason, error };
    const delivery = this.#delivery(job);
    const route = this.#route(delivery.readDeliveryInfo().queue, originOf(delivery).routingKey);
    let facts: Facts | undefined;
    outlets.add(route, {
      wanted: () => dispatcher.stateOf(index) === job.word,
      letter: () => {
        facts = this.#facts(job);
        return this.#letter(job, facts);
      },
      done: () => {
        // If the generation ended meanwhile, the broker gives the message out again: a second dead letter, never none.
        if (dispatcher.finishDead(index, job.word)) this.#tell(facts!, route);
      },
    });
  }

  #delivery({ index }: Job): Delivery {
    const { memory, queueOf } = this.#options;
    const at = index << slot.SHIFT;
    const words = memory.slotWords;
    return openDelivery(memory.bytes, words[at + slot.OFFSET]!, words[at + slot.LENGTH]!, queueOf, NO_DECODING);
  }

  #facts(job: Job): Facts {
    const delivery = this.#delivery(job);
    return {
      ...this.#note(job),
      info: delivery.readDeliveryInfo(),
      properties: readOr({}, () => delivery.readProperties()),
    };
  }

  #letter(job: Job, { reason, error, info }: Facts): Letter {
    const delivery = this.#delivery(job);
    const words = this.#options.memory.slotWords;
    const at = job.index << slot.SHIFT;
    const { exchange, routingKey } = originOf(delivery);
    const ours = {
      'x-mozuku-reason': reason,
      'x-mozuku-error': error,
      'x-mozuku-queue': info.queue,
      [ORIGIN.exchange]: exchange,
      [ORIGIN.routingKey]: routingKey,
      // A sweep has counted the last run already; a verdict has not.
      'x-mozuku-attempts':
        readOr(0, () => delivery.readRetries()) + words[at + slot.ATTEMPTS]! + (reason === 'deaths' ? 0 : 1),
      'x-mozuku-deaths': words[at + slot.DEATHS]!,
      'x-mozuku-time': new Date().toISOString(),
    };
    // Put back into its queue one day, it begins anew.
    return messageOf(delivery, ours, (name) => name === RETRIES_HEADER);
  }

  #tell({ reason, error, info, properties }: Facts, { exchange, routingKey, queueArguments }: Route): void {
    this.#options.onSettled();
    this.#options.onDead({
      reason,
      error,
      queue: info.queue,
      deliveryTag: info.deliveryTag,
      target: queueArguments === undefined ? exchange : routingKey,
      ...(properties.messageId === undefined ? {} : { messageId: properties.messageId }),
    });
  }

  #route(queue: string, original: string): Route {
    const { target } = this.#options;
    if (typeof target === 'string') {
      return { exchange: '', routingKey: target.replaceAll('<queue>', queue), queueArguments: {} };
    }
    return { exchange: target.exchange, routingKey: target.routingKey ?? original };
  }

  /** Why: given by main, or written by the worker into the slot's note. */
  #note(job: Job): { reason: DeadLetterReason; error: string } {
    if (job.reason !== undefined) return { reason: job.reason, error: (job.error ?? '').slice(0, NOTE_BYTES) };
    const { noteBytes } = this.#options.memory;
    const start = job.index * NOTE_BYTES;
    const text = noteBytes.toString('utf8', start + 2, start + 2 + noteBytes.readUInt16BE(start));
    const line = text.indexOf('\n');
    const reason = text.slice(0, line) === 'decode' ? 'decode' : 'failed';
    return { reason, error: text.slice(line + 1) };
  }
}
