"""Enqueues jobs of one program, one for each line of standard input: KIND QUEUE JOB SECONDS [DELAY]; answers each with
`ok`. The argument is the program's module."""

import importlib
import sys

app = importlib.import_module(sys.argv[1])
app.open_producer()
for line in sys.stdin:
    kind, _, job, seconds, *delay = line.split()
    app.enqueue(kind, job, float(seconds), float(delay[0]) if delay else 0)
    print("ok", flush=True)
