/** A pool of anything: limits, turns, leases, closing. kombu's B07. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ClosedError, LimitExceeded, TimeoutError } from '#src/errors';
import { ResourcePool } from '#src/pool/resource-pool';
import type { Ticket } from '#src/pool/ticket';

class Thing {
  closed = false;
  broken = false;
  constructor(readonly id: number) {}
}

class Lease {
  readonly #ticket: Ticket;
  constructor(
    readonly thing: Thing,
    ticket: Ticket,
  ) {
    this.#ticket = ticket;
  }
  release(): Promise<void> {
    return this.#ticket.release();
  }
  close(): Promise<void> {
    return this.#ticket.discard();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}

class Things extends ResourcePool<Thing, Lease> {
  readonly made: Thing[] = [];
  most = 0;
  failToMake = false;
  failToLend = false;
  /** Set by a test: making waits for it. */
  gate: Promise<void> | undefined;
  /** The same for closing. */
  closing: Promise<void> | undefined;

  get open(): number {
    return this.made.filter(({ closed }) => !closed).length;
  }

  protected override async make(): Promise<Thing> {
    await this.gate;
    if (this.failToMake) throw new Error('cannot make');
    const thing = new Thing(this.made.length);
    this.made.push(thing);
    this.most = Math.max(this.most, this.open);
    return thing;
  }

  protected override lend(thing: Thing, ticket: Ticket): Lease {
    if (this.failToLend) throw new Error('cannot lend');
    assert.equal(thing.closed, false);
    return new Lease(thing, ticket);
  }

  protected override usable(thing: Thing): boolean {
    return !thing.broken;
  }

  protected override async destroy(thing: Thing): Promise<void> {
    await this.closing;
    thing.closed = true;
  }
}

const acquireAll = (pool: Things, count: number) => Promise.all(Array.from({ length: count }, () => pool.acquire()));

