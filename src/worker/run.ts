/**
 * One message on its way through a callback: where its bytes are, what it was settled as, when it began.
 */
import { MessageStateError } from '../errors.js';
import { Message, type Outcome } from '../message.js';
import type { Link } from '../pool/chain.js';
import type { Delivery } from '../pool/delivery.js';
import { verdict } from '../pool/layout.js';
import type { MessageContext } from './context.js';

export interface RunOwner {
  /** The callback settled its message itself. */
  settledByCallback(run: Run, outcome: Outcome): void;
}

export const verdictOf: Readonly<Record<Outcome, number>> = {
  ack: verdict.ACK,
  reject: verdict.REJECT,
  requeue: verdict.REQUEUE,
};

export class Run {
  readonly message: Message;
  /** Its place among those that are not settled. */
  link: Link<Run> | undefined;
  row = -1;
  startedAt = 0;
  settled = false;
  /** The callback returned, failed or was given up. */
  ended = false;
  /** The callback itself is over, given up or not. */
  returned = false;
  /** Its signal was aborted because its delivery is void or the consumer closes: no failure of its own. */
  handedBack = false;

  constructor(
    readonly index: number,
    readonly delivery: Delivery,
    readonly context: MessageContext,
    readonly generation: number,
    owner: RunOwner,
  ) {
    this.message = new Message(delivery, (outcome, multiple) => {
      if (multiple) {
        throw new MessageStateError(
          'ack({ multiple: true }) cannot work on a worker thread: the deliveries before this one may belong to other workers',
        );
      }
      owner.settledByCallback(this, outcome);
    });
  }
}
