import type { Buffer } from 'node:buffer';

/**
 * Short ASCII strings that hardly ever change from message to message: compared with the last one octet by octet, which
 * costs a fifth of making a new string.
 */
export class LastSeen {
  #text = '';

  /** The octets of [start, end) as latin1. */
  read(bytes: Buffer, start: number, end: number): string {
    return this.known(bytes, start, end) ?? this.keep(bytes.latin1Slice(start, end));
  }

  /** The text kept last, if these are its octets. */
  known(bytes: Buffer, start: number, end: number): string | undefined {
    const text = this.#text;
    if (text.length !== end - start) return undefined;
    for (let i = 0; i < text.length; i++) if (bytes[start + i] !== text.charCodeAt(i)) return undefined;
    return text;
  }

  keep(text: string): string {
    this.#text = text;
    return text;
  }
}
