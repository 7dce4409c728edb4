/**
 * The LZMA decoder: from range-coded input to an output that is its own dictionary. It writes within the bounds it is
 * given and reads within its input; whatever the bits say, it ends with an output or a `DecodeError`.
 *
 * It knows nothing of the containers (xz, LZMA2, .lzma), which say where input and output start and end.
 */
import { damageOf } from './damage.js';
import * as M from './lzma-model.js';

const { cutOff, damaged } = damageOf('lzma', 'stream');

/** No match is longer. */
export const MAX_MATCH = 273;
const TOP = 2 ** 24;

export class LzmaDecoder {
  readonly #input: Uint8Array;
  #at = 0;
  #end = 0;
  #range = 0;
  #code = 0;
  #model: Uint16Array;
  #lc = 0;
  #literalMask = 0;
  #positionMask = 0;
  #state = 0;
  #rep0 = 0;
  #rep1 = 0;
  #rep2 = 0;
  #rep3 = 0;
  /** Whether the end marker was read. */
  ended = false;

  constructor(input: Uint8Array, properties: M.Properties) {
    this.#input = input;
    this.#model = M.newModel(properties);
    this.#set(properties);
  }

  /** New properties, and all that was learnt forgotten. */
  setProperties(properties: M.Properties): void {
    this.#model = M.newModel(properties);
    this.#set(properties);
    this.resetState();
  }

