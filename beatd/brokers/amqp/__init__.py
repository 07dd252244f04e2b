"""RabbitMQ, by py-amqp. What lies there, and what it promises: docs/brokers.md."""

from beatd.brokers.amqp.broker import AMQPBroker

__all__ = ["AMQPBroker"]
