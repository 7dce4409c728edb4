/**
 * The publishes of one worker thread, on their way to main's socket and back: gathered over a turn of the event loop, never more
 * than a window of them unconfirmed, each with its deadline. Main sends again what a lost connection left unconfirmed.
 *
 *   publish ──▶ waiting (the window is full) ──▶ gathered ── once a turn ──▶ main ──▶ broker
 *      ▲                                                                      │
 *      └────────────── resolves, or rejects ◀── once a turn ──────────────────┘
 */
import { whenAborted } from '../abort.js';
import { bufferOf } from '../codec/bytes.js';
import * as errors from '../errors.js';
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

/** Unconfirmed at a time. */
const WINDOW = 1024;
const WINDOW_BYTES = 8 * 1024 * 1024;
/** Of a turn; then they are posted. */
const MOST_GATHERED = 64;
/** Larger bodies cross in memory of their own. */
const LARGEST_PACKED = 16 * 1024;

interface Pending {
  readonly publication: Publication;
  readonly declare: readonly EntityFields[] | undefined;
  readonly deadline: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

type Post = (message: PublishBatch | PublishAbandoned, transfer: ArrayBuffer[]) => void;

export class Publisher {
  readonly #post: Post;
  /** Posted or gathered, by id. */
  readonly #unconfirmed = new Map<number, Pending>();
  readonly #waiting = new Set<Pending>();
  #bytes = 0;
  #lastId = 0;
  #gathered: number[] = [];
  #scheduled = false;
  #idle: (() => void)[] = [];

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
    return new Promise((resolve, reject) => {
      const pending: Pending = {
        publication,
        declare,
        deadline: performance.now() + timeout,
        resolve: () => {
          end();
          resolve();
        },
        reject: (error) => {
          end();
          reject(error);
        },
      };
      const giveUp = (error: unknown): void => {
        this.#abandon(pending);
        pending.reject(error);
      };
      const timer = setTimeout(() => giveUp(tooLate(publication, timeout)), timeout);
      const end = (): void => {
        clearTimeout(timer);
        unheard?.();
      };
      const unheard = signal?.aborted === false ? whenAborted(signal, () => giveUp(signal.reason)) : undefined;
      if (signal?.aborted) {
        pending.reject(signal.reason);
        return;
      }
      this.#waiting.add(pending);
      this.#fill();
    });
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    if (this.#waiting.size + this.#unconfirmed.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** What main says about those it was given. */
  answered({ confirmed, failed }: PublishAnswers): void {
    for (const id of confirmed) this.#forget(id)?.resolve();
    for (const failure of failed) this.#forget(failure.id)?.reject(rebuildError(failure.error));
    this.#fill();
  }

  #forget(id: number): Pending | undefined {
    const pending = this.#unconfirmed.get(id);
    if (pending === undefined) return undefined;
    this.#unconfirmed.delete(id);
    this.#bytes -= pending.publication.body.length;
    return pending;
  }

  #fill(): void {
    if (this.#waiting.size + this.#unconfirmed.size === 0) for (const rest of this.#idle.splice(0)) rest();
    for (const pending of this.#waiting) {
      const { length } = pending.publication.body;
      const fits = this.#unconfirmed.size < WINDOW && (this.#bytes === 0 || this.#bytes + length <= WINDOW_BYTES);
      if (!fits) return;
      this.#waiting.delete(pending);
      this.#lastId++;
      this.#unconfirmed.set(this.#lastId, pending);
      this.#bytes += length;
      this.#gathered.push(this.#lastId);
      // The first of a turn goes at once: what follows it may be a long computation.
      if (!this.#scheduled || this.#gathered.length >= MOST_GATHERED) this.flush();
      if (this.#scheduled) continue;
      this.#scheduled = true;
      setImmediate(this.#onTurn);
    }
  }

  readonly #onTurn = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  /** Posts what is gathered. */
  flush(): void {
    const ids = this.#gathered.filter((id) => this.#unconfirmed.has(id));
    this.#gathered = [];
    if (ids.length === 0) return;
    const packed = (length: number): number => (length > LARGEST_PACKED ? 0 : length);
    let size = 0;
    for (const id of ids) size += packed(this.#unconfirmed.get(id)!.publication.body.length);
    const bytes = new Uint8Array(size);
    const transfer: ArrayBuffer[] = [bytes.buffer];
    const now = performance.now();
    const requests: PublishRequest[] = [];
    let at = 0;
    for (const id of ids) {
      const { publication, declare, deadline } = this.#unconfirmed.get(id)!;
      const { exchange, routingKey, body, properties } = publication;
      const request = {
        id,
        exchange,
        routingKey,
        // A slice of a large buffer would take all of it along.
        properties: mapHeaderBytes(properties, (bytes) => Uint8Array.from(bytes)) as Readonly<Record<string, unknown>>,
        timeout: Math.max(1, deadline - now),
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
      this.#postSingly(ids, error);
    }
  }

  /** One of them cannot cross threads: the others are not to suffer for it. What was to be transferred still is here. */
  #postSingly(ids: readonly number[], error: unknown): void {
    if (ids.length === 1) {
      const text = `what is published cannot go to another thread: ${error instanceof Error ? error.message : String(error)}`;
      this.#forget(ids[0]!)?.reject(new errors.EncodeError(text, { cause: error }));
      return;
    }
    for (const id of ids) {
      this.#gathered = [id];
      this.flush();
    }
  }

  #abandon(pending: Pending): void {
    if (this.#waiting.delete(pending)) return;
    for (const [id, each] of this.#unconfirmed) {
      if (each !== pending) continue;
      this.#forget(id);
      this.#post({ type: 'abandoned', ids: [id] }, []);
      break;
    }
    this.#fill();
  }
}

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
