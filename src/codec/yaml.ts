/**
 * YAML as PyYAML's safe_load and safe_dump read and write it, which is what kombu uses: plain data, nothing that a tag
 * constructs. Over the package `yaml`, loaded when a body first needs it.
 *
 * PyYAML is YAML 1.1 with rules of its own for what a word without quotes means (`y` is text, `yes` is true, `1e5` is
 * text, `1.0e+5` a float, `12:30` is 750), and it writes text without quotes by the same rules. So the rules here are
 * PyYAML's expressions, taken over one by one, and not the package's.
 */
import { Buffer } from 'node:buffer';
import type {
  CreateNodeOptions,
  Document,
  DocumentOptions,
  ParseOptions,
  ScalarTag,
  SchemaOptions,
  Tags,
  ToJSOptions,
  ToStringOptions,
} from 'yaml';
import { DecodeError, EncodeError } from '../errors.js';
import { formless, messageOf } from './bytes.js';
import { load, once } from './optional.js';

/** How many nodes the aliases of one anchor may stand for. Python writes one for each object that occurs twice. */
const MAX_ALIASED = 10_000;
/** Longest integer that is read, in characters: Python refuses longer ones too, and base 60 takes quadratic time. */
const MAX_INTEGER_LENGTH = 4300;
const LONG_INTEGER = `an integer of over ${MAX_INTEGER_LENGTH} characters`;
/** PyYAML would recurse no deeper either; the package takes far more than linear time for a row of brackets. */
const MAX_DEPTH = 500;

type Options = ParseOptions & DocumentOptions & SchemaOptions & ToJSOptions & ToStringOptions & CreateNodeOptions;

const scalar = (
  tag: string,
  test: RegExp,
  resolve: (text: string) => unknown,
  more: Partial<ScalarTag> = {},
): ScalarTag => ({
  tag: `tag:yaml.org,2002:${tag}`,
  default: true,
  test,
  resolve,
  identify: () => false,
  ...more,
});

const digits = (text: string): string => text.replaceAll('_', '');

function readInteger(text: string): number | bigint {
  if (text.length > MAX_INTEGER_LENGTH) throw new DecodeError(LONG_INTEGER);
  const negative = text.startsWith('-');
  const plain = digits(text).replace(/^[-+]/, '');
  let value: bigint;
  if (/^0[bx]/.test(plain)) value = BigInt(plain);
  else if (/^0./.test(plain)) value = BigInt(`0o${plain.slice(1)}`);
  else value = plain.split(':').reduce((sum, part) => sum * 60n + BigInt(part), 0n);
  const signed = negative ? -value : value;
  const number = Number(signed);
  return Number.isSafeInteger(number) ? number : signed;
}

function readFloat(text: string): number {
  const plain = digits(text).toLowerCase();
  const sign = plain.startsWith('-') ? -1 : 1;
  const unsigned = plain.replace(/^[-+]/, '');
  if (unsigned === '.inf') return sign * Number.POSITIVE_INFINITY;
  if (unsigned === '.nan') return Number.NaN;
  return sign * unsigned.split(':').reduce((sum, part) => sum * 60 + Number(part), 0);
}

/** PyYAML writes floats with a point and a signed exponent, and takes anything else for text. */
function writeFloat(value: number): string {
  if (Number.isNaN(value)) return '.nan';
  if (!Number.isFinite(value)) return value > 0 ? '.inf' : '-.inf';
  if (Object.is(value, -0)) return '-0.0';
  const [mantissa = '', exponent] = String(value).split('e');
  const point = mantissa.includes('.') ? mantissa : `${mantissa}.0`;
  return exponent === undefined ? point : `${point}e${exponent}`;
}

const DATE_TIME =
  /^(\d{4})-(\d\d?)-(\d\d?)(?:(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.(\d*))?(?:[ \t]*(Z|([-+])(\d\d?)(?::(\d\d))?))?)?$/;

