/**
 * What must hold at the end of a campaign, computed from records outside of the runtime: what was published, what had effects,
 * what passed the wire, what the broker has left.
 */
import type { FollowedEffect as Effect } from '../support/effects-follower.js';

export interface Records {
  readonly confirmed: ReadonlySet<string>;
  readonly unsure: ReadonlySet<string>;
  readonly poison: ReadonlySet<string>;
  readonly effects: readonly Effect[];
  /** Ids of the dead letters, in any order. */
  readonly dead: readonly string[];
  /** Rules of acknowledgement that were broken on the wire. */
  readonly wrongAcks: readonly string[];
  /** Ids that were acked before their effect was there. */
  readonly early: readonly string[];
  /** More deliveries at a time than the prefetch allows, in words. */
  readonly overPrefetch: readonly string[];
  /** What is left where nothing should be, in words. */
  readonly leftOver: readonly string[];
  readonly isOrdered: boolean;
  /** Of each fault: until something published after it was handled, ms. */
  readonly resumed: readonly number[];
  readonly resumeLimit: number;
}

export interface Verdict {
  readonly oracle: string;
  readonly text: string;
  /** What breaks it, at most so many as one wants to read. */
  readonly broken: readonly string[];
}

const SHOWN = 10;

export function judge(records: Records): Verdict[] {
  const { confirmed, unsure, poison, effects, dead } = records;
  const byId = new Map<string, Effect[]>();
  for (const effect of [...effects].sort((a, b) => a.start - b.start)) {
    const of = byId.get(effect.id);
    if (of === undefined) byId.set(effect.id, [effect]);
    else of.push(effect);
  }
  const deadIds = new Set(dead);
  const lost = [...confirmed].filter((id) => (poison.has(id) ? !deadIds.has(id) : !byId.has(id)));
  const innocent = dead.filter((id) => !poison.has(id));
  const strange = [...byId.keys()].filter((id) => !confirmed.has(id) && !unsure.has(id));
  const unflagged = [...byId].filter(([id, of]) => !unsure.has(id) && of.slice(1).some(({ again }) => !again));
  const slow = records.resumed.filter((ms) => ms > records.resumeLimit);
  const verdict = (oracle: string, text: string, broken: readonly unknown[]): Verdict => ({
    oracle,
    text,
    broken: broken.slice(0, SHOWN).map(String),
  });
  return [
    verdict('I1', 'each confirmed message had its effect, poison is a dead letter', lost),
    verdict('I1', 'nothing else is a dead letter, nothing ran that was not published', [...innocent, ...strange]),
    verdict('I2', 'no ack before its effect', records.early),
    verdict('I3', 'nothing is settled twice, or on a channel that is over', records.wrongAcks),
    verdict('I4', 'never more in hand than the prefetch', records.overPrefetch),
    verdict(
      'I5',
      'messages of a key run in their order, and never two at once',
      records.isOrdered ? outOfOrder(byId) : [],
    ),
    verdict(
      'I6',
      'what ran twice said that it might',
      unflagged.map(([id, of]) => `${id} ran ${of.length} times`),
    ),
    verdict('I7, I8', 'nothing is left over', records.leftOver),
    verdict('I9', `goes on within ${records.resumeLimit} ms after each fault`, slow),
  ];
}

/** What says that it may have run before may come late: it was in the hands of one that is dead. */
function outOfOrder(byId: ReadonlyMap<string, readonly Effect[]>): string[] {
  const keys = new Map<string, { sequence: number; effect: Effect }[]>();
  for (const [id, [first]] of byId) {
    const [key = '', sequence] = id.split(':');
    if (first!.again) continue;
    const of = keys.get(key);
    const entry = { sequence: Number(sequence), effect: first! };
    if (of === undefined) keys.set(key, [entry]);
    else of.push(entry);
  }
  const broken: string[] = [];
  for (const [key, entries] of keys) {
    entries.sort((a, b) => a.sequence - b.sequence);
    for (let i = 1; i < entries.length; i++) {
      const [before, after] = [entries[i - 1]!, entries[i]!];
      if (after.effect.start >= before.effect.end) continue;
      broken.push(`of key ${key}, ${after.sequence} began before ${before.sequence} had ended`);
    }
  }
  return broken;
}
