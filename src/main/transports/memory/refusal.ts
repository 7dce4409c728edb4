/**
 * What a broker closes a channel or a connection with, in RabbitMQ's words. It never reaches users as it is: the client side
 * makes of it the plain errors that amqplib would, and those become the classes of `errors.ts`.
 */

/** A method of AMQP, as errors name it. */
export interface Method {
  readonly name: string;
  readonly classId: number;
  readonly methodId: number;
}

const of = (name: string, classId: number, methodId: number): Method => ({ name, classId, methodId });

export const method = {
  CHANNEL_OPEN: of('ChannelOpen', 20, 10),
  EXCHANGE_DECLARE: of('ExchangeDeclare', 40, 10),
  EXCHANGE_DELETE: of('ExchangeDelete', 40, 20),
  EXCHANGE_BIND: of('ExchangeBind', 40, 30),
  EXCHANGE_UNBIND: of('ExchangeUnbind', 40, 40),
  QUEUE_DECLARE: of('QueueDeclare', 50, 10),
  QUEUE_BIND: of('QueueBind', 50, 20),
  QUEUE_PURGE: of('QueuePurge', 50, 30),
  QUEUE_DELETE: of('QueueDelete', 50, 40),
  QUEUE_UNBIND: of('QueueUnbind', 50, 50),
  BASIC_QOS: of('BasicQos', 60, 10),
  BASIC_CONSUME: of('BasicConsume', 60, 20),
  BASIC_CANCEL: of('BasicCancel', 60, 30),
  BASIC_PUBLISH: of('BasicPublish', 60, 40),
  BASIC_GET: of('BasicGet', 60, 70),
  BASIC_ACK: of('BasicAck', 60, 80),
  BASIC_REJECT: of('BasicReject', 60, 90),
  BASIC_RECOVER: of('BasicRecover', 60, 110),
  BASIC_NACK: of('BasicNack', 60, 120),
  CONFIRM_SELECT: of('ConfirmSelect', 85, 10),
} as const;

const NONE = of('', 0, 0);

/** The names that RabbitMQ begins its reply text with. */
const NAMES: Readonly<Record<number, string>> = {
  320: 'CONNECTION_FORCED',
  403: 'ACCESS_REFUSED',
  404: 'NOT_FOUND',
  405: 'RESOURCE_LOCKED',
  406: 'PRECONDITION_FAILED',
  503: 'COMMAND_INVALID',
  530: 'NOT_ALLOWED',
  540: 'NOT_IMPLEMENTED',
};

export class Refusal extends Error {
  override readonly name = 'Refusal';
  /** The method that was refused; known once the channel has seen it. */
  method: Method = NONE;

  constructor(
    readonly replyCode: number,
    text: string,
  ) {
    super(`${NAMES[replyCode]} - ${text}`);
  }

  /** It ends the whole connection, not only its channel. */
  get endsConnection(): boolean {
    return this.replyCode === 320 || this.replyCode > 500;
  }

  /** As amqplib writes it: `404 (NOT-FOUND) with message "NOT_FOUND - …"`. */
  get told(): string {
    return `${this.replyCode} (${NAMES[this.replyCode]?.replaceAll('_', '-')}) with message "${this.message}"`;
  }
}

export const notFound = (kind: 'queue' | 'exchange', name: string, vhost: string): Refusal =>
  new Refusal(404, `no ${kind} '${name}' in vhost '${vhost}'`);

export const accessRefused = (text: string): Refusal => new Refusal(403, text);

export const preconditionFailed = (text: string): Refusal => new Refusal(406, text);

export const defaultExchange = (): Refusal => accessRefused('operation not permitted on the default exchange');

export const locked = (queue: string, vhost: string): Refusal =>
  new Refusal(
    405,
    `cannot obtain exclusive access to locked queue '${queue}' in vhost '${vhost}'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.`,
  );
