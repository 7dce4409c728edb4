/**
 * What Piscina loads on a new thread. It asks for a file by `require` first, and a thread that is terminated while Node 24 makes
 * an ES module out of that ends the whole process (an assertion in its loader). So this is a CommonJS module with nothing in it,
 * which imports the real one; an import can be cut off at any moment.
 */
async function start(task: unknown): Promise<void> {
  const { default: work } = (await import('./entry.js')) as { default: (task: unknown) => Promise<void> };
  await work(task);
}

export = start;
