// Where programs are on this machine.

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** The folders of PATH, then these. @param {string[]} more */
export function searchPath(...more) {
  return [...(process.env.PATH ?? '').split(delimiter).filter(Boolean), ...more];
}

/** The first of the folders that has it. @param {string} name @param {string[]} folders @returns {string | undefined} */
export function findIn(name, folders) {
  return folders
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}
