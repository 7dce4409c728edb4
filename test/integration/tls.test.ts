/** TLS: a broker's port with a certificate that nobody has signed but itself. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { Connection, errors, Queue, type SslOptions } from '#src/index';
import { brokerTest, uniqueName } from '../support/rabbitmq.js';

/** A TLS port for `localhost` in front of the broker. */
async function listenTls(url: string) {
  const folder = mkdtempSync(join(tmpdir(), 'mozuku-tls-'));
  const cert = join(folder, 'cert.pem');
  const key = join(folder, 'key.pem');
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
  const made = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-keyout', key, '-out', cert, ...names];
  execFileSync('openssl', made, { stdio: 'ignore' });
  const sockets = new Set<Socket>();
  const target = new URL(url);
  const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (client) => {
    const broker = connect(Number(target.port), target.hostname);
    for (const socket of [client, broker]) {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => client.destroy() && broker.destroy());
    }
    client.pipe(broker).pipe(client);
  });
  server.on('tlsClientError', () => undefined);
  server.listen(0, 'localhost');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const address = `amqps://${target.username}:${target.password}@localhost:${port}/`;
  const close = async () => {
    server.close();
    for (const socket of sockets) socket.destroy();
    rmSync(folder, { recursive: true });
  };
  return { cert, address, [Symbol.asyncDispose]: close };
}

brokerTest('TLS checks the certificate and its name, unless it is told not to', async ({ url }) => {
  await using port = await listenTls(url);
  const local = port.address;
  await assert.rejects(new Connection(local).connect(), (error: Error) => {
    assert.ok(error instanceof errors.ConnectionError);
    assert.match(error.message, /self.signed certificate/);
    return true;
  });
  const otherName = { caCerts: port.cert, servername: 'other.example' };
  await assert.rejects(new Connection(local, { ssl: otherName }).connect(), /does not match certificate/);
  const accepted: [string, SslOptions | undefined][] = [
    [local, { caCerts: port.cert }],
    [local, { ca: readFileSync(port.cert) }],
    [local, { ...otherName, checkHostname: false }],
    [local, { certReqs: 'none' }],
    [local, { rejectUnauthorized: false }],
    [`${local}?ssl_ca_certs=${encodeURIComponent(port.cert)}`, undefined],
    [`${local}?ssl_cert_reqs=none`, undefined],
    [`${local}?ssl_ca_certs=${encodeURIComponent(port.cert)}&ssl_check_hostname=false`, undefined],
  ];
  for (const [address, ssl] of accepted) {
    await using connection = new Connection(address, ssl === undefined ? {} : { ssl });
    await using pool = connection.Pool(1);
    const lease = await pool.acquire();
    const queue = new Queue(uniqueName('tls'), { exclusive: true });
    await queue.declare(lease);
    await lease.Producer().publish('secret', { routingKey: queue.name });
    assert.equal((await queue.get(lease, { noAck: true }))?.payload, 'secret');
  }
  const wrong = new Connection(local, { ssl: { caCerts: '/no/such/file' } });
  await assert.rejects(wrong.connect(), { name: 'OptionError', message: /cannot read the file for 'ca'/ });
});
