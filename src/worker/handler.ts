/**
 * The user's module: loaded once a thread, checked for exactly one kind of callback, and turned into one function.
 */
import { HandlerLoadError } from '../errors.js';
import type { Message } from '../message.js';
import type { Context, WorkerContext } from './context.js';

type Callback = (body: unknown, message: Message, context: Context) => unknown;

export interface Handler {
  /** False: the callback wants the message as it came, undecoded. */
  readonly decodes: boolean;
  readonly call: Callback;
  readonly setup?: (context: WorkerContext) => unknown;
  readonly teardown?: (context: WorkerContext) => unknown;
}

const KINDS = ['default', 'callbacks', 'onMessage'] as const;

async function callInOrder(callbacks: readonly Callback[], body: unknown, message: Message, context: Context) {
  for (const callback of callbacks) await callback(body, message, context);
}

function optionalFunction<T>(module: Record<string, unknown>, name: string, url: string): T | undefined {
  const value = module[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'function')
    throw new HandlerLoadError(`${url}: the export '${name}' must be a function, not ${typeof value}`);
  return value as T;
}

/** Imports the module at `url` and picks its callback. Throws `HandlerLoadError`, the module's own error as its cause. */
export async function loadHandler(url: string): Promise<Handler> {
  let module: Record<string, unknown>;
  try {
    module = (await import(url)) as Record<string, unknown>;
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new HandlerLoadError(`the handler module ${url} cannot be loaded: ${text}`, { cause, details: { url } });
  }
  const found = KINDS.filter((kind) => module[kind] !== undefined);
  if (found.length !== 1) {
    const has = found.length === 0 ? 'exports none of them' : `exports ${found.join(' and ')}`;
    throw new HandlerLoadError(
      `the handler module ${url} must export exactly one of a default function, 'callbacks' or 'onMessage'; it ${has}`,
      { details: { url, exports: Object.keys(module) } },
    );
  }
  const setup = optionalFunction<NonNullable<Handler['setup']>>(module, 'setup', url);
  const teardown = optionalFunction<NonNullable<Handler['teardown']>>(module, 'teardown', url);
  const hooks = { ...(setup === undefined ? {} : { setup }), ...(teardown === undefined ? {} : { teardown }) };
  const [kind] = found;
  const value = module[kind!];
  if (kind === 'callbacks') {
    if (!Array.isArray(value) || value.length === 0 || !value.every((item) => typeof item === 'function')) {
      throw new HandlerLoadError(`${url}: 'callbacks' must be a list of functions`, { details: { url } });
    }
    const callbacks = value as readonly Callback[];
    return {
      decodes: true,
      call: (body, message, context) => callInOrder(callbacks, body, message, context),
      ...hooks,
    };
  }
  if (typeof value !== 'function') {
    throw new HandlerLoadError(`${url}: the export '${kind}' must be a function, not ${typeof value}`, {
      details: { url },
    });
  }
  if (kind === 'onMessage') {
    const onMessage = value as (message: Message, context: Context) => unknown;
    return { decodes: false, call: (_body, message, context) => onMessage(message, context), ...hooks };
  }
  return { decodes: true, call: value as Callback, ...hooks };
}
