/** The names of queues by consumer tag, as main tells them. A tag is never another queue's. */

import { MOST_TAGS } from '../pool/worker-protocol.js';

export class QueueNames {
  #names: ReadonlyMap<string, string>;
  readonly #refresh: () => void;

  /** `refresh` takes in what main has said and nobody has read yet. */
  constructor(names: Readonly<Record<string, string>>, refresh: () => void) {
    this.#names = new Map(Object.entries(names));
    this.#refresh = refresh;
  }

  set(names: Readonly<Record<string, string>>): void {
    this.#names = new Map([...this.#names, ...Object.entries(names)].slice(-MOST_TAGS));
  }

  get(consumerTag: string): string | undefined {
    const name = this.#names.get(consumerTag);
    if (name !== undefined) return name;
    this.#refresh();
    return this.#names.get(consumerTag);
  }
}
