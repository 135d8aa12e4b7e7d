import os
import time

from celery import Celery

app = Celery("tasks", broker=os.environ.get("BROKER_URL", "redis://localhost:6379/0"))


@app.task
def greet(name):
    time.sleep(2)
    print(f"hello {name}", flush=True)
