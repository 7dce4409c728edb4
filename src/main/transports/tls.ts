/** What `ssl` says, as options of `tls.connect`. */
import { readFile } from 'node:fs/promises';
import { OptionError } from '../../errors.js';
import type { SslOptions } from '../url.js';

/** Files are read anew for each connection, so that renewed certificates count. Throws `OptionError` for one that cannot be read. */
export async function tlsOptions(ssl: boolean | SslOptions): Promise<Record<string, unknown>> {
  if (typeof ssl === 'boolean') return {};
  const { caCerts, certfile, keyfile, certReqs, checkHostname, ...options } = ssl;
  const files: Record<string, unknown> = {};
  for (const [key, path] of Object.entries({ ca: caCerts, cert: certfile, key: keyfile })) {
    if (path === undefined) continue;
    try {
      files[key] = await readFile(path);
    } catch (cause) {
      throw new OptionError(`ssl: cannot read the file for '${key}', ${path}`, { cause });
    }
  }
  return {
    ...files,
    ...(certReqs === 'none' && { rejectUnauthorized: false }),
    ...(checkHostname === false && { checkServerIdentity: () => undefined }),
    ...options,
  };
}
