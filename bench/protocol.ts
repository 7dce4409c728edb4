/**
 * What the processes of the benchmark say to each other: the harness, the replay broker and the peers.
 * Every message is plain JSON over the child process channel.
 */

export const PEERS = ['ours', 'amqplib-inline', 'amqplib-inline-64', 'amqplib-piscina', 'drain'] as const;
export type PeerName = (typeof PEERS)[number];

/** What one peer process is asked to do, as its first argument. */
export interface Task {
  readonly url: string;
  readonly count: number;
  readonly bodyBytes: number;
  readonly prefetch: number;
  readonly workers: number;
}

/** Which messages a peer handled: the number, and two sums over the ids that a loss or a duplicate would change. */
export interface TallyCounts {
  readonly count: number;
  readonly sum: number;
  readonly squares: number;
}

/** What a peer measured of itself, from its first delivery until the broker had its last settlement. */
export interface Reading {
  readonly seconds: number;
  readonly processMicros: number;
  /** Absent where the system does not account CPU per thread. */
  readonly mainMicros: number | null;
  readonly maxRssBytes: number;
  readonly loopDelayMaxMs: number;
  readonly handled: number;
  /** Absent for a peer that does not look into the messages. */
  readonly tally: TallyCounts | null;
}

/** The broker's books of one run. */
export interface Ledger {
  readonly delivered: number;
  readonly acked: number;
  readonly rejected: number;
  readonly requeued: number;
  /** Frames that settled something: how well a peer coalesces. */
  readonly settleFrames: number;
  /** What the consumer asked for; 0 is no limit. */
  readonly prefetch: number;
  readonly noAck: boolean;
  readonly messageBytes: number;
  /** From the first write to the last settlement. */
  readonly seconds: number;
  readonly cpuMicros: number;
  readonly problems: readonly string[];
}

export type Message =
  | { readonly type: 'listening'; readonly port: number }
  | { readonly type: 'load'; readonly count: number; readonly bodyBytes: number }
  | { readonly type: 'loaded' }
  | { readonly type: 'settled' }
  | { readonly type: 'askLedger' }
  | { readonly type: 'ledger'; readonly ledger: Ledger }
  | { readonly type: 'report'; readonly reading: Reading }
  | { readonly type: 'problem'; readonly text: string };

/** One measured run of one peer. */
export interface Sample {
  readonly peer: PeerName;
  readonly bodyBytes: number;
  readonly prefetch: number;
  readonly round: number;
  readonly count: number;
  readonly rate: number;
  readonly processMicros: number;
  readonly mainMicros: number | null;
  readonly brokerMicros: number;
  readonly maxRssBytes: number;
  readonly loopDelayMaxMs: number;
  readonly seconds: number;
  readonly settleFrames: number;
}

export interface Failure {
  readonly peer: PeerName;
  readonly bodyBytes: number;
  /** 0 is the pilot run. */
  readonly round: number;
  readonly text: string;
}

/** The ids in the bodies: nine digits, so that every body has the same length. Delivery `tag` carries FIRST_ID + tag. */
export const FIRST_ID = 100_000_000;

/** The most messages of one run: ids must keep their nine digits. */
export const MAX_COUNT = 50_000_000;

export const message = (error: unknown): string => (error instanceof Error ? error.message : String(error));
