/** Peer: Python's kombu, its Consumer with acks. Speaks as peer.ts does. */

export const KOMBU = `
import json, os, sys, threading, time
from kombu import Connection, Consumer, Producer, Queue

def with_the_harness():
    sys.stdin.read()
    os._exit(1)

threading.Thread(target=with_the_harness, daemon=True).start()
mode, url, count, name, prefetch, first, size = sys.argv[1:]
count, first = int(count), int(first)
queue = Queue(name)
with Connection(url) as connection:
    channel = connection.channel()
    if mode == 'fill':
        producer = Producer(channel, serializer='json', routing_key=name)
        pad = 'x' * (int(size) - len(json.dumps({'id': first, 'pad': ''}, separators=(',', ':'))))
        for index in range(1, count + 1):
            producer.publish({'id': first + index, 'pad': pad}, declare=[queue] if index == 1 else [])
        sys.stdout.flush()
        os._exit(0)
    handled, begun = [], None
    def handle(body, message):
        global begun
        if begun is None:
            begun = (time.monotonic(), time.process_time())
        message.ack()
        handled.append(body['id'])
    with Consumer(channel, [queue], callbacks=[handle], prefetch_count=int(prefetch), accept=['json']):
        while len(handled) < count:
            connection.drain_events(timeout=60)
        seconds, cpu = time.monotonic() - begun[0], time.process_time() - begun[1]
    if sorted(handled) != list(range(first + 1, first + count + 1)):
        sys.exit('not each message was handled once')
    print(json.dumps({'rate': count / seconds, 'cpuMicros': cpu * 1e6 / count}), flush=True)
    os._exit(0)
`;
