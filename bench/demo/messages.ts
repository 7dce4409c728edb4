/**
 * The messages of the demonstration: each follows from its number alone, so that two runs publish the same bytes.
 */
import type { Producer } from '#src/index';
import { FAIL_HEADER } from './names.js';
import { fingerprint } from './work.js';

const MIN_BYTES = 50;
const MAX_BYTES = 50_000;
const SERIALIZERS = ['json', 'msgpack'] as const;
const COMPRESSIONS = [undefined, 'zlib', 'zstd', 'lz4'] as const;
/** At most this many messages of each trouble: a few show as much as many. */
const MOST_OF_A_TROUBLE = 20;

/** A way in which a message goes wrong on purpose. */
export interface Trouble {
  readonly text: string;
  /** The error's name in the `failed` event. */
  readonly errorName: string;
  /** `x-mozuku-reason` of its dead letter. */
  readonly reason: 'failed' | 'decode';
  readonly publish: (producer: Producer, messageId: string) => Promise<void>;
}

function throwing(errorName: string): Trouble {
  return {
    text: 'thrown by the callback',
    errorName,
    reason: 'failed',
    publish: (producer, messageId) => producer.publish({}, { messageId, headers: { [FAIL_HEADER]: errorName } }),
  };
}

export const TROUBLES: readonly Trouble[] = [
  throwing('RangeError'),
  throwing('TypeError'),
  {
    text: 'the JSON is cut off',
    errorName: 'DecodeError',
    reason: 'decode',
    publish: (producer, messageId) =>
      producer.publish('{"content": "cut o', { messageId, contentType: 'application/json' }),
  },
  {
    text: 'the zlib stream is damaged',
    errorName: 'DecodeError',
    reason: 'decode',
    publish: (producer, messageId) =>
      producer.publish(Buffer.from('789c00000000', 'hex'), {
        messageId,
        contentType: 'application/json',
        contentEncoding: 'utf-8',
        headers: { compression: 'application/x-gzip' },
      }),
  },
  {
    text: 'YAML is not accepted',
    errorName: 'ContentDisallowed',
    reason: 'decode',
    publish: (producer, messageId) => producer.publish('a: 1', { messageId, contentType: 'application/x-yaml' }),
  },
];

/** Which of `count` messages go wrong and how: spread evenly, the kinds taking turns. */
export function troublesAmong(count: number): Map<number, Trouble> {
  const each = Math.max(1, Math.min(MOST_OF_A_TROUBLE, Math.floor(count / 1000)));
  const all = each * TROUBLES.length;
  const found = new Map<number, Trouble>();
  for (let i = 0; i < all; i++) found.set(Math.floor(((i + 0.5) * count) / all), TROUBLES[i % TROUBLES.length]!);
  return found;
}

/** A small generator of pseudo-random numbers from 0 to 1 (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Text that compresses about as well as people's: every content is a piece of it. */
function makeText(length: number): string {
  const next = random(1);
  const words = Array.from({ length: 2000 }, () => {
    const letters = Array.from({ length: 2 + Math.floor(next() * 8) }, () => 97 + Math.floor(next() * next() * 26));
    return String.fromCharCode(...letters);
  });
  let text = '';
  while (text.length < length) text += `${words[Math.floor(next() * next() * words.length)]} `;
  return text.slice(0, length);
}

const TEXT = makeText(4 * MAX_BYTES);

function contentFor(id: number): string {
  const next = random(id);
  // Every order of magnitude gets the same share.
  const length = Math.round(MIN_BYTES * (MAX_BYTES / MIN_BYTES) ** next());
  const start = Math.floor(next() * (TEXT.length - length));
  const head = `${id} `;
  return head + TEXT.slice(start, start + length - head.length);
}

/** Publishes message `id` and returns the fingerprint that its handler must find. */
export async function publishSound(producer: Producer, id: number): Promise<number> {
  const content = contentFor(id);
  const serializer = SERIALIZERS[id % SERIALIZERS.length]!;
  const compression = COMPRESSIONS[Math.floor(id / SERIALIZERS.length) % COMPRESSIONS.length];
  const body = { id, content: serializer === 'msgpack' ? Buffer.from(content) : content };
  await producer.publish(body, {
    serializer,
    messageId: String(id),
    ...(compression === undefined ? {} : { compression }),
  });
  return fingerprint(content);
}
