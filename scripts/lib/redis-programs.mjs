// Where redis-server is on this machine, and a certificate for it that nobody has signed but itself.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findIn, searchPath } from './executables.mjs';

/** @param {string} name */
const find = (name) => findIn(name, searchPath('/usr/local/bin', '/usr/bin', '/usr/sbin', '/opt/homebrew/bin'));

/** `redis-server` is Sentinel too: with `--sentinel`. @returns {string | undefined} */
export function findRedis() {
  return find('redis-server');
}

/** @returns {string | undefined} */
export function findOpenssl() {
  return find('openssl');
}

/**
 * Makes `cert.pem` and `key.pem`, for 127.0.0.1 and localhost, good for a day; a client may show the same.
 * @param {string} folder
 */
export function makeCertificate(folder) {
  const openssl = findOpenssl();
  if (!openssl) throw new Error('openssl is not installed: there is no certificate for TLS');
  const certFile = join(folder, 'cert.pem');
  const keyFile = join(folder, 'key.pem');
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1'];
  execFileSync(openssl, ['req', '-x509', ...kind, '-keyout', keyFile, '-out', certFile, ...names], { stdio: 'pipe' });
  return { certFile, keyFile, ca: readFileSync(certFile), cert: readFileSync(certFile), key: readFileSync(keyFile) };
}