describe('a pool with a limit', () => {
  it('makes nothing before it is asked, and lends again what was given back last', async () => {
    const pool = new Things(3);
    assert.equal(pool.made.length, 0);
    const [a, b] = await acquireAll(pool, 2);
    await a!.release();
    await b!.release();
    assert.deepEqual([pool.idle, pool.inUse, pool.open], [2, 0, 2]);
    const next = await pool.acquire();
    assert.equal(next.thing, b!.thing);
    assert.equal(pool.made.length, 2);
  });

  it('throws LimitExceeded at once when all are in use, and lends again after a release', async () => {
    const pool = new Things(2);
    const [first] = await acquireAll(pool, 2);
    await assert.rejects(pool.acquire(), (error: LimitExceeded) => {
      assert.ok(error instanceof LimitExceeded);
      assert.match(error.message, /all 2 are in use/);
      assert.equal(error.details.limit, 2);
      return true;
    });
    await first!.release();
    await pool.acquire();
    assert.equal(pool.most, 2);
  });

  it('gives turns in the order they were asked for', async () => {
    const pool = new Things(1);
    const first = await pool.acquire();
    const order: number[] = [];
    const waits = [0, 1, 2].map(async (index) => {
      const lease = await pool.acquire({ block: true });
      order.push(index);
      await lease.release();
    });
    assert.equal(pool.waiting, 3);
    await first.release();
    await Promise.all(waits);
    assert.deepEqual(order, [0, 1, 2]);
    assert.equal(pool.made.length, 1);
  });

  it('ends a wait at its timeout with LimitExceeded, and the next release goes to somebody else', async () => {
    const pool = new Things(1);
    const first = await pool.acquire();
    await assert.rejects(pool.acquire({ block: true, timeout: 5 }), (error: LimitExceeded) => {
      assert.ok(error instanceof LimitExceeded && error.cause instanceof TimeoutError);
      assert.match(error.message, /none was given back within 5 ms/);
      return true;
    });
    assert.equal(pool.waiting, 0);
    const second = pool.acquire({ block: true });
    await first.release();
    assert.equal((await second).thing, first.thing);
  });

  it('ends a wait by its signal, also one that aborted before or in the moment of its turn', async () => {
    const pool = new Things(1);
    const first = await pool.acquire();
    const reason = new Error('changed my mind');
    await assert.rejects(pool.acquire({ signal: AbortSignal.abort(reason) }), reason);
    const abort = new AbortController();
    const waiting = pool.acquire({ block: true, signal: abort.signal });
    abort.abort(reason);
    await assert.rejects(waiting, reason);
    const late = new AbortController();
    const turn = pool.acquire({ block: true, signal: late.signal });
    const released = first.release();
    late.abort(reason);
    await assert.rejects(turn, reason);
    await released;
    assert.deepEqual([pool.inUse, pool.idle, pool.waiting], [0, 1, 0]);
  });

  it('takes each lease back once: a second release gives back nothing that another has by then', async () => {
    const pool = new Things(1);
    const first = await pool.acquire();
    await first.release();
    const second = await pool.acquire();
    assert.notEqual(first, second);
    assert.equal(first.thing, second.thing);
    await first.release();
    await first.close();
    assert.deepEqual([pool.inUse, pool.idle, second.thing.closed], [1, 0, false]);
    await assert.rejects(pool.acquire(), LimitExceeded);
  });

  it('lends each lease of `await using` until the end of the block, also if it ends by an error', async () => {
    const pool = new Things(1);
    const failing = async (): Promise<void> => {
      await using lease = await pool.acquire();
      assert.equal(pool.inUse, 1);
      throw new Error(`in the block of ${lease.thing.id}`);
    };
    await assert.rejects(failing(), /in the block of 0/);
    assert.deepEqual([pool.inUse, pool.idle, pool.open], [0, 1, 1]);
  });

  it('makes another one for one that is closed, replaced, or found broken at either end', async () => {
    const pool = new Things(1);
    const closed = await pool.acquire();
    await closed.close();
    assert.deepEqual([pool.inUse, pool.idle, closed.thing.closed], [0, 0, true]);
    const replaced = await pool.acquire();
    await pool.replace(replaced);
    assert.equal(replaced.thing.closed, true);
    const broken = await pool.acquire();
    broken.thing.broken = true;
    await broken.release();
    assert.deepEqual([pool.idle, broken.thing.closed], [0, true]);
    const idle = await pool.acquire();
    await idle.release();
    idle.thing.broken = true;
    const last = await pool.acquire();
    assert.notEqual(last.thing, idle.thing);
    assert.equal(idle.thing.closed, true);
    assert.equal(pool.most, 1);
  });

  it('counts one that is being closed until it is gone', async () => {
    const pool = new Things(1);
    const lease = await pool.acquire();
    let closed: () => void = () => undefined;
    pool.closing = new Promise((resolve) => {
      closed = resolve;
    });
    const closing = lease.close();
    await assert.rejects(pool.acquire(), LimitExceeded);
    const waiting = pool.acquire({ block: true });
    closed();
    await closing;
    await waiting;
    assert.deepEqual([pool.most, pool.made.length], [1, 2]);
  });

  it('keeps its capacity when making or lending fails, and hands the turn on', async () => {
    const pool = new Things(1);
    pool.failToMake = true;
    await assert.rejects(pool.acquire(), /cannot make/);
    let open: () => void = () => undefined;
    pool.gate = new Promise((resolve) => {
      open = resolve;
    });
    const failing = assert.rejects(pool.acquire(), /cannot make/);
    const waiting = pool.acquire({ block: true });
    const stillFails = assert.rejects(waiting, /cannot make/);
    open();
    await failing;
    await stillFails;
    pool.failToMake = false;
    pool.failToLend = true;
    await assert.rejects(pool.acquire(), /cannot lend/);
    assert.deepEqual([pool.inUse, pool.idle], [0, 1]);
    pool.failToLend = false;
    const lease = await pool.acquire();
    assert.equal(lease.thing.id, 0);
  });

  it('serves 1,000 who ask at once, three at a time', async () => {
    const pool = new Things(3);
    let now = 0;
    let most = 0;
    const one = async (): Promise<void> => {
      await using _lease = await pool.acquire({ block: true });
      most = Math.max(most, ++now);
      await new Promise((resolve) => setImmediate(resolve));
      now--;
    };
    await Promise.all(Array.from({ length: 1000 }, one));
    assert.deepEqual([most, pool.most, pool.made.length, pool.idle, pool.inUse], [3, 3, 3, 3, 0]);
  });

  it('refuses options it does not know', async () => {
    const pool = new Things(1);
    await assert.rejects(pool.acquire({ blok: true } as object), /did you mean 'block'/);
    await assert.rejects(pool.acquire({ timeout: -1 }), { name: 'OptionError' });
    await assert.rejects(pool.resize(1, { forse: true } as object), { name: 'OptionError' });
    assert.throws(() => new Things(-1), { name: 'OptionError' });
    assert.throws(() => new Things(1.5), { name: 'OptionError' });
    assert.equal(pool.inUse, 0);
  });
});

