// Runs on every worker thread: shrinks one picture and writes it as a PPM file.

import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FACTOR = 4;
const folder = process.env.OUT ?? join(tmpdir(), 'thumbnails');

/** Once a thread, before the first message. */
export async function setup({ worker, logger }) {
  await mkdir(folder, { recursive: true });
  logger.info({ folder }, `worker ${worker} writes`);
}

/** Each pixel of the result is the mean of FACTOR × FACTOR pixels. */
function shrink(pixels, width, height) {
  const columns = Math.floor(width / FACTOR);
  const rows = Math.floor(height / FACTOR);
  const result = Buffer.alloc(columns * rows * 3);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let color = 0; color < 3; color++, at++) {
        let sum = 0;
        for (let y = 0; y < FACTOR; y++) {
          for (let x = 0; x < FACTOR; x++) {
            sum += pixels[((row * FACTOR + y) * width + column * FACTOR + x) * 3 + color];
          }
        }
        result[at] = sum / FACTOR ** 2;
      }
    }
  }
  return { columns, rows, result };
}

/** Returning settles the message; throwing sends it to the dead letters, "thumbnails.dead". */
export default async function handle({ name, width, height, pixels }, _message, context) {
  if (pixels.length !== width * height * 3) throw new RangeError(`${name} has ${pixels.length} bytes`);
  const { columns, rows, result } = shrink(pixels, width, height);
  // The signal aborts when the callback's time is over, or the consumer cannot wait any longer.
  const options = { signal: context.signal };
  await writeFile(join(folder, `${name}.ppm`), Buffer.concat([header(columns, rows), result]), options);
}

const header = (columns, rows) => Buffer.from(`P6 ${columns} ${rows} 255\n`);
