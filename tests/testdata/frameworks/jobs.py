"""The jobs of all frameworks: each leaves a mark when it begins and when it ends."""

import os
import time


def mark(what, job):
    path = os.path.join(os.environ["SWARM_TEST_DIR"], "marks")
    line = f"{what} {job} {time.time():.3f}\n".encode()
    # One write of a line to a file opened for appending is never torn.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line)
    os.close(file)


def work(job, seconds):
    mark("begin", job)
    time.sleep(seconds)
    mark("end", job)
