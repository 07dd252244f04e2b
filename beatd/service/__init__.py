"""What composes scheduler and worker, and runs them as a process of the system.

nodes.py      names of nodes, and of files that are named after them
log_setup.py  where the log of a node goes
notify.py     what systemd is told
daemon.py     background, pid file, user, umask
process.py    the process as options and settings want it
rereading.py  the config in a new interpreter; reloading.py: when, beside the loop
facts.py      what the loop tells of itself; look.py: what a broker has
snapshot.py   a scheduler that runs, as a Status (status.py), and what is wrong with it
offline.py    the same where none answers
http.py       questions and answers, at sockets.py; site.py, metrics.py: which answers
other_side.py says if schedulers and workers do not meet at one file
wiring/       the only composer
beat.py       `beatd`, from start to end
worker.py     `beatd worker`, perhaps with the scheduler of beat.py
"""
