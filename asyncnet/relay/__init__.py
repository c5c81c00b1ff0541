"""What keeps mail and passes it on: a durable queue, and the relay that empties it.

`queue.open_queue` is the queue: a `smtp.delivery.Delivery` on one side, and on the other what `runner.Relay` takes mail
from, to hand it over where `routes.Routes` lead. `bounces` writes what senders are told. `admin.QueueAdmin` looks into
the queue and changes it, from another process too. `pip install "asyncnet[relay]"` brings SQLAlchemy and dnspython.
"""
