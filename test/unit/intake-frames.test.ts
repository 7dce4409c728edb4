/**
 * The intake's rules about single frames: which ends a generation and when that is said, what a channel that we close may
 * still send, and what is so wrong that the connection must be given up.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FrameError } from '#src/errors';
import { Intake, type IntakeSink } from '#src/main/transports/amqp/intake';
import { Arena } from '#src/pool/arena';
import { SEGMENT_BYTES } from '#src/pool/layout';
import {
  brokenFrame,
  channelClose,
  channelCloseOk,
  channelOpenOk,
  connectionClose,
  contentHeader,
  deliverMethod,
  delivery,
  frame,
  heartbeat,
  method,
  pattern,
  rawHeader,
} from '../support/amqp-bytes.js';

const OURS = 5;
const FRAME_MAX = 8192;

/** An intake on channel 5 whose sink writes down what it is told, in order. */
function open(segments = 4): { intake: Intake; arena: Arena; log: string[]; feed: (...frames: Buffer[]) => void } {
  const log: string[] = [];
  const memory = new SharedArrayBuffer(segments * SEGMENT_BYTES);
  const arena = new Arena(memory.byteLength);
  const sink: IntakeSink = {
    delivery: (_start, _length, bodySize, hi, lo) => log.push(`delivery ${hi * 2 ** 32 + lo} of ${bodySize}`),
    shed: (hi, lo) => log.push(`shed ${hi * 2 ** 32 + lo}`),
    oversize: (hi, lo, size) => log.push(`oversize ${hi * 2 ** 32 + lo} of ${size}`),
    closing: () => log.push('closing'),
    passOn: (frames) => log.push(`pass ${frames.toString('hex')}`),
    swallows: (size) => size > 2_000_000,
  };
  const intake = new Intake(memory, arena, sink, FRAME_MAX);
  intake.capture(OURS);
  const feed = (...frames: Buffer[]): void => {
    const stream = Buffer.concat(frames);
    for (let at = 0; at < stream.length; ) {
      const room = intake.room();
      const count = Math.min(room.length, stream.length - at);
      room.set(stream.subarray(at, at + count));
      intake.received(count);
      at += count;
    }
  };
  return { intake, arena, log, feed };
}

const pass = (...frames: Buffer[]): string => `pass ${Buffer.concat(frames).toString('hex')}`;

describe('the end of a generation', () => {
  it('is said before the frame that ends it is passed on, with the deliveries before it said already', () => {
    for (const end of [channelClose(OURS), connectionClose()]) {
      const { log, feed } = open();
      feed(heartbeat, ...delivery(OURS, 1n, pattern(1, 10)), method(1, 50, 11), end);
      assert.deepEqual(log, [pass(heartbeat), 'delivery 1 of 10', 'closing', pass(method(1, 50, 11), end)]);
    }
  });

  it('is not said for the close of another channel', () => {
    const { log, feed } = open();
    feed(channelClose(4), ...delivery(OURS, 1n, pattern(1, 10)));
    assert.deepEqual(log, [pass(channelClose(4)), 'delivery 1 of 10']);
  });

  it('leaves the channel to amqplib, until a channel is captured again', () => {
    const { intake, log, feed } = open();
    const late = delivery(OURS, 2n, pattern(1, 10));
    feed(channelClose(OURS), ...late);
    assert.deepEqual(log, ['closing', pass(channelClose(OURS)), pass(...late)]);
    intake.capture(OURS);
    feed(...delivery(OURS, 1n, pattern(1, 20)));
    assert.equal(log.at(-1), 'delivery 1 of 20');
  });

  it('forgets a half-read delivery of the connection, and frees its memory with the next capture', () => {
    const { intake, arena, log, feed } = open(8);
    const frames = delivery(OURS, 1n, pattern(1, 1_500_000), { frameMax: FRAME_MAX });
    feed(...frames.slice(0, 100), connectionClose());
    assert.deepEqual(log, ['closing', pass(connectionClose())]);
    intake.capture(9);
    feed(...delivery(9, 1n, pattern(1, 5)));
    assert.equal(log.at(-1), 'delivery 1 of 5');
    intake.leave();
    assert.ok(arena.takenBytes <= SEGMENT_BYTES);
  });

  it('names the channel that was opened last', () => {
    const { intake, feed } = open();
    assert.equal(intake.lastOpened, -1);
    feed(channelOpenOk(1), channelOpenOk(700));
    assert.equal(intake.lastOpened, 700);
  });
});

