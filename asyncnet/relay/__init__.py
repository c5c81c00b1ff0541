"""What keeps mail and passes it on: a durable queue, and what the relay that empties it needs.

`queue.open_queue` is the queue: a `smtp.delivery.Delivery` on one side, and on the other what a relay asks for that
sends the mail on. `admin.QueueAdmin` looks into it and changes it, from another process too. `retry.RetryPolicy` says
when something is tried again. SQLAlchemy is imported with the queue: `pip install "asyncnet[relay]"` brings it.
"""
