/** What a lease has of its pool: the two ways to give its place back. Only the first call of either has an effect. */
export interface Ticket {
  /** The resource may be lent to the next one. */
  release(): Promise<void>;
  /** The resource is closed, and another one takes its place when it is needed. */
  discard(): Promise<void>;
}
