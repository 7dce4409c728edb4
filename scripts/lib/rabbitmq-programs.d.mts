// Types of rabbitmq-programs.mjs for the TypeScript tests.

export interface CtlSettings {
  ctl: string;
  nodename: string;
  home: string;
  epmdPort: number;
}

export declare function findRabbitMQ(): { server: string; ctl: string; epmd: string } | undefined;
export declare function ctlSettingsToEnv(settings: CtlSettings): Record<string, string>;
export declare function ctlSettingsFromEnv(env: Record<string, string | undefined>): CtlSettings | undefined;
export declare function runCtl(settings: CtlSettings, args: readonly string[]): Promise<string>;
export declare function programEnv(settings: Omit<CtlSettings, 'ctl'>): Record<string, string>;
