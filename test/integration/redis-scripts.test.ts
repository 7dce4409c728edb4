/** The scripts on a real server against a model of lists and records: random takes, acks, renewals, returns and overdue looks. */
import assert from 'node:assert/strict';
import { Connection } from '#src/main/connection';
import { openClient } from '#src/main/transports/redis/client';
import { recordEnd } from '#src/main/transports/redis/record';
import { redisTest } from '../support/redis.js';

/** Numbers from 0 to below `n`: the same for the same seed. */
function random(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

for (let seed = 1; seed <= 8; seed++) {
  redisTest(`scripts do as the model does, seed ${seed}`, async (redis) => {
    const { client } = await openClient(new Connection(redis.url).parameters);
    const upTo = random(seed);
    // The front of the line is the end, as in Redis.
    const lists: Record<string, string[]> = { a: [], a3: [], b: [] };
    const names = Object.keys(lists);
    const records = new Map<string, { list: string; envelope: string; score: number }>();
    let tag = 1;
    for (let step = 0; step < 300; step++) {
      const some = [...records.keys()].filter(() => upTo(3) === 0).slice(0, 40);
      switch (upTo(6)) {
        case 0: {
          const list = names[upTo(3)]!;
          for (let i = upTo(100); i >= 0; i--) {
            const envelope = `{"n":${step}.${i},"x":"${'x'.repeat(upTo(50))}"}`;
            lists[list]!.unshift(envelope);
            await client.lpush(list, envelope);
          }
          break;
        }
        case 1: {
          const [most, bytes, ofA, ofB] = [1 + upTo(150), 1 + upTo(6000), upTo(100), upTo(100)];
          const expected: [number, string][] = [];
          let [room, left] = [most, bytes];
          const rooms = [ofA, ofB];
          for (const [place, list] of names.entries()) {
            const queue = list === 'b' ? 1 : 0;
            while (room > 0 && left > 0 && rooms[queue]! > 0 && lists[list]!.length > 0) {
              const envelope = lists[list]!.pop()!;
              expected.push([place + 1, envelope]);
              records.set(`t${tag + expected.length - 1}`, { list, envelope, score: Date.now() / 1000 });
              room--;
              rooms[queue]!--;
              left -= envelope.length;
            }
          }
          const found = await client.mozukuTakeBuffer(
            5,
            ...['unacked', 'unacked_index', ...names, most, bytes, 't', tag, '', 2],
            ...[ofA, recordEnd('a'), ofB, recordEnd('b'), 1, 1, 2],
          );
          const got = Array.from({ length: found.length / 2 }, (_, i) => [found[2 * i], String(found[2 * i + 1])]);
          assert.deepEqual(got, expected);
          tag += expected.length;
          break;
        }
        case 2: {
          if (some.length === 0) break;
          assert.equal(await client.mozukuAck(2, 'unacked', 'unacked_index', ...some, 'unknown'), some.length);
          for (const each of some) records.delete(each);
          break;
        }
        case 3: {
          if (some.length === 0) break;
          assert.deepEqual(await client.mozukuRenew(1, 'unacked_index', ...some, 'unknown'), ['unknown']);
          for (const each of some) records.get(each)!.score = Date.now() / 1000;
          break;
        }
        case 4: {
          const back = some.map((each) => ({ each, ...records.get(each)! }));
          const reply = await client.mozukuPutBackBuffer(
            2 + back.length,
            ...['unacked', 'unacked_index', ...back.map(({ list }) => list), ''],
            ...back.flatMap(({ each, envelope }) => [each, envelope, '']),
          );
          assert.deepEqual(reply, [back.length]);
          for (const { each, list, envelope } of back) {
            lists[list]!.push(envelope);
            records.delete(each);
          }
          break;
        }
        case 5: {
          // As if some had been taken long ago.
          for (const each of some) {
            records.get(each)!.score = 1000 + Number(each.slice(1));
            await client.zadd('unacked_index', 1000 + Number(each.slice(1)), each);
          }
          const [, ...found] = await client.mozukuOverdueBuffer(2, 'unacked', 'unacked_index', 3600, 1000);
          const tags = found.filter((_, i) => i % 2 === 0).map(String);
          const overdue = [...records].filter(([, { score }]) => score < 1e6).sort(([, a], [, b]) => a.score - b.score);
          assert.deepEqual(
            tags,
            overdue.map(([each]) => each),
          );
          break;
        }
      }
      for (const list of names) assert.deepEqual(await client.lrange(list, 0, -1), lists[list]);
      assert.deepEqual((await client.hkeys('unacked')).sort(), [...records.keys()].sort());
      assert.equal(await client.zcard('unacked_index'), records.size);
    }
    client.disconnect();
  });
}
