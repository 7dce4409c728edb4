/**
 * One campaign: a service under load, faults at random one after another, then peace, and the books are closed. What happens is
 * drawn from the seed; when exactly it meets what, is not.
 *
 *   publishers ──▶ broker ──▶ proxy ──▶ service ──▶ effects log
 *        │           ▲          ▲          ▲             │
 *        └ confirms  └───── faults ────────┘             └──▶ oracles
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection, Queue } from '#src/index';
import { EffectsFollower } from '../support/effects-follower.js';
import { Random } from '../support/random.js';
import { until } from '../support/rig.js';
import { Load } from './load.js';
import { judge, type Verdict } from './oracles.js';
import { ChildService, LocalService, PREFETCH, type Service, type ServiceSettings } from './service.js';
import { type Fault, openSite, type Site, type SiteName } from './sites.js';

export interface CampaignOptions {
  readonly site: SiteName;
  readonly seed: number;
  /** Ends after so many faults or so many ms, whichever is first. */
  readonly faults: number;
  readonly milliseconds: number;
  readonly perSecond: number;
  readonly log?: (line: string) => void;
}

export interface CampaignResult {
  readonly site: SiteName;
  readonly seed: number;
  readonly isOrdered: boolean;
  readonly messages: number;
  readonly faults: readonly string[];
  readonly twice: number;
  readonly dead: number;
  readonly resumed: readonly number[];
  readonly verdicts: readonly Verdict[];
}

const QUEUE = 'chaos';
/** After a fault is over, ms: the service reconnects, leases of the dead run out, a frozen broker wakes up. */
const RESUME_LIMIT = 15_000;
const PEACE = 120_000;

class Campaign {
  readonly #site: Site;
  readonly #options: CampaignOptions;
  readonly #random: Random;
  readonly #settings: ServiceSettings;
  readonly #effectsPath: string;
  readonly #effects: EffectsFollower;
  readonly #early: string[] = [];
  readonly #overPrefetch: string[] = [];
  readonly #exits: string[] = [];
  readonly #resumed: number[] = [];
  readonly #happened: string[] = [];
  #service!: Service;
  #load!: Load;

