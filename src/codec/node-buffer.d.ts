/**
 * Methods that every Node Buffer has (`toString` is built on them) and @types/node leaves out. They skip `toString`'s
 * look-up of the encoding name, which is a third of the cost for short strings.
 */
interface Buffer<TArrayBuffer extends ArrayBufferLike = ArrayBufferLike> extends Uint8Array<TArrayBuffer> {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
  base64Slice(start: number, end: number): string;
  latin1Write(text: string, at: number, length: number): number;
  utf8Write(text: string, at: number, length: number): number;
}
