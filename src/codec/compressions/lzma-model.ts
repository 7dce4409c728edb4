/**
 * The probability model of LZMA, which decoder and encoder share: one flat table of 11-bit probabilities, where each
 * part of it starts, and how the state moves. Names and numbers are those of the LZMA specification.
 */

/** A probability of one half, of 2048. */
export const HALF = 1024;
export const STATES = 12;
export const MIN_MATCH = 2;
/** Length classes of the distance coder. */
export const DISTANCE_STATES = 4;
const POSITION_STATES = 16;
/** choice, choice2, low and mid trees for 16 position states, high tree */
const LENGTH_SIZE = 2 + POSITION_STATES * 8 * 2 + 256;

export const IS_MATCH = 0;
export const IS_REP = IS_MATCH + STATES * POSITION_STATES;
export const IS_REP_G0 = IS_REP + STATES;
export const IS_REP_G1 = IS_REP_G0 + STATES;
export const IS_REP_G2 = IS_REP_G1 + STATES;
export const IS_REP0_LONG = IS_REP_G2 + STATES;
export const DISTANCE_SLOT = IS_REP0_LONG + STATES * POSITION_STATES;
export const DISTANCE_SPECIAL = DISTANCE_SLOT + DISTANCE_STATES * 64;
export const DISTANCE_ALIGN = DISTANCE_SPECIAL + 115;
export const MATCH_LENGTH = DISTANCE_ALIGN + 16;
export const REP_LENGTH = MATCH_LENGTH + LENGTH_SIZE;
export const LITERAL = REP_LENGTH + LENGTH_SIZE;

// Within a length coder
export const LENGTH_CHOICE = 0;
export const LENGTH_CHOICE2 = 1;
export const LENGTH_LOW = 2;
export const LENGTH_MID = LENGTH_LOW + POSITION_STATES * 8;
export const LENGTH_HIGH = LENGTH_MID + POSITION_STATES * 8;

/** How the coder is set: literal context bits, literal position bits, position bits. */
export interface Properties {
  readonly lc: number;
  readonly lp: number;
  readonly pb: number;
}

/** The table for these properties, every probability one half. */
export function newModel({ lc, lp }: Properties): Uint16Array {
  return new Uint16Array(LITERAL + (0x300 << (lc + lp))).fill(HALF);
}

/** The properties in their byte, or undefined: no byte of any. */
export function readProperties(byte: number): Properties | undefined {
  if (byte >= 9 * 5 * 5) return undefined;
  return { lc: byte % 9, lp: Math.floor(byte / 9) % 5, pb: Math.floor(byte / 45) };
}

export const afterLiteral = (state: number): number => (state < 4 ? 0 : state < 10 ? state - 3 : state - 6);
export const afterMatch = (state: number): number => (state < 7 ? 7 : 10);
export const afterRep = (state: number): number => (state < 7 ? 8 : 11);
export const afterShortRep = (state: number): number => (state < 7 ? 9 : 11);
