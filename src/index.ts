/** What users import. Everything else of the package is private. */

export * as compression from './codec/compression.js';
export * as serialization from './codec/serialization.js';
export * as errors from './errors.js';
export {
  type AsUriOptions,
  type AutoretryOptions,
  Connection,
  type ConnectionEvents,
  type EnsureConnectionOptions,
  type EnsureOptions,
} from './main/connection.js';
export { Consumer, type ConsumerOptions } from './main/consumer.js';
export { Binding, binding } from './main/entities/binding.js';
export { type CallOptions, Channel } from './main/entities/channel.js';
export { Exchange, type ExchangeOptions } from './main/entities/exchange.js';
export { Queue, type QueueOptions } from './main/entities/queue.js';
export { Producer, type ProducerOptions, type PublishOptions, type RetryPolicy } from './main/producer.js';
export type { DeadLetter, DeadLetterReason, DeadLetterTarget } from './main/runtime/dead-letters.js';
export type { FailedMessage, FailureOutcome, ShardedConsumerEvents, WorkerEvent } from './main/runtime/events.js';
export type { ConsumerLogger, ShardedConsumerOptions } from './main/runtime/options.js';
export type { LatencyStats, RunningCallback, ShardedConsumerStats, WorkerStats } from './main/runtime/stats.js';
export { ShardedConsumer } from './main/sharded-consumer.js';
export { type ConnectionOptions, type ConnectionParameters, parseUrl, type SslOptions } from './main/url.js';
export { type DeliveryInfo, Message, type MessageProperties } from './message.js';
export * as pools from './pool/pools.js';
export type { Context, Logger, WorkerContext } from './worker/context.js';
