/** What a broker would refuse, with AMQP's reply codes, which `transports/amqp/errors.ts` knows. Nothing is closed over it. */
export function refuse(code: 402 | 403 | 404 | 406 | 540, text: string): Error {
  return Object.assign(new Error(text), { code });
}

const warned = new Set<string>();

/** Arguments of queues that other brokers act upon and Redis cannot: said once each, since what they promise will not be. */
export function warnOfArguments(queue: string, args: Readonly<Record<string, unknown>>): void {
  for (const key of Object.keys(args)) {
    if (KNOWN.has(key) || warned.has(key)) continue;
    warned.add(key);
    const text = `Redis does nothing for the queue argument '${key}' (declaring '${queue}'); this is said once`;
    process.emitWarning(text, { type: 'MozukuWarning', code: 'MOZUKU_REDIS_ARGUMENT' });
  }
}

/** Every queue has priorities here, and one type. */
const KNOWN = new Set(['x-expires', 'x-max-priority', 'x-queue-type']);
