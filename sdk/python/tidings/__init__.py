"""Receive events of Tidings safely: verify, process once, keep order, work off queues. Standard library only."""

from .consume import Consumer, Message, Nack, Refused
from .inbox import Busy, MemoryInbox, RedisInbox, SqlInbox
from .receive import Receiver
from .sequence import Order, SequenceGuard
from .verify import Delivery, VerificationError, Verifier, sign

__all__ = [
    "Busy", "Consumer", "Delivery", "MemoryInbox", "Message", "Nack", "Order", "Receiver", "RedisInbox", "Refused",
    "SequenceGuard", "SqlInbox", "VerificationError", "Verifier", "sign",
]