describe('a pool without a limit', () => {
  for (const limit of [undefined, 0]) {
    it(`makes one for each who asks, and closes it when it comes back (limit ${limit})`, async () => {
      const pool = new Things(limit);
      const leases = await acquireAll(pool, 20);
      assert.equal(pool.open, 20);
      for (const lease of leases) await lease.release();
      assert.deepEqual([pool.open, pool.idle, pool.inUse], [0, 0, 0]);
    });
  }
});

describe('the limit of a pool', () => {
  it('grows while in use, and lets those in who wait', async () => {
    const pool = new Things(1);
    await pool.acquire();
    const waits = [pool.acquire({ block: true }), pool.acquire({ block: true })];
    pool.limit = 3;
    await Promise.all(waits);
    assert.deepEqual([pool.limit, pool.inUse], [3, 3]);
    await pool.resize(0);
    await pool.acquire();
    assert.equal(pool.inUse, 4);
  });

  it('does not shrink while in use', async () => {
    const pool = new Things(5);
    const lease = await pool.acquire();
    const refused = (error: LimitExceeded) => {
      assert.ok(error instanceof LimitExceeded);
      assert.match(error.message, /cannot lower the limit of a pool in use: it was 5, would be 2, and 1 are in use/);
      return true;
    };
    assert.throws(() => {
      pool.limit = 2;
    }, refused);
    await assert.rejects(pool.resize(2), refused);
    assert.equal(pool.limit, 5);
    await lease.release();
    pool.limit = 2;
    assert.equal(pool.limit, 2);
  });

  it('closes the longest idle when it shrinks', async () => {
    const pool = new Things(3);
    const leases = await acquireAll(pool, 3);
    for (const lease of leases) await lease.release();
    await pool.resize(1);
    assert.deepEqual(
      leases.map(({ thing }) => thing.closed),
      [true, true, false],
    );
    assert.equal(pool.idle, 1);
  });

  it('shrinks by force, which closes what is in use', async () => {
    const pool = new Things(3);
    const leases = await acquireAll(pool, 2);
    await pool.resize(1, { force: true });
    assert.deepEqual([pool.limit, pool.inUse, pool.open, pool.closed], [1, 0, 0, false]);
    await leases[0]!.release();
    assert.equal(pool.idle, 0);
    const waiting = [pool.acquire({ block: true }), pool.acquire({ block: true }), pool.acquire({ block: true })];
    await waiting[0];
    await pool.resize(3);
    await Promise.all(waiting);
    const over = pool.acquire({ block: true });
    await pool.resize(1, { force: true });
    assert.equal((await over).thing.closed, false);
    assert.deepEqual([pool.limit, pool.inUse, pool.most], [1, 1, 3]);
    await assert.rejects(pool.acquire(), LimitExceeded);
  });

  it('lets in those who wait up to the new limit only, when it shrinks by force', async () => {
    const pool = new Things(3);
    await acquireAll(pool, 3);
    const waiting = [pool.acquire({ block: true }), pool.acquire({ block: true })];
    await pool.resize(1, { force: true });
    const first = await waiting[0];
    assert.deepEqual([pool.inUse, pool.waiting], [1, 1]);
    await first!.release();
    await waiting[1];
  });

  it('shrinks with ignoreErrors, which closes what comes back too many', async () => {
    const pool = new Things(3);
    const leases = await acquireAll(pool, 3);
    await pool.resize(1, { ignoreErrors: true });
    assert.deepEqual([pool.limit, pool.inUse, pool.open], [1, 3, 3]);
    const waiting = pool.acquire({ block: true });
    await leases[0]!.release();
    await leases[1]!.release();
    assert.equal(pool.waiting, 1);
    await leases[2]!.release();
    await waiting;
    assert.deepEqual([pool.inUse, pool.open], [1, 1]);
  });

  it('can be set with a reset, which closes everything', async () => {
    const pool = new Things(2);
    const [used, idle] = await acquireAll(pool, 2);
    await idle!.release();
    await pool.resize(4, { reset: true });
    assert.deepEqual([pool.inUse, pool.idle, pool.open, pool.limit], [0, 0, 0, 4]);
    await used!.release();
    assert.equal(pool.idle, 0);
    await acquireAll(pool, 4);
  });
});

