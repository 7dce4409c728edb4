/** What redis/lone.ts and its handler share. */
export const LONE_CHANNEL = 'mozuku-bench-lone';

export interface Lone {
  /** `process.hrtime` when it was published; one clock for all processes of a machine. Nanoseconds. Empty before the measurement. */
  readonly at: string;
}