  #set(properties: M.Properties): void {
    this.#lc = properties.lc;
    this.#literalMask = (1 << properties.lp) - 1;
    this.#positionMask = (1 << properties.pb) - 1;
  }

  resetState(): void {
    this.#model.fill(M.HALF);
    this.#state = this.#rep0 = this.#rep1 = this.#rep2 = this.#rep3 = 0;
  }

  /** Starts the range coder on `input[start, end)`. */
  start(start: number, end: number): void {
    if (end - start < 5 || this.#input[start] !== 0) throw damaged('the stream');
    this.#at = start + 1;
    this.#end = end;
    this.#range = 0xffffffff;
    this.#code = 0;
    for (let i = 0; i < 4; i++) this.#code = (this.#code << 8) | this.#byte();
    this.#code >>>= 0;
  }

  /** Where the input was read to, once the coder is normalized. Its code is 0 where a stream ends as it should. */
  finish(): { readonly at: number; readonly clean: boolean } {
    if (this.#range < TOP) this.#normalize();
    return { at: this.#at, clean: this.#code === 0 };
  }

  /**
   * Decodes to `output` from `at` until at least `until` bytes of it are filled, but never beyond `limit`, or until the
   * end marker. `start`: what lies before it is not of this dictionary. Gives the new end of the output.
   */
  decode(output: Uint8Array, start: number, at: number, until: number, limit: number): number {
    while (at < until) {
      const position = (at - start) & this.#positionMask;
      if (this.#bit(M.IS_MATCH + this.#state * 16 + position) === 0) {
        const previous = at > start ? output[at - 1]! : 0;
        const context = (((at - start) & this.#literalMask) << this.#lc) + (previous >> (8 - this.#lc));
        const table = M.LITERAL + 0x300 * context;
        output[at] =
          this.#state < 7 ? this.#literal(table) : this.#matchedLiteral(table, this.#back(output, start, at));
        at++;
        this.#state = M.afterLiteral(this.#state);
        continue;
      }
      let length: number;
      if (this.#bit(M.IS_REP + this.#state) === 0) {
        this.#rep3 = this.#rep2;
        this.#rep2 = this.#rep1;
        this.#rep1 = this.#rep0;
        length = this.#length(M.MATCH_LENGTH, position);
        this.#state = M.afterMatch(this.#state);
        this.#rep0 = this.#distance(length);
        if (this.#rep0 === 0xffffffff) {
          this.ended = true;
          return at;
        }
      } else if (this.#bit(M.IS_REP_G0 + this.#state) === 0) {
        if (this.#bit(M.IS_REP0_LONG + this.#state * 16 + position) === 0) {
          this.#state = M.afterShortRep(this.#state);
          output[at] = this.#back(output, start, at);
          at++;
          continue;
        }
        length = this.#length(M.REP_LENGTH, position);
        this.#state = M.afterRep(this.#state);
      } else {
        this.#rotateReps();
        length = this.#length(M.REP_LENGTH, position);
        this.#state = M.afterRep(this.#state);
      }
      const distance = this.#rep0 + 1;
      if (distance > at - start || length > limit - at) throw damaged('the stream');
      if (distance >= length) output.copyWithin(at, at - distance, at - distance + length);
      else for (let i = at; i < at + length; i++) output[i] = output[i - distance]!;
      at += length;
    }
    return at;
  }

  #rotateReps(): void {
    let distance = this.#rep1;
    if (this.#bit(M.IS_REP_G1 + this.#state) !== 0) {
      distance = this.#rep2;
      if (this.#bit(M.IS_REP_G2 + this.#state) !== 0) {
        distance = this.#rep3;
        this.#rep3 = this.#rep2;
      }
      this.#rep2 = this.#rep1;
    }
    this.#rep1 = this.#rep0;
    this.#rep0 = distance;
  }

  #back(output: Uint8Array, start: number, at: number): number {
    if (this.#rep0 >= at - start) throw damaged('the stream');
    return output[at - this.#rep0 - 1]!;
  }

  #literal(table: number): number {
    let symbol = 1;
    while (symbol < 0x100) symbol = (symbol << 1) | this.#bit(table + symbol);
    return symbol & 0xff;
  }

  /** After a match: the byte that would have continued it tells which bits are unlikely. */
  #matchedLiteral(table: number, expected: number): number {
    let symbol = 1;
    let match = expected;
    while (symbol < 0x100) {
      const matchBit = (match >> 7) & 1;
      match <<= 1;
      const bit = this.#bit(table + ((1 + matchBit) << 8) + symbol);
      symbol = (symbol << 1) | bit;
      if (bit !== matchBit) break;
    }
    while (symbol < 0x100) symbol = (symbol << 1) | this.#bit(table + symbol);
    return symbol & 0xff;
  }

  #length(coder: number, position: number): number {
    if (this.#bit(coder + M.LENGTH_CHOICE) === 0) {
      return M.MIN_MATCH + this.#tree(coder + M.LENGTH_LOW + position * 8, 3);
    }
    if (this.#bit(coder + M.LENGTH_CHOICE2) === 0) {
      return M.MIN_MATCH + 8 + this.#tree(coder + M.LENGTH_MID + position * 8, 3);
    }
    return M.MIN_MATCH + 16 + this.#tree(coder + M.LENGTH_HIGH, 8);
  }

  #distance(length: number): number {
    const lengthState = Math.min(length - M.MIN_MATCH, M.DISTANCE_STATES - 1);
    const slot = this.#tree(M.DISTANCE_SLOT + lengthState * 64, 6);
    if (slot < 4) return slot;
    const bits = (slot >> 1) - 1;
    const base = (2 | (slot & 1)) * 2 ** bits;
    if (slot < 14) return base + this.#reverseTree(M.DISTANCE_SPECIAL + base - slot, bits);
    return base + this.#direct(bits - 4) * 16 + this.#reverseTree(M.DISTANCE_ALIGN, 4);
  }

  #tree(table: number, bits: number): number {
    let symbol = 1;
    for (let i = 0; i < bits; i++) symbol = (symbol << 1) | this.#bit(table + symbol);
    return symbol - (1 << bits);
  }

  #reverseTree(table: number, bits: number): number {
    let node = 1;
    let symbol = 0;
    for (let i = 0; i < bits; i++) {
      const bit = this.#bit(table + node);
      node = (node << 1) | bit;
      symbol |= bit << i;
    }
    return symbol;
  }

  #direct(bits: number): number {
    let result = 0;
    for (let i = 0; i < bits; i++) {
      if (this.#range < TOP) this.#normalize();
      this.#range >>>= 1;
      const bit = this.#code >= this.#range ? 1 : 0;
      if (bit === 1) this.#code -= this.#range;
      result = result * 2 + bit;
    }
    return result;
  }

  #bit(index: number): 0 | 1 {
    if (this.#range < TOP) this.#normalize();
    const model = this.#model;
    const probability = model[index]!;
    const bound = (this.#range >>> 11) * probability;
    if (this.#code < bound) {
      this.#range = bound;
      model[index] = probability + ((2048 - probability) >> 5);
      return 0;
    }
    this.#range -= bound;
    this.#code -= bound;
    model[index] = probability - (probability >> 5);
    return 1;
  }

  #normalize(): void {
    this.#range = (this.#range << 8) >>> 0;
    this.#code = ((this.#code << 8) | this.#byte()) >>> 0;
  }

  #byte(): number {
    if (this.#at >= this.#end) throw cutOff();
    return this.#input[this.#at++]!;
  }
}
