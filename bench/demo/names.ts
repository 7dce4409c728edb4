/** What the main thread and the handler's threads agree on. */

/** The channel on which the threads say what they handled: pairs of a message's number and its fingerprint. */
export const REPORT_CHANNEL = 'mozuku-demo';

/** The header that tells the callback to throw, and what. */
export const FAIL_HEADER = 'demo-fail';
