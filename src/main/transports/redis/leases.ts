/**
 * The deliveries that one consumer has taken and not settled: their leases are renewed for as long as it lives, and what was
 * settled is told to the server until it has heard it. Both may be said twice, and both outlive a connection: the server knows a
 * delivery by its tag, not by its socket.
 *
 *   taken ──▶ renewed every third of the visibility timeout ──▶ acked, or put back ──told──▶ forgotten
 */
import { rewriteEnvelope } from '../../../codec/envelope.js';
import { DecodeError, type KombuError, PreconditionFailed } from '../../../errors.js';
import { withDeadline } from '../../deadline.js';
import type { Client } from './client.js';
import { errorFromRedis, errorOfReply } from './errors.js';
import type { Keys } from './keys.js';
import type { Lasting } from './lasting.js';

/** Of one script: Lua takes no more than a few thousand arguments. */
const MOST = 1000;
const TELL_TIMEOUT = 30_000;
/** After this many ms the server is told again what it refused: it may have room, or be able to save, by then. */
const TELL_AGAIN = 1000;

interface Returned {
  readonly tag: string;
  readonly list: string;
  readonly envelope: Buffer;
}

export class Leases {
  readonly #keys: Keys;
  readonly #lasting: Lasting;
  readonly #onError: (error: KombuError) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #held = new Set<string>();
  #client: Client | undefined;
  #acked: string[] = [];
  #returned: Returned[] = [];
  #telling: Promise<void> | undefined;
  /** Told, and not heard yet: with the connection it may be lost. */
  #unheard = 0;
  #again: NodeJS.Timeout | undefined;
  /** What it was that could not be told last: told once, until something can be told again. */
  #failure = '';
  /** Leases that were over when they were to be renewed: somebody else may have these messages. */
  lost = 0;

  /** Nothing is held, and nothing is to be told. */
  get isIdle(): boolean {
    return this.#held.size === 0 && this.untold === 0;
  }

  /** `visibilityTimeout`: ms. `onError` hears what was not told; it is told again to the next client. */
  constructor(keys: Keys, lasting: Lasting, visibilityTimeout: number, onError: (error: KombuError) => void) {
    this.#keys = keys;
    this.#lasting = lasting;
    this.#onError = onError;
    this.#timer = setInterval(() => this.#onTime(), Math.max(10, visibilityTimeout / 3));
    this.#timer.unref();
  }

  /** Told to nobody yet, or not heard. */
  get untold(): number {
    return this.#acked.length + this.#returned.length + this.#unheard;
  }

  attach(client: Client): void {
    this.#client = client;
    void this.#renew();
    this.flush();
  }

  detach(): void {
    this.#client = undefined;
  }

  taken(tag: string): void {
    this.#held.add(tag);
  }

  ack(tag: string): void {
    this.#held.delete(tag);
    this.#acked.push(tag);
  }

  /** To the front of its list; of several that are told together the first will be first. */
  putBack(tag: string, list: string, envelope: Buffer): void {
    this.#held.delete(tag);
    this.#returned.push({ tag, list, envelope: redelivered(envelope) });
  }

  /** Tells what is to be told, if there is somebody to tell it to. */
  flush(): void {
    if (this.#telling !== undefined || this.#client === undefined || this.untold === 0) return;
    this.#telling = this.#tell().finally(() => {
      this.#telling = undefined;
    });
  }

  /** Resolves when all is told, or cannot be now. */
  async told(): Promise<void> {
    this.flush();
    await this.#telling;
  }

  close(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#again);
  }

  #onTime(): void {
    void this.#renew();
    // What the server refused before it may take now.
    this.flush();
  }

  /** Never rejects. */
  async #tell(): Promise<void> {
    const { unacked, unackedIndex } = this.#keys;
    for (let client = this.#client; client !== undefined && this.untold > 0; client = this.#client) {
      const acked = this.#acked.splice(0, MOST);
      // The last ones first, for each goes in front of those before it.
      const returned = this.#returned.splice(-MOST / 2);
      this.#unheard = acked.length + returned.length;
      try {
        const asked: Promise<unknown>[] = [];
        if (acked.length > 0) asked.push(client.mozukuAck(2, unacked, unackedIndex, ...acked));
        if (returned.length > 0) asked.push(this.#putBack(client, returned));
        await withDeadline(Promise.all(asked), 'settling deliveries', TELL_TIMEOUT);
        this.#failure = '';
      } catch (cause) {
        this.#acked = [...acked, ...this.#acked];
        this.#returned = [...this.#returned, ...returned];
        // That connection is gone; over another one it is told again.
        if (this.#client !== client) continue;
        clearTimeout(this.#again);
        this.#again = setTimeout(() => this.flush(), TELL_AGAIN).unref();
        const error = errorFromRedis(cause, `settling deliveries in '${unacked}'`);
        if (error.message === this.#failure) return;
        this.#failure = error.message;
        this.#onError(error);
        return;
      } finally {
        this.#unheard = 0;
      }
    }
  }

  async #putBack(client: Client, returned: readonly Returned[]): Promise<void> {
    const { unacked, unackedIndex } = this.#keys;
    const reversed = [...returned].reverse();
    const lists = reversed.map(({ list }) => list);
    const what = reversed.flatMap(({ tag, list, envelope }) => [
      tag,
      envelope,
      this.#lasting.get(this.#keys.queueOf(list)) ?? '',
    ]);
    const [, ...failed] = await client.mozukuPutBackBuffer(
      2 + lists.length,
      ...[unacked, unackedIndex, ...lists, '', ...what],
    );
    for (let i = 0; i < failed.length; i += 2) {
      const { list } = reversed[(failed[i] as number) - 1]!;
      const error = errorOfReply(failed[i + 1] as Buffer, `putting a delivery back into '${list}'`);
      // It stays recorded, and is looked at again when its lease is over. Of anything else all is asked again.
      if (!(error instanceof PreconditionFailed)) throw error;
      this.#onError(error);
    }
  }

  /** Never rejects. */
  async #renew(): Promise<void> {
    const client = this.#client;
    if (client === undefined || this.#held.size === 0) return;
    const tags = [...this.#held];
    try {
      for (let at = 0; at < tags.length; at += MOST) {
        const some = tags.slice(at, at + MOST).filter((tag) => this.#held.has(tag));
        if (some.length === 0) continue;
        const lost = await client.mozukuRenew(1, this.#keys.unackedIndex, ...some);
        for (const tag of lost) if (this.#held.delete(tag)) this.lost++;
      }
    } catch (error) {
      if (this.#client === client)
        this.#onError(errorFromRedis(error, `renewing leases in '${this.#keys.unackedIndex}'`));
    }
  }
}

/** One that cannot be read goes back as it is. */
function redelivered(envelope: Buffer): Buffer {
  try {
    return rewriteEnvelope(envelope, { redelivered: true });
  } catch (error) {
    if (error instanceof DecodeError) return envelope;
    throw error;
  }
}
