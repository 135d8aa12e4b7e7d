import asyncio
import os

from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(os.environ.get("BROKER_URL", "redis://localhost:6379/0"), queue_name="mail")


@broker.task
async def greet(name: str) -> None:
    await asyncio.sleep(2)
    print(f"hello {name}", flush=True)
