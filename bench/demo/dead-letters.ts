/** Reads the dead-letter queue to its end and compares it with the messages that were to go there. */
import { type Connection, Queue } from '#src/index';
import type { Trouble } from './messages.js';

/** What does not agree, in words; empty if everything does. */
export async function checkDeadLetters(
  connection: Connection,
  queue: string,
  troubles: ReadonlyMap<number, Trouble>,
): Promise<string[]> {
  const wrong: string[] = [];
  const seen = new Set<number>();
  const deadLetters = new Queue(queue);
  for (let letter = await deadLetters.get(connection); letter !== null; letter = await deadLetters.get(connection)) {
    const id = Number(letter.properties.messageId);
    const trouble = troubles.get(id);
    const reason = letter.headers['x-mozuku-reason'];
    if (trouble === undefined) wrong.push(`message ${id} is a dead letter (${String(reason)}) and was sound`);
    else if (seen.has(id)) wrong.push(`message ${id} is two dead letters`);
    else if (reason !== trouble.reason) {
      wrong.push(`message ${id} (${trouble.text}) is a dead letter for the reason '${String(reason)}'`);
    }
    seen.add(id);
    letter.ack();
  }
  for (const [id, { text }] of troubles) if (!seen.has(id)) wrong.push(`message ${id} (${text}) is no dead letter`);
  return wrong;
}