  constructor(site: Site, options: CampaignOptions, folder: string) {
    this.#site = site;
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#effectsPath = join(folder, 'effects');
    this.#effects = new EffectsFollower(this.#effectsPath);
    this.#settings = {
      url: site.url,
      queue: QUEUE,
      options: site.queue,
      transportOptions: site.transportOptions,
      isOrdered: this.#random.share() < 0.5,
    };
  }

  async run(): Promise<CampaignResult> {
    const { site, seed, faults, milliseconds, perSecond } = this.#options;
    this.#watchWire();
    this.#service = await this.#start();
    this.#load = new Load(this.#site.ownUrl, QUEUE, {
      perSecond,
      random: new Random(seed + 1),
      room: () => this.#load.confirmed.size - this.#effects.counts.size < perSecond,
      options: { transportOptions: this.#site.transportOptions },
    });
    try {
      const ends = performance.now() + milliseconds;
      await this.#goesOn('at the start');
      const all = [...this.#site.faults, ...this.#serviceFaults()];
      while (this.#happened.length < faults && performance.now() < ends) {
        await sleep(this.#random.between(50, 1500));
        const fault = this.#random.pick(all);
        this.#happened.push(fault.name);
        await fault.happens(this.#random);
        await this.#goesOn(fault.name);
      }
      await this.#load.stop();
      await this.#drained();
      return await this.#close(site, seed);
    } finally {
      await this.#load[Symbol.asyncDispose]();
      this.#effects[Symbol.dispose]();
      // It has ended already where all went well.
      if (!this.#service.isLocal) await this.#service.kill();
    }
  }

  #start(): Promise<Service> {
    const { isApart } = this.#site;
    return isApart
      ? ChildService.start(this.#settings, this.#effectsPath)
      : LocalService.start(this.#settings, this.#effectsPath);
  }

  #watchWire(): void {
    this.#site.trace?.onSettle(({ messageId = '?', connection, channel }, { kind }) => {
      const { trace } = this.#site;
      const held = trace!.outstanding().filter((each) => each.connection === connection && each.channel === channel);
      if (held.length > PREFETCH) this.#overPrefetch.push(`${held.length} on connection ${connection}`);
      if (kind !== 'ack' || this.#load.poison.has(messageId)) return;
      if (!this.#effects.counts.has(messageId) && !this.#effects.read().counts.has(messageId))
        this.#early.push(messageId);
    });
  }

  /** Something that is published from now on is handled. */
  async #goesOn(after: string): Promise<void> {
    const since = performance.now();
    const mark = Number(process.hrtime.bigint() / 1000n);
    const isNew = (id: string): boolean => (this.#load.confirmed.get(id) ?? 0) > mark;
    const seen = this.#effects.read().all.length;
    await until(
      `something is handled after: ${after}`,
      () =>
        this.#effects
          .read()
          .all.slice(seen)
          .some(({ id }) => isNew(id)),
      { everyMs: 5, timeoutMs: PEACE, state: () => this.#state() },
    );
    const took = Math.round(performance.now() - since);
    this.#resumed.push(took);
    this.#options.log?.(`${after}: goes on after ${took} ms; ${this.#effects.all.length} effects`);
  }

  async #state(): Promise<unknown> {
    const stats = await Promise.race([this.#service.stats(), sleep(2000).then(() => 'the service does not answer')]);
    return {
      stats,
      left: await this.#site.left(QUEUE),
      happened: this.#happened.slice(-3),
      confirmed: this.#load.confirmed.size,
    };
  }

  #serviceFaults(): Fault[] {
    const renew = async (end: () => Promise<unknown>): Promise<void> => {
      await end();
      this.#service = await this.#start();
    };
    const faults: Fault[] = [
      { name: 'workers are scaled', happens: (random) => this.#service.scale(random.between(1, 4)) },
      {
        name: 'consumption pauses',
        happens: async (random) => {
          await this.#service.pause();
          await sleep(random.between(0, 500));
          await this.#service.resume();
        },
      },
      {
        name: 'service is restarted in order',
        happens: () =>
          renew(async () => {
            const code = await this.#service.stop();
            if (code !== 0) this.#exits.push(`the service ended with code ${code}`);
          }),
      },
    ];
    if (this.#site.isApart)
      faults.push({ name: 'service is killed', happens: () => renew(() => this.#service.kill()) });
    return faults;
  }

  async #drained(): Promise<void> {
    const { confirmed, poison } = this.#load;
    const isDone = (): boolean => {
      const { counts } = this.#effects.read();
      return [...confirmed.keys()].every((id) => poison.has(id) || counts.has(id));
    };
    await until('all is handled', isDone, { timeoutMs: PEACE, everyMs: 100, state: () => this.#state() });
    await until(
      'nothing is in hand',
      async () => {
        const [{ unsettled }, { waiting }] = [await this.#service.stats(), await this.#site.left(QUEUE)];
        return unsettled === 0 && waiting === 0;
      },
      { timeoutMs: PEACE, everyMs: 200, state: () => this.#state() },
    );
  }

  async #close(site: SiteName, seed: number): Promise<CampaignResult> {
    const stats = await this.#service.stats();
    const code = await this.#service.stop();
    const { waiting, delivered } = await this.#site.left(QUEUE);
    const dead = await this.#deadLetters();
    const leftOver = Object.entries({
      'in the arena': stats.arena.used,
      'in hand': stats.held + stats.waiting + stats.inFlight + stats.unsettled,
      'in the queue': waiting,
      'with a consumer that is gone': delivered,
      'exit code': code ?? -1,
      'open sockets': await this.#openSockets(),
    }).flatMap(([where, count]) => (count === 0 ? [] : [`${where}: ${count}`]));
    const { confirmed, unsure, poison } = this.#load;
    const verdicts = judge({
      confirmed: new Set(confirmed.keys()),
      unsure,
      poison,
      effects: this.#effects.read().all,
      dead,
      wrongAcks: this.#site.trace?.violations ?? [],
      early: this.#early,
      overPrefetch: this.#overPrefetch,
      leftOver: [...leftOver, ...this.#exits],
      isOrdered: this.#settings.isOrdered,
      resumed: this.#resumed,
      resumeLimit: RESUME_LIMIT,
    });
    const twice = [...this.#effects.counts.values()].filter((count) => count > 1).length;
    const { isOrdered } = this.#settings;
    const counts = { messages: confirmed.size, twice, dead: dead.length };
    return { site, seed, isOrdered, ...counts, faults: this.#happened, resumed: this.#resumed, verdicts };
  }

  /** The proxy sees the ends of the service's sockets a moment after it is gone. */
  async #openSockets(): Promise<number> {
    const { proxy } = this.#site;
    if (proxy === undefined) return 0;
    for (let waited = 0; proxy.live.length > 0 && waited < 2000; waited += 20) await sleep(20);
    return proxy.live.length;
  }

  async #deadLetters(): Promise<string[]> {
    const connection = new Connection(this.#site.ownUrl, { transportOptions: this.#site.transportOptions });
    const ids: string[] = [];
    try {
      const queue = new Queue(`${QUEUE}.dead`);
      // It is declared with the first dead letter.
      await queue.declare(connection);
      for (let message = await queue.get(connection); message !== null; message = await queue.get(connection)) {
        ids.push(message.properties.messageId ?? '?');
        message.ack();
      }
    } finally {
      await connection.close();
    }
    return ids;
  }
}

export async function runCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const folder = mkdtempSync(join(tmpdir(), 'mozuku-chaos-'));
  await using site = await openSite(options.site);
  try {
    return await new Campaign(site, options, folder).run();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
