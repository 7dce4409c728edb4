/** Taking turns. */
import { Empty, OptionError } from '../../errors.js';
import { nearest } from '../../options.js';

/** Asks one resource after another, so that each gets an equal chance. */
export class FairCycle<Resource, Result> {
  readonly #fun: (resource: Resource) => Promise<Result> | Result;
  readonly #resources: readonly Resource[];
  readonly #predicate: abstract new (
    ...args: never[]
  ) => Error;
  #at = 0;

  /** `resources` may change between calls. `predicate`: the class of errors that says that a resource has nothing. */
  constructor(
    fun: (resource: Resource) => Promise<Result> | Result,
    resources: readonly Resource[],
    predicate: abstract new (...args: never[]) => Error = Empty,
  ) {
    this.#fun = fun;
    this.#resources = resources;
    this.#predicate = predicate;
  }

  /**
   * What `fun` gives for the next resource that has something. Throws the error of the last one if none has, `Empty` if there are no
   * resources, and other errors at once.
   */
  async get(): Promise<Result> {
    const count = this.#resources.length;
    if (count === 0) throw new Empty('FairCycle: there are no resources');
    for (let tried = 1; ; tried++) {
      if (this.#at >= this.#resources.length) this.#at = 0;
      try {
        return await this.#fun(this.#resources[this.#at++]!);
      } catch (error) {
        if (!(error instanceof this.#predicate) || tried >= count) throw error;
      }
    }
  }
}

/** A list of which the one that was used goes to the end. */
export class RoundRobinCycle<Item> {
  protected items: Item[];

  constructor(items: Iterable<Item> = []) {
    this.items = [...items];
  }

  /** Takes other items instead. */
  update(items: Iterable<Item>): void {
    this.items = [...items];
  }

  /** The next `count` items; they stay. */
  consume(count: number): Item[] {
    return this.items.slice(0, count);
  }

  /** `item` was used. */
  rotate(item: Item): Item {
    const at = this.items.indexOf(item);
    if (at >= 0) this.items.push(...this.items.splice(at, 1));
    return item;
  }
}

/** The order stays as it is. */
export class PriorityCycle<Item> extends RoundRobinCycle<Item> {
  override rotate(item: Item): Item {
    return item;
  }
}

/** Of the next items the least first. */
export class SortedCycle<Item> extends PriorityCycle<Item> {
  override consume(count: number): Item[] {
    return super.consume(count).sort((a, b) => (a < b ? -1 : Number(a > b)));
  }
}

const CYCLES = { round_robin: RoundRobinCycle, priority: PriorityCycle, sorted: SortedCycle };

/** The class that kombu calls 'round_robin', 'priority' or 'sorted'. Throws `OptionError`. */
export function cycleByName(name: string): typeof RoundRobinCycle {
  if (Object.hasOwn(CYCLES, name)) return CYCLES[name as keyof typeof CYCLES];
  const hint = nearest(name, Object.keys(CYCLES));
  const rest = hint === undefined ? `; there are ${Object.keys(CYCLES).join(', ')}` : `; did you mean '${hint}'?`;
  throw new OptionError(`no cycle is named '${name}'${rest}`);
}
