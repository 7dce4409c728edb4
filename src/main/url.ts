/** Under its old name for `main`; what URLs and parameters are, every thread may know. */
export * from '../connection-parameters.js';
export * from '../url.js';
