/** The error of every decoder whose output would pass the limit. */
import { MessageTooLarge } from '../../errors.js';

export function tooLarge(maxBytes: number, cause?: unknown): MessageTooLarge {
  return new MessageTooLarge(`the body decompresses to more than maxDecodedBytes allows (${maxBytes} bytes)`, {
    cause,
    details: { limit: 'maxDecodedBytes', maxBytes },
  });
}
