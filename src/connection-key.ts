/** When two connections are the same as far as a pool is concerned. */
import { createHash } from 'node:crypto';
import type { ConnectionParameters } from './connection-parameters.js';

/** Functions, and objects of classes, are equal only to themselves. */
const identities = new WeakMap<object, number>();
let lastIdentity = 0;

function identityOf(value: object): string {
  let number = identities.get(value);
  if (number === undefined) {
    number = ++lastIdentity;
    identities.set(value, number);
  }
  return `#${number}`;
}

/** A text that is equal for equal values, in whatever order their keys came. */
function canonical(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'number') return String(value);
  if (typeof value === 'function') return identityOf(value);
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'undefined';
  if (value instanceof Uint8Array) return `bytes:${Buffer.from(value).toString('base64')}`;
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return identityOf(value);
  const entries = Object.entries(value).filter(([, each]) => each !== undefined);
  const sorted = entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${sorted.map(([key, each]) => `${JSON.stringify(key)}:${canonical(each)}`).join()}}`;
}

/** Equal for equal parameters. A digest, for the parameters hold a password and keys of maps end up in dumps. */
export function connectionKey(parameters: ConnectionParameters): string {
  return createHash('sha256').update(canonical(parameters)).digest('base64');
}
