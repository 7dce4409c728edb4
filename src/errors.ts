/**
 * Every error mozuku raises, with kombu's names where kombu has one. Each class has a stable `code`; `cause` holds what
 * lies beneath. Nothing in this library throws a string or a bare Error.
 *
 * This file imports nothing, so that every layer, the codecs included, may import it.
 */

/** Options of every error here: `cause` is the error beneath, `details` are facts a program may want to read. */
export interface ErrorOptionsWithDetails extends ErrorOptions {
  readonly details?: Readonly<Record<string, unknown>>;
}

/** The root: `instanceof KombuError` is true for every error of this library. */
export class KombuError extends Error {
  static readonly code: string = 'MOZUKU_ERROR';
  /** A stable identifier: text may change between versions, `code` does not. */
  readonly code: string;
  /** Facts about the failure for programs: limits, names, sizes. Never a password. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(message: string, options?: ErrorOptionsWithDetails) {
    super(message, options);
    this.name = new.target.name;
    this.code = (new.target as typeof KombuError).code;
    this.details = options?.details ?? {};
  }
}

/** The broker, or the way to it, failed. */
export class OperationalError extends KombuError {
  static override readonly code: string = 'OPERATIONAL_ERROR';
}

/** A connection could not be made or was lost (kombu: amqp.ConnectionError). */
export class ConnectionError extends OperationalError {
  static override readonly code: string = 'CONNECTION_ERROR';
}

/** The broker refused the credentials or the virtual host. */
export class AccessRefused extends ConnectionError {
  static override readonly code: string = 'ACCESS_REFUSED';
}

/** The peer sent bytes that are not AMQP, or not what it may send now. The connection they came on is given up. */
export class FrameError extends ConnectionError {
  static override readonly code: string = 'FRAME_ERROR';
}

/** 320: an operator closed the connection, or the broker is going down. */
export class ConnectionForced extends ConnectionError {
  static override readonly code: string = 'CONNECTION_FORCED';
}

/** 402: the broker does not know the virtual host by this path. */
export class InvalidPath extends ConnectionError {
  static override readonly code: string = 'INVALID_PATH';
}

/** 502: the broker could not read a field of a frame. */
export class FrameSyntaxError extends ConnectionError {
  static override readonly code: string = 'FRAME_SYNTAX_ERROR';
}

/** 503: a method that AMQP does not allow there. */
export class InvalidCommand extends ConnectionError {
  static override readonly code: string = 'INVALID_COMMAND';
}

/** 504: something was sent on a channel that the broker does not have open. */
export class ChannelNotOpen extends ConnectionError {
  static override readonly code: string = 'CHANNEL_NOT_OPEN';
}

/** 505: a frame that the broker did not expect there. */
export class UnexpectedFrame extends ConnectionError {
  static override readonly code: string = 'UNEXPECTED_FRAME';
}

/** 506: the broker is short of something. */
export class ResourceError extends ConnectionError {
  static override readonly code: string = 'RESOURCE_ERROR';
}

/** 530: the broker does not allow it, such as a virtual host that is not there. */
export class NotAllowed extends ConnectionError {
  static override readonly code: string = 'NOT_ALLOWED';
}

/** 540: the broker does not have what was asked for. */
export class AMQPNotImplementedError extends ConnectionError {
  static override readonly code: string = 'NOT_IMPLEMENTED';
}

/** 541: the broker failed, or refuses what it calls an internal error. */
export class InternalError extends ConnectionError {
  static override readonly code: string = 'INTERNAL_ERROR';
}

/** What should be there is not, such as the queue that answers were to go to. */
export class InconsistencyError extends ConnectionError {
  static override readonly code: string = 'INCONSISTENCY';
}

/** The broker closed a channel (kombu: amqp.ChannelError); `details.replyCode` says why. */
export class ChannelError extends OperationalError {
  static override readonly code: string = 'CHANNEL_ERROR';
}

/** Another attempt on a new channel of the same connection may succeed. */
export class RecoverableChannelError extends ChannelError {
  static override readonly code: string = 'RECOVERABLE_CHANNEL_ERROR';
}

/** 311: the broker takes no message of that size. */
export class ContentTooLarge extends RecoverableChannelError {
  static override readonly code: string = 'CONTENT_TOO_LARGE';
}

/** 313: nobody consumes what was to be delivered at once. */
export class NoConsumers extends RecoverableChannelError {
  static override readonly code: string = 'NO_CONSUMERS';
}

/** 404: the queue or exchange is not there. */
export class NotFound extends ChannelError {
  static override readonly code: string = 'NOT_FOUND';
}

/** 406: declared differently before, or an unknown delivery tag. */
export class PreconditionFailed extends ChannelError {
  static override readonly code: string = 'PRECONDITION_FAILED';
}

/** 405: another connection holds the exclusive queue. */
export class ResourceLocked extends RecoverableChannelError {
  static override readonly code: string = 'RESOURCE_LOCKED';
}

/** The broker cancelled a consumer (its queue was deleted, say). */
export class ConsumerCancelled extends ConnectionError {
  static override readonly code: string = 'CONSUMER_CANCELLED';
}

/** The broker answered a publish with a nack. */
export class MessageNacked extends OperationalError {
  static override readonly code: string = 'MESSAGE_NACKED';
}

/** A `mandatory` message came back because no queue took it; `details` has the reply. */
export class MessageReturned extends OperationalError {
  static override readonly code: string = 'MESSAGE_RETURNED';
}

/** A wait reached its deadline. */
export class TimeoutError extends OperationalError {
  static override readonly code: string = 'TIMEOUT';
}

/**
 * The connection was lost, or could not be made for now. `instanceof` is true for every error that another attempt may mend:
 * each `ConnectionError` but a refused login or virtual host, and each `TimeoutError`.
 */
export class RecoverableConnectionError extends ConnectionError {
  static override readonly code: string = 'RECOVERABLE_CONNECTION_ERROR';

