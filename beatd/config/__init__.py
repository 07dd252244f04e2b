"""What was written, as settings and entries.

switches.py options of the command line that stand for settings
settings/   one table of all settings, and what follows it
source.py   what a config says, and the lines of its text that say it
faults.py   why there is no config to be had
modules.py  modules and files, executed afresh or imported
places.py   where a config is looked for
apps.py     an app that holds a config
entries.py  entries, read and checked
loading.py  settings and entries of one config, and all that is wrong with them
options.py  what the command line and the environment said

Each imports only what stands above it. This module imports none of them: `beatd --help`
has use for `switches` alone.
"""