describe('after our own close', () => {
  it('deliveries are swallowed without a word until close-ok, which is passed on', () => {
    const { intake, arena, log, feed } = open();
    feed(...delivery(OURS, 1n, pattern(1, 10)));
    intake.discard();
    feed(...delivery(OURS, 2n, pattern(2, 30_000), { frameMax: FRAME_MAX }), ...delivery(OURS, 3n, pattern(3, 0)));
    feed(...delivery(OURS, 4n, pattern(2, 3_000_000), { frameMax: FRAME_MAX }), heartbeat, channelCloseOk(OURS));
    assert.deepEqual(log, ['delivery 1 of 10', pass(heartbeat, channelCloseOk(OURS))]);
    assert.ok(arena.takenBytes <= 2 * SEGMENT_BYTES);
  });

  it('the delivery that was coming in goes too, wherever it was cut', () => {
    const whole = Buffer.concat(delivery(OURS, 1n, pattern(1, 20_000), { frameMax: FRAME_MAX }));
    for (let cut = 1; cut < whole.length; cut += cut < 120 ? 1 : 977) {
      const { intake, log, feed } = open();
      feed(whole.subarray(0, cut));
      intake.discard();
      feed(whole.subarray(cut), heartbeat);
      assert.deepEqual(log, [pass(heartbeat)], `cut at ${cut}`);
    }
  });

  it('a close by the broker that crosses ours still ends the generation', () => {
    const { intake, log, feed } = open();
    intake.discard();
    feed(...delivery(OURS, 2n, pattern(2, 10)), channelClose(OURS));
    assert.deepEqual(log, ['closing', pass(channelClose(OURS))]);
  });

  it('a new capture delivers again', () => {
    const { intake, log, feed } = open();
    intake.discard();
    feed(channelCloseOk(OURS));
    intake.capture(OURS + 1);
    feed(...delivery(OURS + 1, 1n, pattern(2, 10)));
    assert.deepEqual(log, [pass(channelCloseOk(OURS)), 'delivery 1 of 10']);
  });
});

describe('what cannot be AMQP', () => {
  const deliverHead = deliverMethod(OURS);
  const truncated = (octets: number): Buffer => frame(1, OURS, deliverHead.subarray(7, 7 + octets));
  const cases: [what: string, frames: Buffer[], says: RegExp][] = [
    [
      'a wrong end octet',
      [brokenFrame(1, OURS, deliverHead.subarray(7, -1), deliverHead.length - 8, 0xcd)],
      /0xCE.*0xcd/,
    ],
    ['a wrong end octet on another channel', [brokenFrame(8, 0, Buffer.alloc(0), 0, 0)], /0xCE.*0x0/],
    ['a frame over the limit', [brokenFrame(3, 1, Buffer.alloc(0), FRAME_MAX - 7)], /8185 bytes came; at most 8184/],
    ['a frame of 4 GiB', [brokenFrame(2, OURS, Buffer.alloc(0), 0xffffffff)], /4294967295 bytes/],
    [
      'a body longer than its header says',
      [deliverHead, contentHeader(OURS, 5), frame(3, OURS, pattern(1, 6))],
      /longer.*5 bytes/,
    ],
    ['a delivery without a header', [deliverHead, deliverHead], /a content header had to come; a frame of type 1/],
    [
      'a body where a header must come',
      [deliverHead, frame(3, OURS, pattern(1, 6))],
      /a content header had to come.*type 3/,
    ],
    [
      'a header where a body must come',
      [deliverHead, contentHeader(OURS, 5), contentHeader(OURS, 5)],
      /a body frame had to come.*type 2/,
    ],
    [
      'a close inside a body',
      [deliverHead, contentHeader(OURS, 5), channelClose(OURS)],
      /a body frame had to come.*type 1/,
    ],
    ['a heartbeat on our channel', [frame(8, OURS, Buffer.alloc(0))], /type 8 came on channel 5/],
    ['a header of another class', [deliverHead, rawHeader(OURS, 5n, Buffer.alloc(2), 61)], /not one of class basic/],
    ['a header too short', [deliverHead, frame(2, OURS, contentHeader(OURS, 5).subarray(7, 20))], /13 bytes/],
    ['a body of 2^53 bytes', [deliverHead, rawHeader(OURS, 2n ** 53n, Buffer.alloc(2))], /2\^53/],
    ['a frame of an unknown type', [frame(4, 1, Buffer.alloc(8))], /unknown type 4/],
    ['a method of three bytes', [frame(1, 1, Buffer.alloc(3))], /3 bytes/],
    ['a method of three bytes on our channel', [frame(1, OURS, Buffer.alloc(3))], /3 bytes/],
    ...[4, 5, 9, 10, 17].map((octets): [string, Buffer[], RegExp] => [
      `a deliver of ${octets} bytes`,
      [truncated(octets)],
      new RegExp(`basic.deliver of ${octets} bytes`),
    ]),
  ];
  for (const [what, frames, says] of cases) {
    it(`${what} is an error that says so`, () => {
      const { log, feed } = open();
      feed(...delivery(OURS, 1n, pattern(1, 10)));
      assert.throws(
        () => feed(...frames),
        (error: unknown) => error instanceof FrameError && says.test(error.message),
      );
      assert.equal(log[0], 'delivery 1 of 10');
      assert.ok(!log.includes('delivery 2 of 5'));
    });
  }

  it('never makes it hand out more, or throw anything but a FrameError, whichever octet is wrong', () => {
    const whole = Buffer.concat([
      ...delivery(OURS, 1n, pattern(1, 40)),
      heartbeat,
      ...delivery(OURS, 2n, pattern(2, 40)),
    ]);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, value) => {
        const { log, feed } = open();
        const spoiled = Buffer.from(whole);
        spoiled[at] = value;
        try {
          feed(spoiled);
        } catch (error) {
          assert.ok(error instanceof FrameError, String(error));
        }
        assert.ok(log.filter((line) => line.startsWith('delivery')).length <= 2);
      }),
      { numRuns: 2000 },
    );
  });
});
