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
export { type ConsumeOptions, Consumer, type ConsumerOptions, type QosOptions } from './main/consumer.js';
export * as delayedDelivery from './main/delayed-delivery.js';
export { Binding, type BindingDict, type BindingOptions, binding } from './main/entities/binding.js';
export { type CallOptions, Channel } from './main/entities/channel.js';
export {
  type BindOptions,
  type DeclareOptions,
  Exchange,
  type ExchangeDict,
  type ExchangeOptions,
} from './main/entities/exchange.js';
export { Queue, type QueueFacts, type QueueOptions } from './main/entities/queue.js';
export type { QueueDict } from './main/entities/queue-dict.js';
export { Broadcast, type BroadcastOptions } from './main/helpers/broadcast.js';
export { LamportClock, TimeTuple, timetuple } from './main/helpers/clocks.js';
export { type MaybeDeclareOptions, maybeDeclare } from './main/helpers/declaring.js';
export {
  collectReplies,
  type DrainOptions,
  drainConsumer,
  type EventloopOptions,
  eventloop,
  type ItermessagesOptions,
  itermessages,
} from './main/helpers/draining.js';
export { Mailbox, type ReplyAddress } from './main/helpers/mailbox.js';
export type { CallRequestOptions, CastOptions, MailboxOptions } from './main/helpers/mailbox-options.js';
export * as matcher from './main/helpers/matcher.js';
export {
  type ConsumerFactory,
  ConsumerMixin,
  ConsumerProducerMixin,
  type MixinConsumeOptions,
  type MixinLogger,
  type MixinRunOptions,
} from './main/helpers/mixins.js';
export { Node, type NodeHandler, type NodeOptions } from './main/helpers/node.js';
export { generateOid, oidFrom, uuid } from './main/helpers/oid.js';
export { QoS, type QoSOptions } from './main/helpers/qos.js';
export { type SendReplyOptions, sendReply } from './main/helpers/reply.js';
export { type InsuredOptions, ignoreErrors, insured, type RepeatOptions } from './main/helpers/retrying.js';
export { SimpleBuffer, type SimpleGetOptions, SimpleQueue, type SimpleQueueOptions } from './main/helpers/simple.js';
export * as utils from './main/helpers/utils.js';
export { Producer } from './main/producer.js';
export type { DeadLetter, DeadLetterReason, DeadLetterTarget } from './main/runtime/dead-letters.js';
export type { FailedMessage, FailureOutcome, ShardedConsumerEvents, WorkerEvent } from './main/runtime/events.js';
export type { ConsumerLogger, ShardedConsumerOptions } from './main/runtime/options.js';
export type { LatencyStats, RunningCallback, ShardedConsumerStats, WorkerStats } from './main/runtime/stats.js';
export { ShardedConsumer } from './main/sharded-consumer.js';
export { type ConnectionOptions, type ConnectionParameters, parseUrl, type SslOptions } from './main/url.js';
export { type AckOptions, type DeliveryInfo, Message, type MessageProperties, type RejectOptions } from './message.js';
export * as pools from './pool/pools.js';
export type { ProducerOptions, PublishOptions, RetryPolicy } from './pool/publication.js';
export type { ConnectionDescriptor, Context, Logger, WorkerContext } from './worker/context.js';
export type { WorkerProducer } from './worker/producer.js';
