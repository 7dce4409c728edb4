/** Errors of ioredis and of the server become the classes of `errors.ts`. A server tells what is wrong by a word in capitals. */
import {
  AccessRefused,
  ConnectionError,
  InvalidPath,
  KombuError,
  OperationalError,
  PreconditionFailed,
  ResourceError,
  TimeoutError,
} from '../../../errors.js';

type ErrorClass = new (message: string, options: { cause: unknown; details: Record<string, unknown> }) => KombuError;

/** What the connection cannot go on with: it leads to a server that is no primary, or not ready, or full. */
const REPLIES: Readonly<Record<string, ErrorClass>> = {
  WRONGPASS: AccessRefused,
  NOAUTH: AccessRefused,
  NOPERM: AccessRefused,
  DENIED: AccessRefused,
  WRONGTYPE: PreconditionFailed,
  OOM: ResourceError,
  MISCONF: ResourceError,
  READONLY: ConnectionError,
  LOADING: ConnectionError,
  MASTERDOWN: ConnectionError,
  UNBLOCKED: ConnectionError,
  CLUSTERDOWN: ConnectionError,
  NOREPLICAS: ConnectionError,
  BUSY: ConnectionError,
};

/** Words after which another server, or this one after a while, may do what was asked: the connection is made anew. */
const MOVED = new Set(['READONLY', 'LOADING', 'MASTERDOWN', 'UNBLOCKED', 'CLUSTERDOWN']);

/** Before Redis 7 a script puts in front of what a command said where it was called, once or twice. */
const IN_SCRIPT = /^(?:ERR Error running script \(.*?\): )?(?:@user_script: ?\d+: ?)+/;

function wordOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || error.name !== 'ReplyError') return undefined;
  return /^-?([A-Z]+)\b/.exec(error.message.replace(IN_SCRIPT, ''))?.[1];
}

/** True for a server that cannot serve us now: the connection to it is of no use. */
export function leadsNowhere(error: unknown): boolean {
  return MOVED.has(wordOf(error) ?? '');
}

/** `error` as one of our classes, with `cause`. `doing` opens the message. Ours pass unchanged. */
export function errorFromRedis(error: unknown, doing: string): KombuError {
  if (error instanceof KombuError) return error;
  if (!(error instanceof Error)) return new ConnectionError(`${doing}: ${String(error)}`, { cause: error });
  // ioredis hangs what was asked on it, for whoever prints it: a login's password, a message's body.
  delete (error as { command?: unknown }).command;
  const text = `${doing}: ${textOf(error)}`;
  const word = wordOf(error);
  if (word !== undefined) {
    const details = { reply: word };
    if (/^ERR (invalid password|.*AUTH)/.test(error.message)) return new AccessRefused(text, { cause: error, details });
    if (/^ERR (DB index is out of range|invalid DB index)/.test(error.message)) {
      return new InvalidPath(text, { cause: error, details });
    }
    return new (REPLIES[word] ?? OperationalError)(text, { cause: error, details });
  }
  const { code } = error as NodeJS.ErrnoException;
  const details = code === undefined ? {} : { code };
  if (code === 'ETIMEDOUT' || error.message === 'connect ETIMEDOUT' || error.message === 'Command timed out') {
    return new TimeoutError(text, { cause: error, details });
  }
  return new ConnectionError(text, { cause: error, details });
}

/** The same for an error that came as a part of a script's answer. */
export function errorOfReply(text: Buffer, doing: string): KombuError {
  return errorFromRedis(Object.assign(new Error(text.toString()), { name: 'ReplyError' }), doing);
}

function textOf(error: Error): string {
  if (error instanceof AggregateError && error.message === '') {
    return error.errors.map((inner) => (inner instanceof Error ? inner.message : String(inner))).join('; ');
  }
  return error.message;
}
