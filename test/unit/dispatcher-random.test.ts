/**
 * The dispatcher over random lives: deliveries, claims, verdicts, deaths, zombies and ends of generations in any order,
 * against a model that knows for each message where it may be. In the end no slot and no byte may be left.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Dispatcher, type DispatchSink } from '#src/main/runtime/dispatcher';
import { Arena } from '#src/pool/arena';
import { claim, NONE } from '#src/pool/lane';
import { board, GENERATION_MASK, slot, state, stateWord, verdict } from '#src/pool/layout';
import { allocateBlock, allocateMemory } from '#src/pool/memory';
import { SettlementWriter } from '#src/pool/settlement-ring';

const SLOTS = 32;
/** Beyond these the broker sends nothing: zombies need slots to move to. */
const PREFETCH = 16;

interface Life {
  readonly id: number;
  readonly words: Int32Array;
  readonly writer: SettlementWriter;
  readonly claimed: number[];
}

class World {
  readonly memory = allocateMemory(SLOTS, 4 << 20);
  readonly arena = new Arena(4 << 20);
  readonly region = this.arena.take(1);
  readonly dispatcher: Dispatcher;
  lives: Life[] = [];
  zombies: Life[] = [];
  #ids = 0;
  #entries = 0;
  /** Messages of the living generation that the broker waits for: what was said of each, if anything. */
  readonly outstanding = new Map<number, number | undefined>();
  readonly dead: { index: number; word: number; entry: number }[] = [];
  #alive = true;

