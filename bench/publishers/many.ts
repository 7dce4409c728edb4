const UNDER_WAY = 1024;

/** Keeps so many under way until `count` are confirmed. */
export function publishMany(count: number, publish: () => Promise<unknown>): Promise<void> {
  return new Promise((resolve, reject) => {
    let begun = 0;
    let ended = 0;
    const one = (): void => {
      begun++;
      publish().then(() => {
        ended++;
        if (ended === count) resolve();
        else if (begun < count) one();
      }, reject);
    };
    while (begun < Math.min(count, UNDER_WAY)) one();
  });
}
