import os
import time

from huey import RedisHuey

huey = RedisHuey("mail", url=os.environ.get("BROKER_URL", "redis://localhost:6379/0"))


@huey.task()
def greet(name):
    time.sleep(2)
    print(f"hello {name}", flush=True)
