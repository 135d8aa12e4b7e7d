import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

# One of ten commands takes back what a worker that left had fetched; by default it is one of 1,000.
dramatiq.set_broker(RedisBroker(url=os.environ.get("BROKER_URL", "redis://localhost:6379/0"), maintenance_chance=100_000))


@dramatiq.actor(queue_name="mail")
def greet(name):
    time.sleep(2)
    print(f"hello {name}", flush=True)
