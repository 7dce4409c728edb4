/**
 * What Python has and JavaScript has not: times with microseconds and with or without an offset, days, times of day,
 * decimal numbers, uuids. One small class each, for `types: 'exact'`: made of Python's text, written back as that text, so
 * a message that is read and sent on means the same.
 *
 * Everywhere but in JSON (msgpack, yaml, templates, comparisons with strings) they are their text.
 */
import { DecodeError } from '../errors.js';

/** The root of the classes here: `text` is what Python's `str()` gives, with a `T` in a datetime. */
export abstract class ExactValue {
  /** kombu's name for it. */
  abstract readonly type: 'datetime' | 'date' | 'time' | 'decimal' | 'uuid';
  abstract readonly text: string;

  /** What stands in a message as `__value__`. */
  get wire(): unknown {
    return this.text;
  }

  toString(): string {
    return this.text;
  }

  toJSON(): string {
    return this.text;
  }
}

/** Python's `datetime`. */
export class ExactDatetime extends ExactValue {
  readonly type = 'datetime';
  /** As Python's `isoformat()`: `2024-01-02T03:04:05.678901+00:00`. */
  readonly text: string;
  /** 0 to 999999, the milliseconds of `toDate()` included. */
  readonly microsecond: number;
  /** How far its clock is ahead of UTC, in ms; undefined: it does not say (Python: naive). */
  readonly offset: number | undefined;
  readonly #time: number;

  /** `text`: ISO 8601, as Python writes it, or with a `Z`. Throws `DecodeError`. */
  constructor(text: string) {
    super();
    const { time, clock, micros, zone, offset, date } = parseDatetime(text);
    this.text = `${date}T${clock}${micros === '000000' ? '' : `.${micros}`}${zone}`;
    this.microsecond = Number(micros);
    this.offset = offset;
    this.#time = time;
  }

  get naive(): boolean {
    return this.offset === undefined;
  }

  /** To the millisecond; a naive one counts as UTC. */
  toDate(): Date {
    return new Date(this.#time);
  }
}

/** Python's `date`: a day, `2024-01-02`. */
export class ExactDate extends ExactValue {
  readonly type = 'date';
  readonly text: string;

  /** Throws `DecodeError`. */
  constructor(text: string) {
    super();
    if (!/^\d{4}-\d\d-\d\d$/.test(text)) throw new DecodeError('json: a date must look like 2024-01-02');
    parseDatetime(text);
    this.text = text;
  }
}

/** Python's `time`: of a day that is not said, `03:04:05.678901`, with an offset at most. */
export class ExactTime extends ExactValue {
  readonly type = 'time';
  readonly text: string;
  readonly microsecond: number;
  /** In ms; undefined: it does not say. */
  readonly offset: number | undefined;

  /** Throws `DecodeError`. */
  constructor(text: string) {
    super();
    if (!/^\d\d:/.test(text)) throw new DecodeError('json: a time must look like 03:04:05.678901');
    const { clock, micros, zone, offset } = parseDatetime(`2000-01-01T${text}`);
    this.text = `${clock}${micros === '000000' ? '' : `.${micros}`}${zone}`;
    this.microsecond = Number(micros);
    this.offset = offset;
  }
}

/** Python's `Decimal`, digit by digit: `12345678901234567890.10`. For sums take a library of your choice. */
export class ExactDecimal extends ExactValue {
  readonly type = 'decimal';
  readonly text: string;

  /** Throws `DecodeError`. */
  constructor(text: string) {
    super();
    if (!/^[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?|s?nan\d*)$/i.test(text)) {
      throw new DecodeError('json: a decimal must look like 12.34, 1E+5, NaN or Infinity');
    }
    this.text = text;
  }
}

/** Python's `UUID`, in lower case with hyphens. */
export class ExactUuid extends ExactValue {
  readonly type = 'uuid';
  readonly text: string;

  /** With or without hyphens. Throws `DecodeError`. */
  constructor(text: string) {
    super();
    this.text = parseUuid(text);
  }

  override get wire(): unknown {
    return { hex: this.text.replaceAll('-', '') };
  }
}

/** A uuid's text, with hyphens. Throws `DecodeError`. */
export function parseUuid(text: string): string {
  const digits = text.replaceAll('-', '').toLowerCase();
  if (!/^[0-9a-f]{32}$/.test(digits)) throw new DecodeError('json: a uuid must have 32 hexadecimal digits');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

const ISO =
  /^(\d{4}-\d\d-(\d\d))(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?(Z|([+-])(\d\d):?(\d\d)(?::?(\d\d)(\.\d{1,6})?)?)?)?$/;

interface Datetime {
  readonly date: string;
  /** `03:04:05` */
  readonly clock: string;
  /** Six digits. */
  readonly micros: string;
  /** As Python writes it, or ''. */
  readonly zone: string;
  readonly offset: number | undefined;
  /** Milliseconds since 1970, naive ones as UTC. */
  readonly time: number;
}

/** Reads what Python's `isoformat` writes, and what ISO 8601 has besides: `Z`, a space, a comma. Throws `DecodeError`. */
export function parseDatetime(text: string): Datetime {
  const match = ISO.exec(text);
  if (match === null) throw new DecodeError('json: a datetime must look like 2024-01-02T03:04:05.678901+00:00');
  const [, date = '', day, hours = '00:00', fraction = '', zoned, sign, h = '00', m = '00', s, f] = match;
  const clock = hours.length === 5 ? `${hours}:00` : hours;
  const micros = fraction.padEnd(6, '0').slice(0, 6);
  const local = new Date(`${date}T${clock}.${micros.slice(0, 3)}Z`);
  // Date rolls the 30th of February over to March, and has a year 0; Python has neither, and no offset of a day or more.
  if (local.getUTCDate() !== Number(day) || date.startsWith('0000') || Number(h) > 23 || Number(m) > 59)
    throw new DecodeError('json: a datetime names a day, time or offset that is not');
  if (zoned === undefined) return { date, clock, micros, zone: '', offset: undefined, time: local.getTime() };
  const distance = (Number(h) * 3600 + Number(m) * 60 + Number(s ?? 0) + Number(f ?? 0)) * 1000;
  const offset = sign === '-' ? -distance : distance;
  const zone = `${sign ?? '+'}${h}:${m}${s === undefined ? '' : `:${s}`}${f ?? ''}`;
  return { date, clock, micros, zone, offset, time: local.getTime() - offset };
}
