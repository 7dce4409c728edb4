/**
 * Messages that are to run again later. Short of `orderBy` the broker keeps the delay: the message goes to a queue whose
 * messages expire after it, back into its own queue, and is settled when the broker has confirmed that. So a delay costs no
 * place in the prefetch and outlives this process. In order a message is held in its slot until it is due, and its key waits.
 *
 *   work ──failed──▶ work.retry.2000 (x-message-ttl 2000) ──expired──▶ work
 */
import { type Delivery, NO_DECODING, RETRIES_HEADER } from '../../pool/delivery.js';
import { slot } from '../../pool/layout.js';
import type { Memory } from '../../pool/memory.js';
import { openDelivery } from '../../pool/open-delivery.js';
import type { Dispatcher } from './dispatcher.js';
import { messageOf, ORIGIN, originOf, readOr } from './letter.js';
import type { Outlets } from './outlets.js';

export interface RetriesOptions {
  readonly memory: Memory;
  readonly dispatcher: Dispatcher;
  readonly queueOf: ReadonlyMap<string, string>;
  /** Undefined: held in its slot. */
  readonly outlets: Outlets | undefined;
  /** A slot was settled: acks may be written. */
  readonly onSettled: () => void;
}

/**
 * RabbitMQ drops a message that expires into a queue where, by these headers, it has expired before: it takes that for a loop
 * without end.
 */
const DEATHS = /^x-((first|last)-)?death/;

/** Delays of nearly the same length share a queue: up to two digits that count. */
export function roundUp(milliseconds: number): number {
  if (milliseconds < 100) return Math.max(1, Math.ceil(milliseconds / 10) * 10);
  const unit = 10 ** (Math.floor(Math.log10(milliseconds)) - 1);
  return Math.ceil(milliseconds / unit) * unit;
}

export class Retries {
  readonly #options: RetriesOptions;
  readonly #held = new Map<number, { readonly word: number; readonly timer: NodeJS.Timeout }>();

  constructor(options: RetriesOptions) {
    this.#options = options;
  }

  /** Takes a HELD slot. */
  add(index: number, milliseconds: number): void {
    if (this.#options.outlets === undefined) this.#hold(index, milliseconds);
    else this.#keep(index, milliseconds, this.#options.outlets);
  }

  /** Gives back what is held here, unfinished. */
  giveBack(): void {
    for (const [index, { word, timer }] of this.#held) {
      clearTimeout(timer);
      this.#options.dispatcher.returnHeld(index, word);
    }
    this.#held.clear();
  }

  #hold(index: number, milliseconds: number): void {
    const { dispatcher } = this.#options;
    const word = dispatcher.stateOf(index);
    clearTimeout(this.#held.get(index)?.timer);
    const timer = setTimeout(() => {
      this.#held.delete(index);
      dispatcher.again(index, word);
    }, milliseconds);
    this.#held.set(index, { word, timer });
  }

  #keep(index: number, milliseconds: number, outlets: Outlets): void {
    const { dispatcher, memory, queueOf, onSettled } = this.#options;
    const word = dispatcher.stateOf(index);
    const at = index << slot.SHIFT;
    const read = (): Delivery => {
      const words = memory.slotWords;
      return openDelivery(memory.bytes, words[at + slot.OFFSET]!, words[at + slot.LENGTH]!, queueOf, NO_DECODING);
    };
    const { queue } = read().readDeliveryInfo();
    const delay = roundUp(milliseconds);
    const route = {
      exchange: '',
      routingKey: `${queue}.retry.${delay}`,
      queueArguments: {
        // Whatever the virtual host's default is: to declare a quorum queue again does not put off its end.
        'x-queue-type': 'classic',
        'x-message-ttl': delay,
        'x-dead-letter-exchange': '',
        'x-dead-letter-routing-key': queue,
        // Gone when nobody has used it for so long; it is declared anew while it is used.
        'x-expires': 2 * delay + 600_000,
      },
    };
    outlets.add(route, {
      wanted: () => dispatcher.stateOf(index) === word,
      letter: () => {
        const delivery = read();
        const { exchange, routingKey } = originOf(delivery);
        const retries = readOr(0, () => delivery.readRetries()) + memory.slotWords[at + slot.ATTEMPTS]!;
        const ours = { [RETRIES_HEADER]: retries, [ORIGIN.exchange]: exchange, [ORIGIN.routingKey]: routingKey };
        return messageOf(delivery, ours, (name) => DEATHS.test(name));
      },
      done: () => {
        if (dispatcher.finishRetry(index, word)) onSettled();
      },
    });
  }
}
