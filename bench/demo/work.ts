/** What the callback does with a message, on whichever thread: the same code for the workers and for the comparison. */
import { createHash } from 'node:crypto';

/** Hashing a message so often takes some 100 to 200 µs on average: enough for threads to pay, little enough to show overhead. */
const ROUNDS = 20;

const digest = (content: string | Uint8Array): Buffer => createHash('sha256').update(content).digest();

/** The first four bytes of the content's SHA-256: what publisher and handlers compare. */
export function fingerprint(content: string | Uint8Array): number {
  return digest(content).readUInt32BE();
}

/** The expensive part. Returns the content's fingerprint. */
export function work(content: string | Uint8Array): number {
  const first = digest(content);
  let last = first;
  for (let round = 1; round < ROUNDS; round++) last = createHash('sha256').update(last).update(content).digest();
  // Uses the result, so that no engine may leave the rounds out.
  if (last.length !== first.length) throw new Error('a digest of another length');
  return first.readUInt32BE();
}

/** The content of a decoded body: text in json, bytes in msgpack. */
export function contentOf(body: unknown, id: number): string | Uint8Array {
  const { id: inside, content } = body as { id: number; content: string | Uint8Array };
  if (inside !== id) throw new Error(`message ${id} has the body of message ${inside}`);
  return content;
}
