/** Peer: amqplib, inline callback, every 64th message acks all up to it. */
import { inlinePeer } from './inline.js';
import { runPeer } from './peer.js';

await runPeer(inlinePeer(64));
