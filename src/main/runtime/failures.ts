/**
 * What becomes of messages that failed, and what is told of it: `deadLetter` and `onDecodeError` as verdicts, and the `failed`
 * event, whose facts come from a worker, or from the slot of a message that took its worker down.
 */
import { MessageTooLarge } from '../../errors.js';
import { readDeliver } from '../../pool/delivery.js';
import { slot, verdict } from '../../pool/layout.js';
import type { Memory } from '../../pool/memory.js';
import type { FromWorker } from '../../pool/worker-protocol.js';
import type { DeadLetters } from './dead-letters.js';
import type { Dispatcher, Outcome } from './dispatcher.js';
import type { FailedMessage, FailureOutcome } from './events.js';
import type { ResolvedOptions } from './options.js';
import { fromPortable } from './worker-life.js';

export interface FailuresParts {
  readonly options: ResolvedOptions;
  readonly memory: Memory;
  readonly dispatcher: Dispatcher;
  readonly queueOf: ReadonlyMap<string, string>;
  /** Undefined where `deadLetter` is 'broker' or 'drop'. */
  readonly deadLetters: DeadLetters | undefined;
  readonly onFailed: (failure: FailedMessage) => void;
  readonly onError: (error: Error) => void;
}

export class Failures {
  readonly #parts: FailuresParts;
  /** Deaths that a message was found guilty of. */
  culprits = 0;

  constructor(parts: FailuresParts) {
    this.#parts = parts;
  }

  /** A worker, or main itself, gave a message up: `deadLetter` decides. */
  dead(index: number, why: 'failed' | 'deaths', text = 'its worker died'): void {
    const { options, dispatcher, deadLetters } = this.#parts;
    const word = dispatcher.stateOf(index);
    if (options.deadLetter === 'broker') dispatcher.finish(index, word, verdict.REJECT);
    else if (options.deadLetter === 'drop') dispatcher.finish(index, word, verdict.ACK);
    else if (why === 'failed') deadLetters?.add(index);
    else {
      deadLetters?.add(index, 'deaths', `${text} (${options.maxDeliveries} times, running this message alone)`);
    }
  }

  /** A message took its worker down, alone. */
  culprit(worker: number, index: number, error: Error, dead: boolean): void {
    const { memory, queueOf, onFailed } = this.#parts;
    const words = memory.slotWords;
    const at = index << slot.SHIFT;
    const { queue, deliveryTag } = readDeliver(memory.bytes, words[at + slot.OFFSET]!, queueOf);
    this.culprits++;
    const outcome = dead ? this.#deadOutcome : 'again';
    onFailed({ error, count: 1, worker, queue, deliveryTag, attempt: words[at + slot.ATTEMPTS]!, outcome });
  }

  /** A worker tells of a failure, or of how many more there were. */
  told(worker: number, message: FromWorker & { type: 'failed' | 'failures' }): void {
    const { onFailed } = this.#parts;
    if (message.type === 'failed') {
      const { type: _, error, outcome, ...rest } = message;
      const known = outcome === 'deadLetter' ? this.#deadOutcome : outcome;
      onFailed({ error: fromPortable(error), count: 1, worker, ...rest, outcome: known });
      return;
    }
    for (const [name, count] of Object.entries(message.counts)) {
      onFailed({ error: fromPortable({ name, message: `${count} more failures in a second` }), count, worker });
    }
  }

  /** A body over `maxMessageBytes` is here, for the dead letters. */
  tooLarge(index: number, bodySize: number): void {
    const { options, deadLetters } = this.#parts;
    deadLetters?.add(
      index,
      'tooLarge',
      `the body has ${bodySize} bytes; maxMessageBytes is ${options.maxMessageBytes}`,
    );
  }

  /** A body that is too large was not kept: settled as `oversizeOutcome` says, or left unsettled. */
  swallowed(bodySize: number, settled: boolean): void {
    const { maxMessageBytes, maxMemory, onDecodeError } = this.#parts.options;
    const details = { bodySize, maxMessageBytes, maxMemory };
    const text = `a body of ${bodySize} bytes came; maxMessageBytes is ${maxMessageBytes}, maxMemory ${maxMemory}`;
    const more = settled
      ? `: onDecodeError is '${onDecodeError}'`
      : '. It does not fit in memory to be dead-lettered; it stays unsettled: raise maxMemory, or set onDecodeError to reject it';
    this.#parts.onError(new MessageTooLarge(`${text}${more}`, { details }));
  }

  /** What "to the dead letters" means here. */
  get #deadOutcome(): FailureOutcome {
    const { deadLetter } = this.#parts.options;
    if (deadLetter === 'broker') return 'reject';
    return deadLetter === 'drop' ? 'drop' : 'deadLetter';
  }
}

/** What is said of a body over the limit without keeping it; undefined: it is kept, for the dead letters. */
export function oversizeOutcome({ onDecodeError, deadLetter }: ResolvedOptions): Outcome | undefined {
  const byBroker = onDecodeError === 'deadLetter' && deadLetter === 'broker';
  if (onDecodeError === 'reject' || byBroker) return verdict.REJECT;
  if (onDecodeError === 'requeue') return verdict.REQUEUE;
  if (onDecodeError === 'ack' || deadLetter === 'drop') return verdict.ACK;
  return undefined;
}
