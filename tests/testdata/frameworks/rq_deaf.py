"""A worker of RQ that loses its first stop signal: as if it had come while a log line was written."""

from rq.worker import Worker


class DeafWorker(Worker):
    def _shutdown(self):
        pass
