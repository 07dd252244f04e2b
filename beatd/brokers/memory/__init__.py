"""A broker in this process's memory: the contract in its shortest form.

Its messages are gone when the process ends. Several objects of one process, and their
threads, may share it: tests run two schedulers on one such broker.
"""

from beatd.brokers.memory.queues import MemoryBroker

__all__ = ["MemoryBroker"]