  static override [Symbol.hasInstance](value: unknown): boolean {
    return (value instanceof ConnectionError && !(value instanceof AccessRefused)) || value instanceof TimeoutError;
  }
}

/** A body could not be encoded or decoded. */
export class SerializationError extends KombuError {
  static override readonly code: string = 'SERIALIZATION_ERROR';
}

/** A value could not be encoded. */
export class EncodeError extends SerializationError {
  static override readonly code: string = 'ENCODE_ERROR';
}

/** A body could not be decompressed or decoded, or is larger than a limit that `details` names. */
export class DecodeError extends SerializationError {
  static override readonly code: string = 'DECODE_ERROR';
}

/** No codec has this name or content type. */
export class SerializerNotInstalled extends KombuError {
  static override readonly code: string = 'SERIALIZER_NOT_INSTALLED';
}

/** The content type is not in `accept`, so its body was not looked at. */
export class ContentDisallowed extends SerializerNotInstalled {
  static override readonly code: string = 'CONTENT_DISALLOWED';
}

/** A body, or what it decompresses to, is over a limit that `details` names. */
export class MessageTooLarge extends DecodeError {
  static override readonly code: string = 'MESSAGE_TOO_LARGE';
}

/** An entity that is bound to no channel was asked to talk to the broker. */
export class NotBoundError extends KombuError {
  static override readonly code: string = 'NOT_BOUND';
}

/** A message was settled twice, or read after its bytes were given back. */
export class MessageStateError extends KombuError {
  static override readonly code: string = 'MESSAGE_STATE';
}

/** A pool has no more room: at once without `block`, after `timeout` with it; or its limit cannot be lowered now. */
export class LimitExceeded extends KombuError {
  static override readonly code: string = 'LIMIT_EXCEEDED';
}

/** More connections than the pool's limit were asked for. */
export class ConnectionLimitExceeded extends LimitExceeded {
  static override readonly code: string = 'CONNECTION_LIMIT_EXCEEDED';
}

/** More channels than the pool's limit were asked for. */
export class ChannelLimitExceeded extends LimitExceeded {
  static override readonly code: string = 'CHANNEL_LIMIT_EXCEEDED';
}

/** `get()` of a simple queue found no message in time. */
export class Empty extends KombuError {
  static override readonly code: string = 'EMPTY';
}

/** No matcher has this name. */
export class MatcherNotInstalled extends KombuError {
  static override readonly code: string = 'MATCHER_NOT_INSTALLED';
}

/** An option is unknown, missing, or has a value it cannot have; the text names it and what it may be. */
export class OptionError extends KombuError {
  static override readonly code: string = 'INVALID_OPTION';
}

/** A URL nobody can parse. The text never repeats a password. */
export class InvalidUrl extends OptionError {
  static override readonly code: string = 'INVALID_URL';
}

/** The URL names a transport that this version does not have. */
export class TransportNotAvailable extends OptionError {
  static override readonly code: string = 'TRANSPORT_NOT_AVAILABLE';
}

/** The object is closed, or closing. */
export class ClosedError extends KombuError {
  static override readonly code: string = 'CLOSED';
}

/** The handler module does not exist, throws while it loads, never finishes loading, or exports nothing callable. */
export class HandlerLoadError extends KombuError {
  static override readonly code: string = 'HANDLER_LOAD';
}

/** A worker thread ended while it ran messages. */
export class WorkerLost extends KombuError {
  static override readonly code: string = 'WORKER_LOST';
}

/** An error that a handler threw on a worker thread: its name, text and stack as they were there. */
export class HandlerError extends KombuError {
  static override readonly code: string = 'HANDLER_ERROR';
}

/** Thrown by a handler: no retries, to the dead letters. */
export class Reject extends KombuError {
  static override readonly code: string = 'REJECT';
}

/** Thrown by a handler: to be run again, after `delay` milliseconds if given, else as the option `retry` says. */
export class Retry extends KombuError {
  static override readonly code: string = 'RETRY';
  readonly delay: number | undefined;

  constructor(delay?: number, message = 'the handler asked to run again', options?: ErrorOptionsWithDetails) {
    super(message, options);
    this.delay = delay;
  }
}