/** A date stays text, as in kombu's JSON; a time without zone is read as UTC. */
function readTimestamp(text: string): string | Date {
  const match = DATE_TIME.exec(text);
  if (match === null) throw new DecodeError('yaml: a timestamp is damaged');
  const [, year, month, day, hour, minute, second, fraction = '', , sign, hours = '0', minutes = '0'] = match;
  if (hour === undefined) return text;
  const milliseconds = Number(`${fraction}000`.slice(0, 3));
  const at = new Date(0);
  at.setUTCFullYear(Number(year), Number(month) - 1, Number(day));
  at.setUTCHours(Number(hour), Number(minute), Number(second), milliseconds);
  if (at.getUTCDate() !== Number(day) || at.getUTCHours() !== Number(hour)) {
    throw new DecodeError('yaml: a timestamp names a day or time that is not');
  }
  const offset = (Number(hours) * 60 + Number(minutes)) * 60_000;
  return new Date(at.getTime() - (sign === '-' ? -offset : offset));
}

function writeTimestamp(date: Date): string {
  if (Number.isNaN(date.getTime())) return 'null';
  const year = date.getUTCFullYear();
  if (year < 1 || year > 9999)
    throw new EncodeError('yaml: a Date outside the years 1 to 9999 has no form Python reads');
  return date.toISOString();
}

function kindRefused(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  return typeof (value as { toJSON?: unknown }).toJSON === 'function' ? undefined : formless(value);
}

