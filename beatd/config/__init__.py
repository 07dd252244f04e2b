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
called.py   the same, made by a call for each slot
app_calls.py     what entries of an app of beatd's send
celery_calls.py  and those of a Celery app
entries.py  entries, read and checked
loading.py  settings and entries of one config, and all that is wrong with them
options.py  the options of the command line and the environment

Each imports only what stands above it. This module imports none of them: `beatd --help`
needs only `switches`.
"""