  constructor(counter: number, generation: number) {
    this.memory.boardWords[board.LANE_HEAD] = counter | 0;
    this.memory.boardWords[board.LANE_TAIL] = counter | 0;
    for (let i = 0; i < SLOTS; i++) this.memory.slotWords[i << slot.SHIFT] = stateWord(generation, 0, state.FREE);
    const sink: DispatchSink = {
      settle: (entry, outcome) => {
        assert.ok(this.outstanding.has(entry), `message ${entry} is settled though nobody waits for it`);
        const said = this.outstanding.get(entry);
        assert.ok(
          said === undefined ? outcome === verdict.REQUEUE : said === outcome,
          `message ${entry}: ${said}, told ${outcome}`,
        );
        this.outstanding.delete(entry);
      },
      retry: () => assert.fail('nobody asked for it'),
      dead: (index) => this.dead.push({ index, word: this.dispatcher.stateOf(index), entry: this.#tag(index) }),
    };
    this.dispatcher = new Dispatcher(this.memory, this.arena, sink, 2);
    this.dispatcher.begin();
    this.join();
  }

  #tag(index: number): number {
    return this.memory.slotWords[(index << slot.SHIFT) + slot.TAG_LO]!;
  }

  join(): void {
    if (this.lives.length >= 4) return;
    this.#ids = (this.#ids % 255) + 1;
    while ([...this.lives, ...this.zombies].some(({ id }) => id === this.#ids)) this.#ids = (this.#ids % 255) + 1;
    const words = new Int32Array(allocateBlock(8, SLOTS));
    const writer = new SettlementWriter(words, this.memory.slotWords, 8, SLOTS);
    const life = { id: this.#ids, words, writer, claimed: [] };
    this.dispatcher.add({ id: life.id, block: words }, 8);
    this.lives.push(life);
  }

  accept(length: number, held: boolean): void {
    if (!this.#alive || this.outstanding.size >= PREFETCH || this.dispatcher.used >= SLOTS - PREFETCH / 2) return;
    this.arena.hold(this.region, length);
    const entry = this.#entries++;
    const index = this.dispatcher.accept(this.region, length, 0, entry, false, entry, held);
    assert.notEqual(index, NONE);
    this.outstanding.set(entry, undefined);
    if (held) {
      this.outstanding.set(entry, verdict.ACK);
      this.dead.push({ index, word: this.dispatcher.stateOf(index), entry });
    }
  }

  claim(which: number, starts: boolean): void {
    const life = this.lives[which % Math.max(1, this.lives.length)];
    if (life === undefined) return;
    const index = claim(this.memory, life.id);
    if (index === NONE) return;
    for (const other of [...this.lives, ...this.zombies])
      assert.ok(!other.claimed.includes(index), 'claimed twice at once');
    assert.ok(this.outstanding.has(this.#tag(index)), 'claimed after its generation ended');
    assert.equal(this.outstanding.get(this.#tag(index)), undefined, 'claimed after it was settled');
    life.claimed.push(index);
    this.memory.slotWords[(index << slot.SHIFT) + slot.STARTED] = starts ? 1 : 0;
  }

  settle(which: number, said: number): void {
    const life = this.lives[which % Math.max(1, this.lives.length)];
    const [index] = life?.claimed.splice(which % Math.max(1, life.claimed.length), 1) ?? [];
    if (life === undefined || index === undefined) return;
    const entry = this.#tag(index);
    if (this.outstanding.has(entry)) this.outstanding.set(entry, said === verdict.DEAD ? verdict.ACK : said);
    life.writer.push(index, said);
  }

  /** The worker dies, or is given up if `stuck`; `blamed`: by something that it ran. */
  die(which: number, stuck: boolean, blamed: boolean): void {
    const [life] = this.lives.splice(which % Math.max(1, this.lives.length), 1);
    if (life === undefined) return;
    const verdict = { blame: blamed, cause: 'a test', onCulprit: () => undefined };
    if (stuck && this.zombies.length < 2 && life.claimed.length <= SLOTS - this.dispatcher.used) {
      this.dispatcher.drain();
      this.dispatcher.disown(life.id, verdict);
      this.zombies.push(life);
    } else {
      this.dispatcher.sweep(life.id, verdict);
    }
    this.#markDead();
  }

  /** Those that went to the dead letters by deaths will be acked there. */
  #markDead(): void {
    for (const { entry } of this.dead)
      if (this.outstanding.get(entry) === undefined && this.outstanding.has(entry))
        this.outstanding.set(entry, verdict.ACK);
  }

  exit(): void {
    const zombie = this.zombies.shift();
    if (zombie !== undefined) this.dispatcher.retire(zombie.id);
  }

  bury(): void {
    const letter = this.dead.shift();
    if (letter === undefined) return;
    const waited = this.outstanding.has(letter.entry);
    assert.equal(this.dispatcher.finish(letter.index, letter.word, verdict.ACK), waited);
  }

  end(again: boolean): void {
    this.dispatcher.end();
    this.outstanding.clear();
    this.#alive = again || this.#alive;
    if (again) this.dispatcher.begin();
    else this.#alive = false;
  }

  finish(): void {
    this.end(true);
    while (this.lives.length > 0) this.die(0, false, false);
    while (this.zombies.length > 0) this.exit();
    while (this.dead.length > 0) this.bury();
    assert.deepEqual([this.dispatcher.used, this.arena.usedBytes], [0, 0]);
    this.arena.leave(this.region, this.region + (1 << 20));
    assert.equal(this.arena.takenBytes, 0);
    // The lane may hold dead cells only.
    assert.equal(claim(this.memory, 1), NONE);
  }
}

const number = fc.nat(1000);
const said = fc.constantFrom(verdict.ACK, verdict.ACK, verdict.REJECT, verdict.REQUEUE, verdict.DEAD);
const step: fc.Arbitrary<(world: World) => void> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.tuple(fc.integer({ min: 1, max: 5000 }), fc.nat(9)).map(
      ([length, n]) =>
        (w: World) =>
          w.accept(length, n === 0),
    ),
  },
  { weight: 5, arbitrary: fc.constant((w: World) => w.dispatcher.flush()) },
  {
    weight: 8,
    arbitrary: fc.tuple(number, fc.boolean()).map(
      ([n, starts]) =>
        (w: World) =>
          w.claim(n, starts),
    ),
  },
  {
    weight: 7,
    arbitrary: fc.tuple(number, said).map(
      ([n, what]) =>
        (w: World) =>
          w.settle(n, what),
    ),
  },
  { weight: 4, arbitrary: fc.constant((w: World) => void w.dispatcher.drain()) },
  {
    weight: 1,
    arbitrary: fc.tuple(number, fc.boolean(), fc.boolean()).map(
      ([n, stuck, blamed]) =>
        (w: World) =>
          w.die(n, stuck, blamed),
    ),
  },
  { weight: 2, arbitrary: fc.constant((w: World) => w.join()) },
  { weight: 1, arbitrary: fc.constant((w: World) => w.exit()) },
  { weight: 2, arbitrary: fc.constant((w: World) => w.bury()) },
  { weight: 1, arbitrary: fc.boolean().map((again) => (w: World) => w.end(again)) },
  { weight: 1, arbitrary: fc.constant((w: World) => void w.dispatcher.giveBack()) },
);

describe('the dispatcher over random lives', () => {
  it('settles each message at most once, as it was told, for its own generation only, and leaks nothing', () => {
    const counter = fc.constantFrom(0, 2 ** 31 - 20, 2 ** 32 - 20);
    const generation = fc.constantFrom(0, GENERATION_MASK - 5);
    fc.assert(
      fc.property(
        counter,
        generation,
        fc.array(step, { minLength: 20, maxLength: 400, size: 'max' }),
        (at, from, steps) => {
          const world = new World(at, from);
          for (const one of steps) one(world);
          world.finish();
        },
      ),
      { numRuns: 400 },
    );
  });

  it('settles every message that was accepted, if its generation lives and its workers answer in the end', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 200, size: 'max' }), (steps) => {
        const world = new World(0, 0);
        for (const one of steps) one(world);
        world.dispatcher.flush();
        // No more deaths: whoever lives claims and acks until nothing is left.
        for (let round = 0; round < 3; round++) {
          world.join();
          for (const [place, life] of world.lives.entries()) {
            for (let left = 0; left < SLOTS; left++) world.claim(place, true);
            while (life.claimed.length > 0) world.settle(place, verdict.ACK);
          }
          world.dispatcher.drain();
          while (world.dead.length > 0) world.bury();
        }
        assert.equal(world.outstanding.size, 0);
        world.finish();
      }),
      { numRuns: 200 },
    );
  });
});
