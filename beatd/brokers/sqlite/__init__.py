"""The embedded default: queues, ledger and term in one SQLite file, on one host.

statements.sql has the tables, the statements and what they guarantee.
"""

from beatd.brokers.sqlite.file import LARGEST_WAL
from beatd.brokers.sqlite.queues import SQLiteBroker
from beatd.brokers.sqlite.statements import SQL

__all__ = ["LARGEST_WAL", "SQL", "SQLiteBroker"]
