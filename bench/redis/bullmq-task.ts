/** The processor of the bullmq-threads peer: answers the id of one message. */
import type { SandboxedJob } from 'bullmq';
import type { Body } from './peer.js';

export default async function handle(job: SandboxedJob<Body, number>): Promise<number> {
  return job.data.id;
}