/** In the order in which they are asked. */
const PYYAML: readonly ScalarTag[] = [
  scalar('null', /^(?:~|null|Null|NULL)?$/, () => null, {
    identify: (value) => value === null || value === undefined,
    createNode: (_schema, value) => new (yaml().Scalar)(value ?? null),
    stringify: () => 'null',
  }),
  scalar(
    'bool',
    /^(?:yes|Yes|YES|true|True|TRUE|on|On|ON|no|No|NO|false|False|FALSE|off|Off|OFF)$/,
    (text) => /^(?:yes|true|on)$/i.test(text),
    {
      identify: (value) => typeof value === 'boolean',
      stringify: ({ value }) => String(value),
    },
  ),
  scalar(
    'int',
    /^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$/,
    readInteger,
    {
      identify: (value) => typeof value === 'bigint' || (Number.isSafeInteger(value) && !Object.is(value, -0)),
      stringify: ({ value }) => String(value),
    },
  ),
  scalar(
    'float',
    /^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/,
    readFloat,
    { identify: (value) => typeof value === 'number', stringify: ({ value }) => writeFloat(value as number) },
  ),
  scalar(
    'timestamp',
    /^(?:\d{4}-\d\d-\d\d|\d{4}-\d\d?-\d\d?(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d(?:\.\d*)?(?:[ \t]*(?:Z|[-+]\d\d?(?::\d\d)?))?)$/,
    readTimestamp,
    {
      identify: (value) => value instanceof Date,
      stringify: ({ value }) => writeTimestamp(value as Date),
    },
  ),
  {
    tag: 'tag:yaml.org,2002:binary',
    default: false,
    resolve: (text) => Buffer.from(text, 'base64'),
    identify: (value) => value instanceof Uint8Array,
    stringify: ({ value }) => `"${Buffer.from(value as Uint8Array).toString('base64')}"`,
  },
  {
    tag: 'refused',
    default: false,
    resolve: (text) => text,
    identify: (value) => kindRefused(value) !== undefined,
    createNode: (_schema, value) => {
      throw new EncodeError(`yaml: ${kindRefused(value)} cannot be encoded`);
    },
  },
  // What PyYAML refuses or reads differently without quotes, so that it is written in quotes; read, it is the text.
  scalar('value', /^(?:=|<<)$|[\t\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]/, (text) => text),
];

const module = once(() => load('yaml') as typeof import('yaml'));

function yaml(): typeof import('yaml') {
  const found = module();
  if ('value' in found) return found.value;
  throw new DecodeError(`yaml: package 'yaml' does not load here (${found.missing}): npm install yaml`);
}

const options: Options = {
  version: '1.1',
  schema: 'failsafe', // text, lists and maps; the rest is above
  customTags: (tags: Tags): Tags => [...tags, ...PYYAML, 'set'],
  uniqueKeys: false, // as PyYAML: the last one counts
  logLevel: 'error', // warnings are errors here, see below
  prettyErrors: false, // they quote the body
  aliasDuplicateObjects: false,
  lineWidth: 0,
  // Text is plain or in double quotes, nothing else: see writable
  blockQuote: false,
  singleQuote: false,
};

/** Reading knows merge keys (`<<: *base`) as well; writing, the package would take the text `<<` for one. */
const readOptions: Options = { ...options, customTags: (tags: Tags): Tags => [...tags, 'merge', ...PYYAML, 'set'] };

/** Reads the one document of a body. Throws `DecodeError`; its text never quotes the body. */
export function parseYaml(text: string): unknown {
  const { parseDocument } = yaml();
  if (isDeep(text)) throw new DecodeError('yaml: the body is nested too deeply');
  try {
    const document = parseDocument(text, readOptions);
    const [error] = document.errors;
    if (error !== undefined) {
      const why = error.message === LONG_INTEGER ? LONG_INTEGER : `not valid YAML (${error.code})`;
      throw new DecodeError(`yaml: ${why} at character ${error.pos[0]}`, { cause: error });
    }
    // An unknown tag: Python's safe_load refuses it, and what it tags must not pass for plain data.
    const [warning] = document.warnings;
    if (warning !== undefined) {
      throw new DecodeError(`yaml: a tag at character ${warning.pos[0]} that plain data does not have`, {
        cause: warning,
      });
    }
    if (text.includes('!')) resolveBareTags(document);
    return document.toJS({ maxAliasCount: MAX_ALIASED });
  } catch (error) {
    if (error instanceof DecodeError) throw error;
    if (error instanceof RangeError) throw new DecodeError('yaml: the body is nested too deeply', { cause: error });
    if (error instanceof ReferenceError) {
      throw new DecodeError('yaml: aliases stand for too much, or for nothing', { cause: error });
    }
    throw new DecodeError('yaml: the body cannot be read', { cause: error });
  }
}

/** To PyYAML the tag `!` says that the scalar is what it would be without quotes; to the package, that it is text. */
function resolveBareTags(document: Document): void {
  yaml().visit(document, {
    Scalar: (_key, node) => {
      if (node.tag !== '!') return;
      const text = node.source ?? '';
      const rule = PYYAML.find(({ default: isDefault, test }) => isDefault && test?.test(text));
      node.value = rule === undefined ? text : rule.resolve(text, fail, readOptions);
    },
  });
}

function fail(why: string): never {
  throw new DecodeError(`yaml: ${why}`);
}

/** Writes one document. Throws `EncodeError`. */
export function stringifyYaml(value: unknown): string {
  try {
    return writable(yaml().stringify(value ?? null, options));
  } catch (error) {
    if (error instanceof EncodeError) throw error;
    if (error instanceof RangeError) {
      throw new EncodeError('yaml: the value is nested too deeply, or contains itself', { cause: error });
    }
    if (error instanceof DecodeError) throw new EncodeError(error.message, { cause: error.cause });
    throw new EncodeError(`yaml: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * PyYAML takes some characters for line ends and refuses others, unless they are escaped; the package escapes neither.
 * A text with one of them is in double quotes, by the last rule above.
 */
function writable(text: string): string {
  return text.replace(
    /[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/**
 * Whether brackets or indicators are nested deeper than any text of Python's. Brackets inside strings count too, which
 * is wrong only for bodies that hold hundreds of them unclosed.
 */
function isDeep(text: string): boolean {
  let depth = 0;
  let row = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 91 || code === 123) depth++;
    else if (code === 93 || code === 125) depth = Math.max(0, depth - 1);
    else if ((code === 45 || code === 63 || code === 58) && text.charCodeAt(i + 1) === 32) row++;
    else if (code === 10) row = 0;
    if (depth > MAX_DEPTH || row > MAX_DEPTH) return true;
  }
  return false;
}
