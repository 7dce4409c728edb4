// Types of rabbitmq.mjs for the TypeScript tests.

export interface RabbitNodeOptions {
  /** Lines of rabbitmq.conf. */
  config?: Record<string, string>;
  enabledPlugins?: readonly string[];
  /** How long to wait for the node, 60 s unless told. */
  timeoutMs?: number;
}

export declare class RabbitNode implements AsyncDisposable {
  private constructor();
  static start(options?: RabbitNodeOptions): Promise<RabbitNode>;
  readonly url: string;
  readonly port: number;
  readonly pid: number | undefined;
  readonly nodename: string;
  readonly folder: string;
  readonly env: Record<string, string>;
  ctl(...args: string[]): Promise<string>;
  stopApp(): Promise<void>;
  startApp(): Promise<void>;
  kill(): Promise<void>;
  stop(): Promise<void>;
  restart(): Promise<void>;
  freeze(): void;
  thaw(): void;
  waitReady(timeoutMs?: number): Promise<void>;
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export declare function answersAmqp(port: number): Promise<boolean>;
