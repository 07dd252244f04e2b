"""The service under simulated time: every call of a port may meet a fault.

world       the one true time, a heap of events, and greenlets that wait in it
network     a broker as a node reaches it: slow, cut off, or with an answer too late
node        a scheduler with its clock and its disk; it crashes, pauses and restarts
plan        what is scheduled, and which faults a seed draws
expected    the slots that the plan's schedules name, by brute force
verdict     reads what came to the queues: lost, doubled, unexpected
__main__    runs seeds from the command line

All of it is one thread, and whatever happens follows from the seed: a seed that fails
fails again. The parts of beatd are the real ones, down to the SQLite of the schedule
file; the broker is the one in memory, to which tests/brokers holds the others.
"""
