/** The ledger against a broker with RabbitMQ's rules, written here as a plain list of outstanding tags. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ACK, Ledger, type LedgerVerdict, REJECT, REQUEUE } from '#src/main/transports/amqp/ledger';
import { splitFrames } from '../support/amqp-bytes.js';

const CHANNEL = 0x1234;
const NAMES = { [ACK]: 'ack', [REJECT]: 'reject', [REQUEUE]: 'requeue' } as const;

/** What RabbitMQ does with acks: an unknown tag closes the channel, which is an error here. */
class Broker {
  readonly outstanding: bigint[] = [];
  readonly outcomes = new Map<bigint, string>();
  frames = 0;

  apply(bytes: Buffer): void {
    for (const { type, channel, payload } of splitFrames(bytes)) {
      this.frames++;
      assert.deepEqual([type, channel, payload.length], [1, CHANNEL, 13]);
      assert.equal(payload.readUInt16BE(0), 60);
      const method = payload.readUInt16BE(2);
      const tag = payload.readBigUInt64BE(4);
      const bits = payload[12]!;
      const known = this.outstanding.includes(tag);
      assert.ok(known, `406: unknown delivery tag ${tag}`);
      if (method === 80) {
        const multiple = (bits & 1) === 1;
        for (const each of this.outstanding.filter((other) => other === tag || (multiple && other < tag))) {
          this.#settle(each, 'ack');
        }
      } else if (method === 90) {
        this.#settle(tag, bits & 1 ? 'requeue' : 'reject');
      } else {
        assert.equal(method, 120);
        assert.equal(bits & 1, 0, 'a nack of one message');
        this.#settle(tag, bits & 2 ? 'requeue' : 'reject');
      }
    }
  }

  #settle(tag: bigint, outcome: string): void {
    this.outcomes.set(tag, outcome);
    this.outstanding.splice(this.outstanding.indexOf(tag), 1);
  }
}

const verdict = fc.constantFrom<LedgerVerdict>(ACK, ACK, ACK, REJECT, REQUEUE);
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ add: fc.integer({ min: 1, max: 12 }), gap: fc.nat(3) }) },
  { weight: 8, arbitrary: fc.record({ settle: fc.nat(), verdict }) },
  { weight: 2, arbitrary: fc.record({ around: fc.boolean() }) },
);

function add(ledger: Ledger, broker: Broker, tag: bigint): number {
  broker.outstanding.push(tag);
  return ledger.add(Number(tag >> 32n), Number(tag & 0xffffffffn));
}

