/**
 * Bells between real threads: two that only ever run when the other has rung, thousands of times. A wake-up that is lost
 * stops both for ever, which the test's time limit ends. This file is the test and, on another thread, its partner.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { cancelSleep, prepareSleep, ring, ringAlways, sleepUntilRung } from '#src/pool/bell';

/** Words of one side: how often it has played, its bell, its sleeping flag. Each on a cache line of its own. */
const SIDE = 48;
const PLAYED = 0;
const BELL = 16;
const SLEEPING = 32;

interface Game {
  readonly words: SharedArrayBuffer;
  readonly rounds: number;
  readonly balls: number;
}

/** Waits until the other side has played more than `seen` balls; returns how many. */
async function played(words: Int32Array, own: number, other: number, seen: number): Promise<number> {
  for (;;) {
    const token = prepareSleep(words, own + BELL, own + SLEEPING);
    const count = Atomics.load(words, other + PLAYED);
    if (count !== seen) {
      cancelSleep(words, own + SLEEPING);
      return count;
    }
    await sleepUntilRung(words, own + BELL, token);
  }
}

/** Plays until both have played every ball. At most `balls` are in the air, so each side sleeps and is awake by turns. */
async function play({ words: shared, rounds, balls }: Game, own: number, other: number): Promise<void> {
  const words = new Int32Array(shared);
  let mine = 0;
  let theirs = 0;
  while (mine < rounds || theirs < rounds) {
    while (mine < rounds && mine < theirs + balls) {
      // A pause of a different length each time, so that the ring falls into every place of the other's way to sleep.
      for (let i = (mine * 37) % 300; i > 0; i--) Atomics.load(words, own + PLAYED);
      mine++;
      Atomics.store(words, own + PLAYED, mine);
      ring(words, other + BELL, other + SLEEPING);
    }
    if (theirs < rounds) theirs = await played(words, own, other, theirs);
  }
}

if (!isMainThread) {
  // Something must hold the thread while it sleeps: a bell does not.
  const hold = setInterval(() => undefined, 1 << 30);
  void play(workerData as Game, SIDE, 0).then(() => {
    clearInterval(hold);
    parentPort!.postMessage('done');
  });
} else {
  describe('two threads that wake each other', () => {
    for (const [rounds, balls] of [
      [5000, 1],
      [20_000, 3],
    ] as const) {
      it(`never lose a wake-up in ${rounds} rounds with ${balls} in the air`, { timeout: 60_000 }, async (context) => {
        const game: Game = { words: new SharedArrayBuffer(2 * SIDE * 4), rounds, balls };
        const partner = new Worker(new URL(import.meta.url), { workerData: game });
        context.after(() => partner.terminate());
        const ended = new Promise<void>((resolve, reject) =>
          partner.once('error', reject).once('exit', () => resolve()),
        );
        await Promise.all([play(game, 0, SIDE), ended]);
        const words = new Int32Array(game.words);
        assert.deepEqual([words[PLAYED], words[SIDE + PLAYED]], [rounds, rounds]);
      });
    }
  });

  describe('a bell', () => {
    const open = (): Int32Array => new Int32Array(new SharedArrayBuffer(SIDE * 4));

    it('is not rung for one who is awake', () => {
      const words = open();
      assert.equal(ring(words, BELL, SLEEPING), false);
      assert.equal(words[BELL], 0);
    });

    it('rung between the first step of going to sleep and the last lets nobody sleep', () => {
      const words = open();
      const token = prepareSleep(words, BELL, SLEEPING);
      assert.equal(ring(words, BELL, SLEEPING), true);
      assert.equal(sleepUntilRung(words, BELL, token), undefined);
      assert.equal(words[SLEEPING], 0);
    });

    it('wakes its sleeper once, by one ringer only', async () => {
      const words = open();
      const asleep = sleepUntilRung(words, BELL, prepareSleep(words, BELL, SLEEPING));
      assert.ok(asleep instanceof Promise);
      assert.deepEqual([ring(words, BELL, SLEEPING), ring(words, BELL, SLEEPING)], [true, false]);
      assert.equal(await asleep, 'ok');
      assert.equal(words[SLEEPING], 0);
    });

    it('is not rung for one who found work after all', () => {
      const words = open();
      prepareSleep(words, BELL, SLEEPING);
      cancelSleep(words, SLEEPING);
      assert.equal(ring(words, BELL, SLEEPING), false);
    });

    it('that must be heard wakes a sleeper and keeps one on the way to sleep awake', async () => {
      const words = open();
      const token = prepareSleep(words, BELL, SLEEPING);
      ringAlways(words, BELL, SLEEPING);
      assert.equal(sleepUntilRung(words, BELL, token), undefined);
      const asleep = sleepUntilRung(words, BELL, prepareSleep(words, BELL, SLEEPING));
      ringAlways(words, BELL, SLEEPING);
      assert.equal(await asleep, 'ok');
      assert.equal(words[SLEEPING], 0);
    });

    it('still works when its count goes beyond 2^31', async () => {
      const words = open();
      words[BELL] = 2 ** 31 - 1;
      for (let round = 0; round < 3; round++) {
        const asleep = sleepUntilRung(words, BELL, prepareSleep(words, BELL, SLEEPING));
        ring(words, BELL, SLEEPING);
        assert.equal(await asleep, 'ok');
      }
      assert.equal(words[BELL], 2 - 2 ** 31);
    });
  });
}
