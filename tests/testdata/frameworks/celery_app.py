"""A Celery application with one task."""

import os

from celery import Celery

import jobs

app = Celery("celery_app", broker=os.environ["BROKER"])
app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True)


@app.task
def work(job, seconds):
    jobs.work(job, seconds)
