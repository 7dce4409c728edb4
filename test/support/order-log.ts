/** Checks the effects log of an ordered consumer: ids are `key:sequence`. */
import assert from 'node:assert/strict';
import type { Effect } from './rig.js';

interface KeyLog {
  last: Effect | undefined;
  sequence: number;
  highest: number;
  goesBack: number;
}

/**
 * Throws if two messages of a key ever ran at once, if one ran for the first time after a later one had, or if a key's sequence
 * went back more often than `reconnects`: what was handled and whose ack was lost with the connection comes again. `settlesEarly`:
 * ids whose callbacks settle their message before they end, whereby its key is free.
 */
export function assertInOrder(
  effects: readonly Effect[],
  { reconnects = 0, settlesEarly = (_id: string): boolean => false } = {},
): void {
  const keys = new Map<string, KeyLog>();
  for (const effect of [...effects].sort((a, b) => a.start - b.start)) {
    const [key, text] = effect.id.split(':');
    const sequence = Number(text);
    const log = keys.get(key!) ?? { last: undefined, sequence: -1, highest: -1, goesBack: 0 };
    keys.set(key!, log);
    const { last } = log;
    const free = last === undefined || effect.start >= last.end || settlesEarly(last.id);
    assert.ok(free, `${effect.id} began before ${last?.id} had ended`);
    if (sequence < log.sequence) log.goesBack++;
    log.highest = Math.max(log.highest, sequence);
    log.sequence = sequence;
    log.last = effect;
    assert.ok(log.goesBack <= reconnects, `of key ${key}, ${sequence} ran after ${log.highest}`);
  }
}