describe('the ledger', () => {
  it('tells the broker each verdict exactly, in any order of arrivals, verdicts and writes', () => {
    const start = fc.constantFrom(1n, 2n ** 32n - 6n, 2n ** 31n - 6n, 2n ** 53n, 2n ** 63n - 4n);
    fc.assert(
      fc.property(fc.constantFrom(1, 2, 64), start, fc.array(step, { maxLength: 150 }), (capacity, first, steps) => {
        const ledger = new Ledger(capacity);
        const broker = new Broker();
        const open: { tag: bigint; entry: number }[] = [];
        const told = new Map<bigint, string>();
        let tag = first;
        const write = (around: boolean): void => {
          const wasReady = ledger.ready;
          const unsent = ledger.unsent;
          const bytes = ledger.write(CHANNEL, around);
          assert.equal(bytes !== undefined, around ? unsent > 0 : wasReady);
          if (bytes === undefined) return;
          assert.ok(bytes.length > 0 && bytes.length <= 21 * unsent, 'never more frames than verdicts');
          broker.apply(bytes);
          assert.ok(!ledger.ready, 'what was ready is written');
          if (around) assert.equal(ledger.unsent, 0);
        };
        for (const one of steps) {
          if ('add' in one) {
            for (let i = 0; i < one.add; i++) open.push({ tag, entry: add(ledger, broker, tag++) });
            // A swallowed tag (basic.get on the same channel) leaves a gap.
            tag += BigInt(one.gap);
          } else if ('settle' in one) {
            if (open.length === 0) continue;
            // Mostly near the front, as workers do.
            const place = one.settle % Math.min(open.length, 1 + (one.settle % 40));
            const [chosen] = open.splice(place, 1);
            ledger.settle(chosen!.entry, one.verdict);
            told.set(chosen!.tag, NAMES[one.verdict]);
          } else {
            write(one.around);
          }
          assert.equal(ledger.size, broker.outstanding.length);
          assert.equal(ledger.unsent, told.size - broker.outcomes.size);
          for (const [each, outcome] of broker.outcomes) assert.equal(outcome, told.get(each), `tag ${each}`);
        }
        write(true);
        assert.deepEqual(new Map([...broker.outcomes].sort()), new Map([...told].sort()));
        assert.deepEqual(
          broker.outstanding,
          open.map((each) => each.tag).sort((a, b) => (a < b ? -1 : 1)),
        );
        for (const { entry } of open) ledger.settle(entry, ACK);
        write(false);
        assert.equal(ledger.size, 0);
      }),
      { numRuns: 600 },
    );
  });

  it('writes a settled prefix as one ack', () => {
    const ledger = new Ledger(8);
    const broker = new Broker();
    const entries = Array.from({ length: 100 }, (_, index) => add(ledger, broker, BigInt(index + 1)));
    for (const entry of entries.slice(0, 99).reverse()) ledger.settle(entry, ACK);
    const bytes = ledger.write(CHANNEL, false)!;
    assert.equal(bytes.toString('hex'), '01123400' + '00000d' + '003c0050' + '0000000000000063' + '01' + 'ce');
    broker.apply(bytes);
    assert.deepEqual(broker.outstanding, [100n]);
    assert.equal(broker.outcomes.size, 99);
  });

  it('writes rejects and nacks before the ack that covers them', () => {
    const ledger = new Ledger(8);
    const broker = new Broker();
    const entries = [1n, 2n, 3n, 4n, 5n].map((tag) => add(ledger, broker, tag));
    const verdicts = [REJECT, ACK, REQUEUE, ACK, REJECT] as const;
    for (const [index, entry] of entries.entries()) ledger.settle(entry, verdicts[index]!);
    const bytes = ledger.write(CHANNEL, false)!;
    assert.deepEqual(
      splitFrames(bytes).map(({ payload }) => [
        payload.readUInt16BE(2),
        Number(payload.readBigUInt64BE(4)),
        payload[12],
      ]),
      [
        [90, 1, 0],
        [120, 3, 2],
        [90, 5, 0],
        [80, 4, 1],
      ],
    );
    broker.apply(bytes);
    assert.deepEqual(broker.outstanding, []);
  });

  it('never says multiple around a hole', () => {
    const ledger = new Ledger(8);
    const entries = [1n, 2n, 3n, 4n].map((tag) => add(ledger, new Broker(), tag));
    for (const entry of entries.slice(1)) ledger.settle(entry, ACK);
    assert.equal(ledger.write(CHANNEL, false), undefined);
    const frames = splitFrames(ledger.write(CHANNEL, true)!);
    assert.deepEqual(
      frames.map(({ payload }) => [Number(payload.readBigUInt64BE(4)), payload[12]]),
      [
        [2, 0],
        [3, 0],
        [4, 0],
      ],
    );
    assert.equal(ledger.size, 1);
  });

  it('writes nothing twice', () => {
    const ledger = new Ledger(2);
    const entry = add(ledger, new Broker(), 1n);
    ledger.settle(entry, ACK);
    assert.ok(ledger.write(CHANNEL, true));
    assert.equal(ledger.write(CHANNEL, true), undefined);
    assert.equal(ledger.write(CHANNEL, false), undefined);
  });

  it('refuses to settle an entry twice, written or not', () => {
    const ledger = new Ledger(2);
    const entry = add(ledger, new Broker(), 1n);
    ledger.settle(entry, ACK);
    assert.throws(() => ledger.settle(entry, REJECT), RangeError);
    ledger.write(CHANNEL, true);
    assert.throws(() => ledger.settle(entry, ACK), RangeError);
    assert.equal(ledger.unsent, 0);
  });

  it('uses the entries of what was written again, so that it grows with the deliveries outstanding alone', () => {
    const ledger = new Ledger(4);
    let highest = 0;
    for (let round = 0; round < 1000; round++) {
      const entries = [1, 2, 3, 4].map((place) => ledger.add(0, round * 4 + place));
      highest = Math.max(highest, ...entries);
      for (const entry of entries) ledger.settle(entry, ACK);
      ledger.write(CHANNEL, round % 2 === 0);
    }
    assert.equal(highest, 3);
    assert.deepEqual([ledger.size, ledger.unsent, ledger.ready], [0, 0, false]);
  });
});
