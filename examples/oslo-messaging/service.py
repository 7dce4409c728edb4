# A service as OpenStack has them: an RPC server that also sends notifications, with Python's oslo.messaging.
#
#     python3 service.py rabbit://guest:guest@localhost:5672// [topic [exchange]]
#
# Serves until its standard input ends.

import sys

import oslo_messaging
from oslo_config import cfg

url = sys.argv[1]
topic = sys.argv[2] if len(sys.argv) > 2 else 'calculator'
exchange = sys.argv[3] if len(sys.argv) > 3 else 'openstack'

conf = cfg.ConfigOpts()
oslo_messaging.set_transport_defaults(control_exchange=exchange)
notifier = oslo_messaging.Notifier(
    oslo_messaging.get_notification_transport(conf, url=url),
    publisher_id=f'{topic}.one', driver='messagingv2', topics=[f'{topic}-notifications'])
conf([])


class Calculator:
    def add(self, ctxt, numbers):
        total = sum(numbers)
        notifier.info(ctxt, 'calculator.added', {'numbers': numbers, 'total': total})
        return total

    def echo(self, ctxt, value):
        return {'value': value, 'context': ctxt}

    def divide(self, ctxt, a, b):
        return a / b


server = oslo_messaging.get_rpc_server(
    oslo_messaging.get_rpc_transport(conf, url=url),
    oslo_messaging.Target(topic=topic, server='one'),
    [Calculator()], executor='threading', access_policy=oslo_messaging.DefaultRPCAccessPolicy)
server.start()
print('serving', topic, flush=True)
sys.stdin.read()
server.stop()
server.wait()
