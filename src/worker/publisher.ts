/**
 * The publishes of one worker thread, on their way to main's socket and back: gathered over a turn of the event loop, never more
 * than a window of them unconfirmed, each with its deadline. Main sends again what a lost connection left unconfirmed.
 *
 *   publish ──▶ waiting (the window is full) ──▶ gathered ── once a turn ──▶ main ──▶ broker
 *      ▲                                                                      │
 *      └────────────── resolves, or rejects ◀── once a turn ──────────────────┘
 */
import { bufferOf } from '../codec/bytes.js';
import * as errors from '../errors.js';
import { Chain, type Link } from '../pool/chain.js';
import type { EntityFields } from '../pool/entity.js';
import { mapBytes, mapHeaderBytes } from '../pool/map-bytes.js';
import type { Publication } from '../pool/publication.js';
import type {
  PublishAbandoned,
  PublishAnswers,
  PublishBatch,
  PublishFailure,
  PublishRequest,
} from '../pool/publish-protocol.js';
import { Timed, UnderWay } from '../pool/under-way.js';

/** Unconfirmed at a time. */
const WINDOW = 1024;
const WINDOW_BYTES = 8 * 1024 * 1024;
/** Of a turn; then they are posted. */
const MOST_GATHERED = 64;
/** Larger bodies cross in memory of their own. */
const LARGEST_PACKED = 16 * 1024;

/** One publish under way. */
class Pending extends Timed {
  readonly publication: Publication;
  readonly declare: readonly EntityFields[] | undefined;
  readonly outcome: Promise<void>;
  /** Its place among those for which the window has no room. */
  waiting: Link<Pending> | undefined;
  /** Its place in the window; undefined before and after. */
  id: number | undefined;
  readonly timeout: number;
  readonly #publisher: Publisher;
  #resolve: () => void = NEVER;
  #reject: (error: unknown) => void = NEVER;

  constructor(
    publisher: Publisher,
    publication: Publication,
    declare: readonly EntityFields[] | undefined,
    timeout: number,
    signal: AbortSignal | undefined,
  ) {
    super(timeout, signal);
    this.#publisher = publisher;
    this.publication = publication;
    this.declare = declare;
    this.timeout = timeout;
    this.outcome = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Confirmed (undefined), or why not. Only the first call counts. */
  settle(error: unknown): void {
    if (!this.end()) return;
    if (error === undefined) this.#resolve();
    else this.#reject(error);
  }

  late(): void {
    this.aborted(tooLate(this.publication, this.timeout));
  }

  aborted(reason: unknown): void {
    this.#publisher.abandon(this);
    this.settle(reason);
  }
}

const NEVER = (): void => undefined;

type Post = (message: PublishBatch | PublishAbandoned, transfer: ArrayBuffer[]) => void;

export class Publisher {
  readonly #post: Post;
  readonly #underWay = new UnderWay();
  readonly #waiting = new Chain<Pending>();
  /** Posted or gathered: an id is a place in here plus a multiple of its length. */
  readonly #window = new Array<Pending | undefined>(WINDOW).fill(undefined);
  /** The ids that are next in places that are free. */
  readonly #free = Array.from({ length: WINDOW }, (_, place) => place);
  #bytes = 0;
  #gathered: Pending[] = [];
  #scheduled = false;

  constructor(post: Post) {
    this.#post = post;
  }

  /** Resolves when the broker has confirmed it. Rejects with what a producer on main would, `TimeoutError` after `timeout` ms. */
  publish(
    publication: Publication,
    declare: readonly EntityFields[] | undefined,
    timeout: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    const pending = new Pending(this, publication, declare, timeout, signal);
    pending.beginIn(this.#underWay);
    if (this.#waiting.size === 0 && this.#fits(pending)) this.#gather(pending);
    else pending.waiting = this.#waiting.push(pending);
    return pending.outcome;
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    return this.#underWay.idle();
  }

  /** What main says about those it was given. */
  answered({ confirmed, failed }: PublishAnswers): void {
    for (const id of confirmed) this.#forget(id)?.settle(undefined);
    for (const failure of failed) this.#forget(failure.id)?.settle(rebuildError(failure.error));
    this.#fill();
  }

  #forget(id: number): Pending | undefined {
    const place = id % WINDOW;
    const pending = this.#window[place];
    if (pending?.id !== id) return undefined;
    this.#window[place] = undefined;
    this.#free.push(id + WINDOW);
    pending.id = undefined;
    this.#bytes -= pending.publication.body.length;
    return pending;
  }

  #fits({ publication }: Pending): boolean {
    return this.#free.length > 0 && (this.#bytes === 0 || this.#bytes + publication.body.length <= WINDOW_BYTES);
  }

