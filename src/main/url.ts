/** Under its old name for `main`; the parameters of a connection are what every thread may hold. */
export * from '../url.js';
