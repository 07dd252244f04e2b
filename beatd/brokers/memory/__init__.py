"""A broker in this process's memory: the contract in its shortest form.

What it holds ends with the process. Several objects of one process, and their threads,
may share it; that is how tests stand two schedulers before one broker.
"""

from beatd.brokers.memory.queues import MemoryBroker

__all__ = ["MemoryBroker"]
