/**
 * Text to bytes and back, by what a message's content encoding names. Both directions know the same names, and neither
 * loses anything: text that a charset cannot hold, and bytes that are no text in it, are errors.
 */
import { Buffer, isAscii, isUtf8 } from 'node:buffer';
import { TextDecoder } from 'node:util';
import { DecodeError, EncodeError } from '../errors.js';

type Charset = 'utf-8' | 'utf-8-sig' | 'us-ascii' | 'latin1' | 'utf-16' | 'utf-16le' | 'utf-16be';

/** As Python, MIME and Node write them. What is not here can be read, if the platform knows it (TextDecoder), not written. */
const CHARSETS: ReadonlyMap<string, Charset> = new Map([
  ['utf-8', 'utf-8'],
  ['utf8', 'utf-8'],
  ['u8', 'utf-8'],
  ['utf', 'utf-8'],
  ['cp65001', 'utf-8'],
  ['utf-8-sig', 'utf-8-sig'],
  ['us-ascii', 'us-ascii'],
  ['ascii', 'us-ascii'],
  ['646', 'us-ascii'],
  ['us', 'us-ascii'],
  ['latin1', 'latin1'], // not TextDecoder's, which takes this and most of the next to mean windows-1252
  ['latin-1', 'latin1'],
  ['latin', 'latin1'],
  ['l1', 'latin1'],
  ['iso-8859-1', 'latin1'],
  ['iso8859-1', 'latin1'],
  ['iso88591', 'latin1'],
  ['iso8859', 'latin1'],
  ['8859', 'latin1'],
  ['iso-8859-1:1987', 'latin1'],
  ['iso-8859-1-1987', 'latin1'],
  ['iso-ir-100', 'latin1'],
  ['csisolatin1', 'latin1'],
  ['cp819', 'latin1'],
  ['ibm819', 'latin1'],
  ['utf-16', 'utf-16'],
  ['utf16', 'utf-16'],
  ['u16', 'utf-16'],
  ['utf-16le', 'utf-16le'],
  ['utf-16-le', 'utf-16le'],
  ['utf16le', 'utf-16le'],
  ['ucs-2', 'utf-16le'],
  ['ucs2', 'utf-16le'],
  ['utf-16be', 'utf-16be'],
  ['utf-16-be', 'utf-16be'],
  ['utf16be', 'utf-16be'],
]);

/** Python's names, and ours for them, of charsets that TextDecoder knows under another. */
const READ_AS: ReadonlyMap<string, string> = new Map([
  ['latin9', 'iso-8859-15'],
  ['cp932', 'shift_jis'],
  ['cp936', 'gbk'],
  ['cp949', 'euc-kr'],
  ['cp950', 'big5'],
  ['euckr', 'euc-kr'],
  ['eucjp', 'euc-jp'],
  ['iso2022-jp', 'iso-2022-jp'],
  ['mac-roman', 'macintosh'],
  ['mac-cyrillic', 'x-mac-cyrillic'],
]);

/**
 * What windows-1252 has in place of latin1's control characters from 0x80 on; a space: nothing. It is read here, because
 * TextDecoder of Node 20 takes it for latin1.
 */
const WINDOWS_1252 = '€ ‚ƒ„…†‡ˆ‰Š‹Œ Ž  ‘’“”•–—˜™š›œ žŸ';
const WINDOWS_1252_NAMES: ReadonlySet<string> = new Set(['windows-1252', 'cp1252', 'x-cp1252', '1252']);

/** Whether the content encoding says that the body is bytes and no text. */
export const isBinary = (encoding: string): boolean => encoding === 'binary' || encoding === 'ascii-8bit';

/** Whether a body in it is UTF-8 as well: ASCII is. */
export function isUtf8Name(encoding: string): boolean {
  const charset = CHARSETS.get(encoding);
  return charset === 'utf-8' || charset === 'us-ascii';
}

/** A content encoding as the other functions want it; in place of one, what the content type says, else utf-8. */
export function encodingOf(contentType: string | undefined, contentEncoding: string | undefined): string {
  if (contentEncoding) return contentEncoding.toLowerCase().replaceAll('_', '-');
  const parameter = contentType?.includes(';') ? /;\s*charset="?([^\s";]+)/i.exec(contentType)?.[1] : undefined;
  return parameter === undefined ? 'utf-8' : encodingOf(undefined, parameter);
}

