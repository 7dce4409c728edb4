/**
 * What every decoding error says besides its reason: which codec, which content type, how many bytes. So a log line alone
 * tells what arrived; the body itself is never quoted.
 */
import { DecodeError, MessageTooLarge } from '../errors.js';

export interface DecodeFacts {
  /** The length of the body as it arrived. */
  readonly bytes: number;
  readonly contentType?: string | undefined;
  readonly contentEncoding?: string | undefined;
  readonly serializer?: string | undefined;
  /** As the header names it. */
  readonly compression?: string | undefined;
  readonly decompressedBytes?: number | undefined;
}

/** The error with these facts in its text and details, of the same class. Errors of other classes are left alone. */
export function inContext(error: unknown, facts: DecodeFacts): unknown {
  if (!(error instanceof DecodeError)) return error;
  const told: Record<string, unknown> = { ...error.details };
  const words: string[] = [];
  for (const [name, value] of Object.entries(facts)) {
    if (value === undefined || name in told) continue;
    told[name] = value;
    if (name === 'bytes') words.push(`${value} bytes`);
    else if (name === 'contentType') words.push(`content type '${value}'`);
    else if (name === 'compression') words.push(`compression '${value}'`);
    else if (name === 'decompressedBytes') words.push(`decompressed ${value}`);
  }
  // What is known already is in the text already.
  const text = words.length === 0 ? error.message : `${error.message} (${words.join(', ')})`;
  const ErrorClass = error instanceof MessageTooLarge ? MessageTooLarge : DecodeError;
  const result = new ErrorClass(text, { cause: error.cause, details: told });
  if (error.stack !== undefined) result.stack = error.stack.replace(error.message, text);
  return result;
}