describe('closing a pool', () => {
  it('closes all, in use or not, refuses more, and ends what waits', async () => {
    const pool = new Things(2);
    const [used, idle] = await acquireAll(pool, 2);
    await idle!.release();
    const again = await pool.acquire();
    const waiting = assert.rejects(pool.acquire({ block: true }), ClosedError);
    await pool.forceCloseAll();
    await waiting;
    assert.deepEqual([pool.closed, pool.open, pool.inUse, pool.idle], [true, 0, 0, 0]);
    await assert.rejects(pool.acquire(), ClosedError);
    for (const lease of [used, again]) await lease!.release();
    assert.equal(pool.idle, 0);
    await pool.forceCloseAll();
  });

  it('leaves nothing open that was being made', async () => {
    const pool = new Things(2);
    let open: () => void = () => undefined;
    pool.gate = new Promise((resolve) => {
      open = resolve;
    });
    const asking = assert.rejects(pool.acquire(), ClosedError);
    await pool.forceCloseAll();
    open();
    await asking;
    assert.deepEqual([pool.made.length, pool.open], [1, 0]);
  });

  it('closes the pool at the end of an `await using` block', async () => {
    let outer: Things;
    {
      await using pool = new Things(1);
      outer = pool;
      await pool.acquire();
    }
    assert.deepEqual([outer.closed, outer.open], [true, 0]);
  });
});

describe('any sequence of events', () => {
  it('never has more open than the limit, loses no place, and leaves nobody waiting while there is room', async () => {
    const event = fc.oneof(
      fc.constant({ do: 'acquire' as const }),
      fc.record({ do: fc.constantFrom('release' as const, 'close' as const, 'again' as const), which: fc.nat(50) }),
      fc.constant({ do: 'grow' as const }),
      fc.constant({ do: 'reset' as const }),
    );
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.array(event, { maxLength: 60 }), async (limit, events) => {
        const pool = new Things(limit);
        const held: Lease[] = [];
        const over: Lease[] = [];
        const waits = new Set<Promise<void>>();
        for (const each of events) {
          if (each.do === 'acquire') {
            const wait = pool.acquire({ block: true }).then(
              (lease) => {
                held.push(lease);
              },
              (error) => assert.ok(error instanceof ClosedError),
            );
            waits.add(wait);
          } else if (each.do === 'grow') pool.limit += 1;
          else if (each.do === 'reset') {
            over.push(...held.splice(0));
            await pool.forceCloseAll(false);
          } else if (each.do === 'again') await over[each.which % over.length]?.release();
          else {
            const [lease] = held.length > 0 ? held.splice(each.which % held.length, 1) : [];
            await (each.do === 'release' ? lease?.release() : lease?.close());
            if (lease !== undefined) over.push(lease);
          }
          assert.ok(pool.inUse + pool.idle <= pool.limit && pool.open <= pool.limit, 'within the limit');
          assert.ok(pool.waiting === 0 || pool.inUse === pool.limit, 'nobody waits where there is room');
        }
        await new Promise((resolve) => setImmediate(resolve));
        while (pool.waiting > 0 || held.length > 0) {
          await held.shift()?.release();
          await new Promise((resolve) => setImmediate(resolve));
        }
        await Promise.all(waits);
        assert.equal(pool.inUse, 0);
        await pool.forceCloseAll();
        assert.equal(pool.open, 0);
      }),
      { numRuns: 200 },
    );
  });
});
