/**
 * A connection to Redis, behind amqplib's interface: what is declared, published and consumed is kept in kombu's keys. All that
 * is asked goes over one socket; who waits for a message, or listens to a fanout exchange, has one of his own beside it.
 */
import type * as amqplib from 'amqplib';
import { ConnectionError, type KombuError } from '../../../errors.js';
import { type RedisOptions, redisTransportOptions } from '../../../redis-options.js';
import { withDeadline } from '../../deadline.js';
import type { ConnectionParameters } from '../../url.js';
import type { BrokerConnection, OpenOptions, Publish } from '../transport.js';
import { Catalog, GIVEN_NAME } from './catalog.js';
import type { RedisChannel } from './channel.js';
import { type Client, databaseOf, locationOf, openClient, placeOf } from './client.js';
import { errorFromRedis } from './errors.js';
import { type Exchanges, exchangesOf } from './exchanges.js';
import { Keys } from './keys.js';
import { RedisModel } from './model.js';
import { RedisPublisher } from './publisher.js';
import { PULSE, watchPulse } from './pulse.js';

export class RedisConnection implements BrokerConnection {
  readonly model: amqplib.ChannelModel;
  readonly parameters: ConnectionParameters;
  readonly ended: Promise<KombuError | undefined>;
  readonly client: Client;
  readonly keys: Keys;
  readonly options: RedisOptions;
  readonly exchanges: Exchanges;
  readonly publisher: RedisPublisher;
  /** The server knows BLMOVE. */
  readonly canBlock: boolean;
  /** Queues that it declared and that do not outlive it. */
  readonly passing = new Map<string, 'exclusive' | 'autoDelete'>();
  /** Seconds between looks whether the server is there. */
  readonly heartbeat: number;
  readonly #channels: () => Promise<void>;
  #open = true;
  #closing = false;
  /** Its socket is cut: the rest is a matter of a moment. */
  #doomed = false;
  #reason: KombuError | undefined;

  private constructor(
    parameters: ConnectionParameters,
    client: Client,
    ended: Promise<KombuError>,
    version: readonly number[],
  ) {
    this.parameters = parameters;
    this.client = client;
    this.options = redisTransportOptions(parameters.transportOptions);
    this.keys = new Keys(this.options, databaseOf(parameters));
    this.exchanges = exchangesOf(placeOf(parameters));
    const [major = 0, minor = 0] = version;
    this.canBlock = major > 6 || (major === 6 && minor >= 2);
    this.publisher = new RedisPublisher(client, this.keys, this.exchanges, this.options, (error) =>
      this.useless(error),
    );
    this.heartbeat = parameters.heartbeat ?? PULSE;
    const calm = watchPulse(client, this.heartbeat, locationOf(parameters), (error) => this.useless(error));
    const model = new RedisModel(this);
    // `ended` tells of it; without a listener it would be thrown at whoever closes the socket.
    model.on('error', () => undefined);
    this.#channels = () => model.closeChannels();
    this.model = model as unknown as amqplib.ChannelModel;
    this.ended = ended.then((reason) => {
      calm();
      this.#open = false;
      if (!this.#closing) {
        this.#reason ??= reason;
        for (const [queue, why] of this.passing) {
          if (why === 'exclusive' && queue.startsWith(GIVEN_NAME)) this.exchanges.leftovers.queues.add(queue);
        }
      }
      model.toClosed(this.reason);
      return this.reason;
    });
  }

  static async open(parameters: ConnectionParameters, options: OpenOptions = {}): Promise<RedisConnection> {
    const { client, ended } = await openClient(parameters, options);
    try {
      const asking = (async () => {
        const version = await versionOf(client, locationOf(parameters));
        const made = new RedisConnection(parameters, client, ended, version);
        // A server that is loading, or lets us read nothing, says so here.
        await client.exists(made.keys.unacked);
        const { leftovers } = made.exchanges;
        await leftovers.giveBack(made);
        for (const queue of leftovers.queues) {
          await new Catalog(made).deleteQueue(queue, false);
          leftovers.queues.delete(queue);
        }
        return made;
      })();
      const doing = `asking ${locationOf(parameters)} whether it is ready`;
      return await withDeadline(asking, doing, parameters.connectTimeout, options.signal);
    } catch (error) {
      client.disconnect();
      if (options.signal?.aborted) throw error;
      throw errorFromRedis(error, `cannot connect to ${locationOf(parameters)}`);
    }
  }

  get open(): boolean {
    return this.#open && !this.#closing && !this.#doomed;
  }

  get reason(): KombuError | undefined {
    return this.#closing ? undefined : this.#reason;
  }

  publisherOf(channel: amqplib.ConfirmChannel): Publish {
    const own = channel as unknown as RedisChannel;
    return (message, onSettled) => own.send(message, onSettled);
  }

  /** The server says that it cannot serve us: it may be no primary any more. */
  useless(error: unknown): void {
    if (!this.open) return;
    this.#reason = errorFromRedis(error, `${locationOf(this.parameters)} cannot be used now`);
    this.#doomed = true;
    this.client.disconnect();
  }

  async close(milliseconds = 5000): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    // What channels hold goes back to its queues.
    const ending = this.#channels().then(() => new Catalog(this).deletePassing());
    await withDeadline(ending, 'closing channels', milliseconds).catch(() => undefined);
    this.publisher.close();
    if (!this.#open) return;
    try {
      await withDeadline(this.client.quit(), 'closing the connection', milliseconds);
    } catch {
      // Gone already, or silent: closed is what it should be.
    }
    this.client.disconnect();
    await this.ended;
  }

  destroy(): void {
    this.#reason ??= new ConnectionError(`the connection to ${locationOf(this.parameters)} was cut`);
    this.#doomed = true;
    this.client.disconnect();
  }
}

/** Of a server that is a primary; of one that is too old to tell: none. Asked by HELLO, which every user may. */
async function versionOf(client: Client, where: string): Promise<readonly number[]> {
  let facts: unknown;
  try {
    facts = await client.call('HELLO');
  } catch (error) {
    // Before Redis 6.
    if (error instanceof Error && /unknown command/i.test(error.message)) return [];
    throw error;
  }
  const pairs = facts as unknown[];
  const fact = (name: string): string => String(pairs[pairs.indexOf(name) + 1]);
  if (fact('role') === 'slave' || fact('role') === 'replica') {
    throw new ConnectionError(`${where} is a replica, which takes no messages`);
  }
  return fact('version').split('.').map(Number);
}
