/**
 * Who compresses and decompresses single zstd frames: `node:zlib` where it can (Node 22.15, 23.8 and later), else the
 * package `zstd-codec`, which is zstd 1.4 compiled to WebAssembly.
 *
 * Of `zstd-codec` only the compiled code is used, not its interface: that is ready a tick after it was asked for, has no
 * output limit, keeps a message's length of memory twice, and answers damage with null or an empty result. Its memory
 * is 16 MiB for good, so long bodies go through in pieces.
 */
import { Buffer } from 'node:buffer';
import { readFileSync } from 'node:fs';
import zlib from 'node:zlib';
import { DecodeError, EncodeError } from '../../errors.js';
import { load, locate, type Optional, once } from '../optional.js';
import { damageOf } from './damage.js';
import { tooLarge } from './limit.js';
import { withContentSize, type ZstdFrame } from './zstd-frames.js';

const { damaged } = damageOf('zstd', 'frame');

export interface ZstdBackend {
  readonly name: 'node:zlib' | 'zstd-codec';
  /** Decodes one whole frame. `maxBytes` bounds what it may hold. */
  decode(bytes: Buffer, frame: ZstdFrame, maxBytes: number): Uint8Array;
  /** Writes one frame that says how long its content is. */
  encode(body: Buffer): Uint8Array;
}

/** What @types/node for Node 20 does not have. */
interface ZstdZlib {
  zstdCompressSync(body: Buffer, options: object): Buffer;
  zstdDecompressSync(bytes: Buffer, options: object): Buffer;
}

const MIB = 1024 * 1024;
/** What libzstd itself takes as a decoder's limit unless told otherwise. */
const NODE_MAX_WINDOW = 128 * MIB;
/** Nothing larger fits beside the input in 16 MiB. */
const CODEC_MAX_WINDOW = 8 * MIB;

function checkWindow({ windowSize }: ZstdFrame, limit: number, hint: string): void {
  if (windowSize <= limit) return;
  throw new DecodeError(
    `zstd: the frame needs a window of ${windowSize} bytes, more than the ${limit} that are possible${hint}`,
    { details: { windowSize, limit } },
  );
}

