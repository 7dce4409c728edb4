/**
 * The replay broker, a process of its own: speaks just enough AMQP 0-9-1 to accept one consumer (and any number of
 * connections that only declare), and pours ready-made deliveries at it. It measures the client and not a broker.
 * The harness loads a run, hears when everything is settled, and asks for the books afterwards.
 */
import { createServer, type Socket } from 'node:net';
import { Pour } from './pour.js';
import type { Message } from './protocol.js';
import { Session } from './session.js';

/** How long the books wait for the sockets of a peer that is gone: late settlements must still be counted. */
const LINGER_MS = 2000;

let pour: Pour | undefined;
const sockets = new Set<Socket>();

const send = (message: Message): void => {
  process.send?.(message);
};

async function closeBooks(): Promise<void> {
  const deadline = performance.now() + LINGER_MS;
  while (sockets.size > 0 && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
  for (const socket of sockets) socket.destroy();
  if (pour !== undefined) send({ type: 'ledger', ledger: pour.ledger() });
  pour = undefined;
}

const server = createServer((socket) => {
  sockets.add(socket);
  socket.on('close', () => sockets.delete(socket));
  new Session(socket, () => pour);
});

process.on('message', (message: Message) => {
  if (message.type === 'load') {
    pour = new Pour(message.count, message.bodyBytes, {
      settled: () => send({ type: 'settled' }),
      problem: (text) => send({ type: 'problem', text }),
    });
    send({ type: 'loaded' });
  } else if (message.type === 'askLedger') {
    void closeBooks();
  }
});
// The harness is gone: so is the reason to run.
process.on('disconnect', () => process.exit(0));

server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  if (address !== null && typeof address === 'object') send({ type: 'listening', port: address.port });
});
