"""From what users write to settings and entries.

switches.py options of the command line that stand for settings
settings/   one table of all settings, and what is made from it
source.py   what a config says, and where in its text
faults.py   why a config cannot be read
modules.py  modules and files, executed afresh or imported
places.py   where a config is looked for
finding.py  the app that `-A` names
celery_settings.py  the settings of a Celery app
apps.py     an app that has a config
celery_schedules.py  schedules of Celery's, as those of beatd
calls.py    what entries send without an app
called.py   what entries of an app send, if need be by a call for each slot
own_code.py      which code is a package's own; celery_code.py: which is Celery's
app_calls.py     calls by an app of beatd's
celery_calls.py  calls by a Celery app; recording.py keeps what they publish
entries.py  entries, read and checked
loading.py  settings and entries of one config, and all that is wrong with them
options.py  the options of the command line and the environment

Each imports only what stands above it. This module imports none of them: `beatd --help`
needs only `switches`.
"""
