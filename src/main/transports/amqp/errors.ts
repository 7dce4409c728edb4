/**
 * Errors of amqplib and of sockets become the classes of `errors.ts`. amqplib gives plain Errors: a reply of the broker has
 * its number in `code`, a failure of the socket has a text there, everything else is told by its message alone.
 */
import * as amqplib from 'amqplib';
import {
  AccessRefused,
  AMQPNotImplementedError,
  ChannelError,
  ChannelNotOpen,
  ClosedError,
  ConnectionError,
  ConnectionForced,
  ContentTooLarge,
  EncodeError,
  FrameError,
  FrameSyntaxError,
  InternalError,
  InvalidCommand,
  InvalidPath,
  KombuError,
  NoConsumers,
  NotAllowed,
  NotFound,
  PreconditionFailed,
  ResourceError,
  ResourceLocked,
  TimeoutError,
  UnexpectedFrame,
} from '../../../errors.js';

type ErrorClass = new (message: string, options: { cause: unknown; details: Record<string, unknown> }) => KombuError;

/** Those below 400 but for 320, and 403 to 406, close a channel; the others close the connection. */
const REPLIES: Readonly<Record<number, ErrorClass>> = {
  311: ContentTooLarge,
  312: ChannelError,
  313: NoConsumers,
  320: ConnectionForced,
  402: InvalidPath,
  403: AccessRefused,
  404: NotFound,
  405: ResourceLocked,
  406: PreconditionFailed,
  501: FrameError,
  502: FrameSyntaxError,
  503: InvalidCommand,
  504: ChannelNotOpen,
  505: UnexpectedFrame,
  506: ResourceError,
  530: NotAllowed,
  540: AMQPNotImplementedError,
  541: InternalError,
};

/** What the channel or connection was closed with, as far as anybody knows, is nothing but that it is closed. */
const CLOSED = /^(Channel clos|Channel ended|channel closed|Connection clos)/;
const FRAMING = /^(Invalid frame|Frame size|Bad frame|Unexpected (type tag|frame)|Frame on )/;

/** The words that go into a message: the broker's own where amqplib wraps them, and all of them for a failed dual-stack connect. */
function textOf(error: Error): string {
  if (error instanceof AggregateError && error.message === '') {
    return error.errors.map((inner) => (inner instanceof Error ? inner.message : String(inner))).join('; ');
  }
  return /with message "(.*)"/s.exec(error.message)?.[1] ?? error.message;
}

/** The broker's reply code, from amqplib's `code` or from the text of a failed handshake. */
export function replyCodeOf(error: unknown): number | undefined {
  if (!(error instanceof Error)) return undefined;
  const code: unknown = (error as { code?: unknown }).code;
  if (typeof code === 'number') return code;
  const told = /^Handshake terminated by server: (\d{3})/.exec(error.message);
  return told === null ? undefined : Number(told[1]);
}

/** True for the errors that only say that a channel is closed; its own reason says more. */
export function saysOnlyClosed(error: unknown): boolean {
  return error instanceof Error && (error instanceof amqplib.IllegalOperationError || CLOSED.test(error.message));
}

/**
 * `error` as one of our classes, with `cause`. `doing` opens the message ("declaring queue 'q'"). Ours pass unchanged.
 * `details` gets `replyCode` (a number) or `code` (such as 'ECONNREFUSED').
 */
export function errorFromAmqp(error: unknown, doing: string): KombuError {
  if (error instanceof KombuError) return error;
  if (!(error instanceof Error)) return new ConnectionError(`${doing}: ${String(error)}`, { cause: error });
  const text = `${doing}: ${textOf(error)}`;
  // What amqplib cannot encode, another attempt will not mend.
  if (error instanceof TypeError || error instanceof RangeError) return new EncodeError(text, { cause: error });
  const replyCode = replyCodeOf(error);
  if (replyCode !== undefined) {
    const Class = REPLIES[replyCode] ?? ConnectionError;
    return new Class(text, { cause: error, details: { replyCode } });
  }
  const code = (error as NodeJS.ErrnoException).code;
  const details = code === undefined ? {} : { code };
  if (code === 'ETIMEDOUT' || error.message === 'connect ETIMEDOUT')
    return new TimeoutError(text, { cause: error, details });
  if (saysOnlyClosed(error)) return new ClosedError(text, { cause: error, details });
  if (FRAMING.test(error.message)) return new FrameError(text, { cause: error, details });
  return new ConnectionError(text, { cause: error, details });
}
