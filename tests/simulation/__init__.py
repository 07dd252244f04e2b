"""The service under simulated time: every call of a port may meet a fault.

world       simulated time, a heap of events, and the greenlets that wait in it
network     the broker's server, and lines to it that are slow, cut, or hold requests
disk        the real schedule file, on a disk that may lose what was not flushed
hosts       a scheduler with its clock and its disk; it crashes, pauses and restarts
threads     what the worker takes from `threading`, on greenlets
workers     the real worker, with a pool whose tasks take simulated time
plan        the entries, as plain facts
faults      what goes wrong, drawn by the seed; each kind is a switch
checker     reads what came to the queues: lost, doubled, foreign, late
work        reads what ran: not run, run twice, at the same time, followed wrongly
run         one simulation from its seed to its verdict
mutations   parts of beatd that are taken out, so that a seed shows what they are for
record      notes each call that reaches the broker in memory, with its answer
real        Redis and SQLite under simulated time, emptied and set back as memory is
replay      makes the calls again to these, whose answers have to be the same
__main__    many of them, from the command line

All of it is one thread, and whatever happens follows from the seed: a seed that fails
fails again. The parts of beatd are the real ones, down to the SQLite of the schedule
file; the broker is the one in memory. tests/brokers holds the others to it, and so does
the replay: with `--replay` the calls of each seed are made to Redis and SQLite, too, in
the order in which they were executed. The first one with another answer is shown.
"""
