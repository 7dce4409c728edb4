/** One publish under way: what is to be written, until when, and whom to tell. */
import type { Link } from '../pool/chain.js';
import type { Publication, RetryPolicy } from '../pool/publication.js';
import { Timed } from '../pool/under-way.js';
import { tooLate } from './deadline.js';
import type { Exchange } from './entities/exchange.js';
import type { Queue } from './entities/queue.js';

export abstract class Submission extends Timed implements Publication {
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  readonly properties: Publication['properties'];
  readonly declare: readonly (Exchange | Queue)[];
  /** Absent: not sent again. With one it may wait for a connection as long as it likes. */
  readonly policy: RetryPolicy | undefined;
  /** Its place among those that cannot be written at once. */
  waiting: Link<Submission> | undefined;
  /** It was under way when the broker closed the channel, over this message or another: it goes with nothing beside it. */
  alone = false;
  /** How often it was sent again. */
  retries = 0;
  /** Why it was not taken the last time. */
  lastError: unknown;
  readonly #timeout: number;

  /** `timeout`: ms from its beginning, which was `waited` ms ago. */
  constructor(
    { exchange, routingKey, body, properties }: Publication,
    declare: readonly (Exchange | Queue)[],
    policy: RetryPolicy | undefined,
    timeout: number,
    signal?: AbortSignal,
    waited = 0,
  ) {
    super(timeout - waited, signal);
    this.exchange = exchange;
    this.routingKey = routingKey;
    this.body = body;
    this.properties = properties;
    this.declare = declare;
    this.policy = policy;
    this.#timeout = timeout;
  }

  /** Ends it: confirmed (undefined), or why not. Only the first call counts. What is not written yet will not be. */
  settle(error: unknown): void {
    if (!this.end()) return;
    this.waiting?.remove();
    this.ended(error);
  }

  protected abstract ended(error: unknown): void;

  aborted(reason: unknown): void {
    this.settle(reason);
  }

  late(): void {
    const doing = `publishing to exchange '${this.exchange}' with routing key '${this.routingKey}'`;
    this.settle(tooLate(doing, this.#timeout, this.lastError));
  }
}