/** Throws `DecodeError`. */
export function decodeUtf8(body: Buffer): string {
  // latin1Slice after an ASCII check saves a fifth of this at 64 KiB and costs more at 200 B; parsing takes 50 times both.
  const text = body.utf8Slice(0, body.length);
  // What is not UTF-8 becomes U+FFFD, so only a text that has one needs a second look.
  if (text.includes('\ufffd') && !isUtf8(body)) throw new DecodeError('the body is not valid UTF-8');
  return text;
}

/**
 * Reads text. `us-ascii` is read as UTF-8, which senders mean by it; `utf-8-sig` without its byte order mark; `utf-16` by
 * its byte order mark, little endian without one. Throws `DecodeError`, also for a name that is no charset.
 */
export function decodeText(body: Buffer, encoding: string): string {
  const charset = CHARSETS.get(encoding);
  if (charset === 'utf-8' || charset === 'us-ascii') return decodeUtf8(body);
  if (charset === 'latin1') return body.toString('latin1');
  if (charset === 'utf-8-sig') return decodeUtf8(body).replace(/^\ufeff/, '');
  if (charset === 'utf-16') {
    const mark = body.length < 2 ? 0 : body.readUInt16LE(0);
    if (mark === 0xfeff) return decodeBy('utf-16le', body.subarray(2));
    if (mark === 0xfffe) return decodeBy('utf-16be', body.subarray(2));
    return decodeBy('utf-16le', body);
  }
  if (WINDOWS_1252_NAMES.has(encoding)) return decodeWindows1252(body);
  return decodeBy(charset ?? READ_AS.get(encoding) ?? encoding, body);
}

function decodeWindows1252(body: Buffer): string {
  return body.toString('latin1').replace(/[\x80-\x9f]/g, (control) => {
    const character = WINDOWS_1252[control.charCodeAt(0) - 0x80]!;
    if (character === ' ') throw new DecodeError('the body is not valid windows-1252');
    return character;
  });
}

function decodeBy(label: string, body: Buffer): string {
  let decoder: TextDecoder;
  try {
    decoder = new TextDecoder(label, { fatal: true, ignoreBOM: true });
  } catch (error) {
    throw new DecodeError(`unknown content encoding '${label}': it is neither a charset nor 'binary'`, {
      cause: error,
      details: { contentEncoding: label },
    });
  }
  try {
    return decoder.decode(Buffer.from(body)); // a copy: web interfaces may refuse shared memory
  } catch (error) {
    throw new DecodeError(`the body is not valid ${label}`, { cause: error });
  }
}

/**
 * Writes text, so that `decodeText` gives the same again. Throws `EncodeError`: a name that is no charset or is one that
 * is not written here, or text that has no form in it (half a surrogate pair has none in any).
 */
export function encodeText(text: string, contentEncoding: string): Buffer {
  const charset = CHARSETS.get(contentEncoding) ?? CHARSETS.get(encodingOf(undefined, contentEncoding));
  if (charset === undefined) {
    throw new EncodeError(
      `text cannot be written as '${contentEncoding}': give the bytes, or name one of ${[...new Set(CHARSETS.values())].join(', ')}`,
      { details: { contentEncoding } },
    );
  }
  // Buffer.from cuts what does not fit, and says nothing.
  const fits = charset === 'latin1' ? !/[^\0-\xff]/.test(text) : text.isWellFormed();
  const marked = charset === 'utf-16' || charset === 'utf-8-sig';
  const bytes = Buffer.from(marked ? `\ufeff${text}` : text, NODE_NAMES[charset]);
  if (!fits || (charset === 'us-ascii' && !isAscii(bytes))) {
    throw new EncodeError(`the text has characters that '${contentEncoding}' cannot say`, {
      details: { contentEncoding },
    });
  }
  return charset === 'utf-16be' ? bytes.swap16() : bytes;
}

const NODE_NAMES = {
  'utf-8': 'utf8',
  'utf-8-sig': 'utf8', // with a byte order mark, as Python, and utf-16 too
  'us-ascii': 'utf8',
  latin1: 'latin1',
  'utf-16': 'utf16le',
  'utf-16le': 'utf16le',
  'utf-16be': 'utf16le',
} as const;
