/**
 * `npm run chaos -- --seed S --minutes M [--faults N] [--site NAME …] [--rate N]`: campaigns on each broker in turn, with seeds
 * from S on, for M minutes in all. Prints a line a campaign, and what broke. Exit code 1 if anything did, 2 for bad usage.
 */
import { parseArgs } from 'node:util';
import { runCampaign } from './campaign.js';
import { SITES, type SiteName } from './sites.js';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    minutes: { type: 'string', default: '10' },
    faults: { type: 'string', default: '12' },
    rate: { type: 'string', default: '400' },
    site: { type: 'string', multiple: true },
    verbose: { type: 'boolean', default: false },
  },
});
const sites = (values.site ?? SITES) as readonly string[];
const numbers = [values.seed, values.minutes, values.faults, values.rate].map(Number);
const [seed = 1, minutes = 10, faults = 12, perSecond = 400] = numbers;
const unknown = sites.find((site) => !(SITES as readonly string[]).includes(site));
if (unknown !== undefined || numbers.some((number) => !Number.isFinite(number) || number <= 0)) {
  process.stderr.write(`chaos: --seed, --minutes, --faults, --rate are numbers, --site one of ${SITES.join(', ')}\n`);
  process.exit(2);
}
const ends = performance.now() + minutes * 60_000;
let broken = 0;
const total = { messages: 0, faults: 0, twice: 0 };
for (let run = 0; performance.now() < ends; run++) {
  const site = sites[run % sites.length] as SiteName;
  const own = seed + Math.floor(run / sites.length);
  const log = values.verbose ? (line: string) => console.log(`  ${line}`) : undefined;
  const milliseconds = ends - performance.now();
  try {
    const result = await runCampaign({ site, seed: own, faults, milliseconds, perSecond, ...(log && { log }) });
    const bad = result.verdicts.filter((verdict) => verdict.broken.length > 0);
    broken += bad.length;
    total.messages += result.messages;
    total.faults += result.faults.length;
    total.twice += result.twice;
    const { messages, twice, dead, isOrdered, resumed } = result;
    const kinds = `${result.faults.length} faults, ${messages} messages, ${twice} twice, ${dead} dead`;
    console.log(
      `${bad.length === 0 ? 'held  ' : 'BROKEN'} ${site} seed ${own}${isOrdered ? ' in order' : ''}: ${kinds}, went on after at most ${Math.max(...resumed)} ms`,
    );
    for (const { oracle, text, broken: what } of bad) console.log(`  ${oracle} ${text}: ${what.join('; ')}`);
    if (bad.length > 0) console.log(`  faults: ${result.faults.join('; ')}`);
  } catch (error) {
    broken++;
    console.log(`BROKEN ${site} seed ${own}: ${error instanceof Error ? error.stack : String(error)}`);
  }
}
console.log(
  `in all ${total.messages} messages, ${total.faults} faults, ${total.twice} handled twice; ${broken} broken`,
);
process.exitCode = broken > 0 ? 1 : 0;
