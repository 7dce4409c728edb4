/** What every codec needs of the values it is given. */
import { Buffer } from 'node:buffer';
import { types } from 'node:util';

/** The bytes as a `Buffer`, over the same memory. */
export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** What an error says, whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * What kind of object this is, if it is one whose content no serializer sees: written field by field it would arrive as
 * an empty object. Undefined: it is not one of these. Python refuses what it has no form for as well.
 */
export function formless(value: object): string | undefined {
  if (types.isPromise(value)) return 'a Promise (await it first)';
  if (types.isNativeError(value)) return 'an Error (send its message)';
  if (types.isRegExp(value)) return 'a RegExp (send its source)';
  if (types.isAnyArrayBuffer(value) || types.isDataView(value)) return 'an ArrayBuffer (send a Buffer over it)';
  if (types.isWeakMap(value) || types.isWeakSet(value)) return 'a weak collection';
  return undefined;
}

/** What a function of the user's gave, unless it is a promise, which nobody would wait for. */
export function settled<T>(result: T): T {
  if (!types.isPromise(result)) return result;
  // Its rejection would be nobody's, and end the process; that there is one is told here.
  result.catch(() => undefined);
  throw new TypeError('it gave a promise, and must give its result at once');
}
