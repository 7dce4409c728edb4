/** The name of the channel on which the handler's threads hand in their counts, when they are torn down. */
export const TALLY_CHANNEL = 'mozuku-bench-tally';