  #fill(): void {
    for (let next = this.#waiting.first; next !== undefined && this.#fits(next); next = this.#waiting.first) {
      next.waiting!.remove();
      this.#gather(next);
    }
  }

  #gather(pending: Pending): void {
    const id = this.#free.pop()!;
    pending.id = id;
    this.#window[id % WINDOW] = pending;
    this.#bytes += pending.publication.body.length;
    this.#gathered.push(pending);
    // The first of a turn goes at once: what follows it may be a long computation.
    if (!this.#scheduled || this.#gathered.length >= MOST_GATHERED) this.flush();
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#onTurn);
  }

  readonly #onTurn = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  /** Posts what is gathered. */
  flush(): void {
    const batch = this.#gathered.filter(({ id }) => id !== undefined);
    this.#gathered = [];
    if (batch.length === 0) return;
    let size = 0;
    for (const { publication } of batch) size += packed(publication.body.length);
    const bytes = new Uint8Array(size);
    const transfer: ArrayBuffer[] = [bytes.buffer];
    const now = performance.now();
    const requests: PublishRequest[] = [];
    let at = 0;
    for (const { id, publication, declare, timeout, deadline } of batch) {
      const { exchange, routingKey, body, properties } = publication;
      const request = {
        id: id!,
        exchange,
        routingKey,
        // A slice of a large buffer would take all of it along.
        properties: mapHeaderBytes(properties, (bytes) => Uint8Array.from(bytes)) as Readonly<Record<string, unknown>>,
        timeout,
        waited: timeout - (deadline - now),
        ...(declare !== undefined && { declare }),
      };
      if (body.length > LARGEST_PACKED) {
        const own = new Uint8Array(body).buffer;
        transfer.push(own);
        requests.push({ ...request, start: 0, length: body.length, own });
      } else {
        bytes.set(body, at);
        requests.push({ ...request, start: at, length: body.length });
        at += body.length;
      }
    }
    try {
      this.#post({ type: 'publish', bytes: bytes.buffer, requests }, transfer);
    } catch (error) {
      this.#postSingly(batch, error);
    }
  }

  /** One of them cannot cross threads: the others are not to suffer for it. What was to be transferred still is here. */
  #postSingly(batch: readonly Pending[], error: unknown): void {
    const [only] = batch;
    if (only?.id !== undefined && batch.length === 1) {
      const text = `what is published cannot go to another thread: ${error instanceof Error ? error.message : String(error)}`;
      this.#forget(only.id)?.settle(new errors.EncodeError(text, { cause: error }));
      return;
    }
    for (const pending of batch) {
      this.#gathered = [pending];
      this.flush();
    }
  }

  /** @internal Of `Pending`: nobody waits for it any more. */
  abandon(pending: Pending): void {
    if (pending.waiting?.remove() === true) return;
    const { id } = pending;
    if (id === undefined) return;
    this.#forget(id);
    this.#post({ type: 'abandoned', ids: [id] }, []);
    this.#fill();
  }
}

const packed = (length: number): number => (length > LARGEST_PACKED ? 0 : length);

function tooLate({ exchange, routingKey }: Publication, timeout: number): errors.TimeoutError {
  const doing = `publishing to exchange '${exchange}' with routing key '${routingKey}'`;
  return new errors.TimeoutError(`${doing}: no answer within ${Math.round(timeout)} ms`, {
    details: { milliseconds: timeout },
  });
}

type ErrorClass = new (message: string, options?: errors.ErrorOptionsWithDetails) => errors.KombuError;

/** An error of main's, of the same class here. */
function rebuildError({ name, message, cause, details }: PublishFailure['error']): errors.KombuError {
  const known = (errors as unknown as Record<string, ErrorClass | undefined>)[name] ?? errors.OperationalError;
  return new known(message, {
    ...(details !== undefined && { details: mapBytes(details, bufferOf) as Readonly<Record<string, unknown>> }),
    ...(cause !== undefined && { cause: rebuildError(cause) }),
  });
}