const node = once((): ZstdBackend => {
  const { zstdCompressSync, zstdDecompressSync } = zlib as unknown as Partial<ZstdZlib>;
  if (zstdCompressSync === undefined || zstdDecompressSync === undefined) {
    throw new Error(`Node ${process.versions.node} has none (22.15 and later have)`);
  }
  return {
    name: 'node:zlib',
    decode: (bytes, frame, maxBytes) => {
      // One segment: the output is the window, so the content size, checked before, bounds it.
      checkWindow(frame, Math.max(NODE_MAX_WINDOW, maxBytes), '');
      const expected = frame.contentSize < 0 ? frame.possible : frame.contentSize;
      const chunkSize = Math.min(Math.max(expected, 1024), 256 * 1024);
      try {
        return zstdDecompressSync(bytes, { maxOutputLength: Math.max(maxBytes, 1), chunkSize });
      } catch (error) {
        const { code, message } = error as { code?: unknown; message?: unknown };
        if (code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(maxBytes, error);
        throw new DecodeError(`zstd: ${message}`, { cause: error });
      }
    },
    encode: (body) => zstdCompressSync(body, { pledgedSrcSize: body.length }),
  };
});

// The compiled code, as Emscripten's glue shows it.
interface Vector {
  resize(size: number, fill: number): void;
  delete(): void;
}
interface DecoderStream {
  begin(): boolean;
  transform(chunk: Uint8Array, take: (piece: Uint8Array) => void): boolean;
  end(take: (piece: Uint8Array) => void): boolean;
  delete(): void;
}
interface EncoderStream extends Omit<DecoderStream, 'begin'> {
  begin(level: number): boolean;
}
interface Binding {
  readonly VectorU8: new () => Vector;
  readonly ZstdCodec: new () => {
    compress(to: Vector, from: Vector, level: number): number;
    decompress(to: Vector, from: Vector): number;
    compressBound(size: number): number;
  };
  readonly ZstdDecompressStreamBinding: new () => DecoderStream;
  readonly ZstdCompressStreamBinding: new () => EncoderStream;
  cloneToVector(to: Vector, bytes: Uint8Array): void;
  /** A view of the compiled code's memory. */
  toTypedArrayView(vector: Vector): Uint8Array;
}

/** The little of WebAssembly that is used here: @types/node has none of it. */
type Imports = Record<string, Record<string, unknown>>;
interface Instance {
  readonly exports: Readonly<Record<string, unknown>>;
}
const { WebAssembly } = globalThis as unknown as {
  WebAssembly: {
    Module: new (code: Uint8Array) => object;
    Instance: new (module: object, imports: Imports) => Instance;
  };
};

const LEVEL = 3;
/** Both ways: over this length, in pieces. */
const AT_ONCE = 1 * MIB;
const PIECE = 128 * 1024;
const BINDING = 'zstd-codec/lib/zstd-codec-binding-wasm.js';

/**
 * The glue compiles the code asynchronously, unless it is handed an instance: a message is here now. The code is text
 * inside the glue's own file.
 */
function instantiate(): Binding {
  const file = readFileSync(locate(BINDING), 'latin1');
  const code = /wasmBinaryFile="data:application\/octet-stream;base64,([A-Za-z0-9+/=]+)"/.exec(file)?.[1];
  if (code === undefined) throw new Error('this version of zstd-codec is not known here');
  const module = new WebAssembly.Module(Buffer.from(code, 'base64'));
  let ready = false;
  const silent = (): void => undefined; // it writes to the console when its memory is full, and throws as well
  const binding = {
    print: silent,
    printErr: silent,
    instantiateWasm(imports: Imports, done: (instance: Instance) => void) {
      const instance = new WebAssembly.Instance(module, imports);
      done(instance);
      return instance.exports;
    },
    onRuntimeInitialized() {
      ready = true;
    },
  };
  (load(BINDING) as (target: object) => unknown)(binding);
  if (!ready) throw new Error('zstd-codec did not start');
  return binding as unknown as Binding;
}

const codec = once((): ZstdBackend => {
  const binding = instantiate();
  const simple = new binding.ZstdCodec();

  function withVectors<T>(run: (to: Vector, from: Vector) => T): T {
    const to = new binding.VectorU8();
    const from = new binding.VectorU8();
    try {
      return run(to, from);
    } finally {
      to.delete();
      from.delete();
    }
  }

  function decodeAtOnce(bytes: Buffer, size: number): Buffer {
    return withVectors((to, from) => {
      binding.cloneToVector(from, bytes);
      to.resize(size, 0);
      if (simple.decompress(to, from) !== size) throw damaged('the frame');
      return Buffer.from(binding.toTypedArrayView(to));
    });
  }

  function decodeInPieces(bytes: Buffer, { start, cuts }: ZstdFrame, maxBytes: number): Buffer {
    const stream = new binding.ZstdDecompressStreamBinding();
    const pieces: Buffer[] = [];
    let length = 0;
    // Throwing through the compiled code would leave its memory as it is: what is too much is dropped here, then thrown.
    const take = (piece: Uint8Array): void => {
      length += piece.length;
      if (length <= maxBytes) pieces.push(Buffer.from(piece));
    };
    try {
      if (!stream.begin()) throw damaged('the frame');
      let at = 0;
      for (const cut of cuts) {
        for (const end = cut - start; at < end; at = Math.min(at + PIECE, end)) {
          if (!stream.transform(bytes.subarray(at, Math.min(at + PIECE, end)), take)) throw damaged('the frame');
          if (length > maxBytes) throw tooLarge(maxBytes);
        }
      }
      if (!stream.end(take)) throw damaged('the frame');
      if (length > maxBytes) throw tooLarge(maxBytes);
      return Buffer.concat(pieces, length);
    } finally {
      stream.delete();
    }
  }

  return {
    name: 'zstd-codec',
    decode: (bytes, frame, maxBytes) => {
      checkWindow(frame, CODEC_MAX_WINDOW, ' here: Node 22.15 or later reads it, or compress with a lower level');
      const { contentSize } = frame;
      if (contentSize === 0) return decodeInPieces(bytes, frame, 0);
      if (contentSize > 0 && contentSize <= AT_ONCE && bytes.length <= AT_ONCE) return decodeAtOnce(bytes, contentSize);
      return decodeInPieces(bytes, frame, maxBytes);
    },
    encode: (body) => {
      if (body.length <= AT_ONCE) {
        return withVectors((to, from) => {
          binding.cloneToVector(from, body);
          to.resize(simple.compressBound(body.length), 0);
          const length = simple.compress(to, from, LEVEL);
          if (length <= 0) throw new EncodeError('zstd: zstd-codec failed');
          return Buffer.from(binding.toTypedArrayView(to).subarray(0, length));
        });
      }
      const stream = new binding.ZstdCompressStreamBinding();
      const pieces: Buffer[] = [];
      const take = (piece: Uint8Array): void => void pieces.push(Buffer.from(piece));
      try {
        let good = stream.begin(LEVEL);
        for (let at = 0; good && at < body.length; at += PIECE)
          good = stream.transform(body.subarray(at, at + PIECE), take);
        if (!good || !stream.end(take)) throw new EncodeError('zstd: zstd-codec failed');
      } finally {
        stream.delete();
      }
      return withContentSize(Buffer.concat(pieces), body.length);
    },
  };
});

/** Every backend, the preferred one first: whether it works here, and if not, why. */
export function zstdBackends(): { readonly name: ZstdBackend['name']; readonly found: Optional<ZstdBackend> }[] {
  return [
    { name: 'node:zlib', found: node() },
    { name: 'zstd-codec', found: codec() },
  ];
}

/** The one that is used, or undefined: neither works here. */
export function zstdBackend(): ZstdBackend | undefined {
  const first = node();
  if ('value' in first) return first.value;
  const second = codec();
  return 'value' in second ? second.value : undefined;
}
