/** Peer: amqplib, inline callback, one ack per message. */
import { inlinePeer } from './inline.js';
import { runPeer } from './peer.js';

await runPeer(inlinePeer(1));
