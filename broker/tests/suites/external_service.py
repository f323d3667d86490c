"""Stands in for kafka-python's `test/service.py`, which its sdist leaves out: a broker that somebody else started."""


class ExternalService:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def dump_logs(self):
        """Nothing: the logs are with whoever started the broker."""

    def stop(self):
        """Nothing: whoever started it stops it."""


class SpawnedService:
    def __init__(self, args=None, env=None):
        raise RuntimeError("the test starts a Kafka of its own")
