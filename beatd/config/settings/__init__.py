"""Settings: one table of them, and all that is made from it.

secrets.py   what is not to be shown: in addresses, in values, in texts of others
problems.py  what is wrong with a config, where, in words without secrets
kinds.py     what kinds of values there are, and how each is checked
alerts.py    rules of alerts, as they are written
notes.py     what a row says: works, unused, beatd's own
rows/        the table
local_zone.py  the name of the machine's zone
file_urls.py  addresses of SQLite files
values.py    `Settings`: what was read, and what is made from more than one setting
reading.py   every spelling, merged and checked, into `Settings` and problems
page.py      `docs/settings.md`

Each imports only what stands above it.
"""

from beatd.config.settings.alerts import (
    ALL_KINDS as ALL_ALERTS,
)
from beatd.config.settings.alerts import (
    RULE as ALERT_RULE,
)
from beatd.config.settings.alerts import (
    AlertKind,
    Changes,
    Ping,
    shown_address,
)
from beatd.config.settings.file_urls import file_of_url
from beatd.config.settings.kinds import (
    BUILTIN_TASKS,
    COUNT,
    FLAG,
    OVERLAP,
    POSITIVE,
    SECONDS,
    SOME_SECONDS,
    TEXT,
    ZONE,
    Failover,
    Kind,
    Unfit,
    is_web_address,
)
from beatd.config.settings.local_zone import local_zone
from beatd.config.settings.problems import (
    Place,
    Problem,
    did_you_mean,
)
from beatd.config.settings.reading import (
    Row,
    read,
    spellings,
    table,
    unknown_names,
)
from beatd.config.settings.secrets import (
    addresses_in,
    is_secret,
    mask,
    mask_url,
    mentions_secret,
    safe,
    safe_items,
    safe_value,
)
from beatd.config.settings.values import Settings

__all__ = [
    "ALERT_RULE",
    "ALL_ALERTS",
    "BUILTIN_TASKS",
    "COUNT",
    "FLAG",
    "OVERLAP",
    "POSITIVE",
    "SECONDS",
    "SOME_SECONDS",
    "TEXT",
    "ZONE",
    "AlertKind",
    "Changes",
    "Failover",
    "Kind",
    "Ping",
    "Place",
    "Problem",
    "Row",
    "Settings",
    "Unfit",
    "addresses_in",
    "did_you_mean",
    "file_of_url",
    "is_secret",
    "is_web_address",
    "local_zone",
    "mask",
    "mask_url",
    "mentions_secret",
    "read",
    "safe",
    "safe_items",
    "safe_value",
    "shown_address",
    "spellings",
    "table",
    "unknown_names",
]
