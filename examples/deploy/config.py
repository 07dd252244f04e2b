"""What compose.yaml runs; the broker's URL comes from a secret."""

timezone = "Europe/Berlin"
include = ["tasks"]
result_backend = "redis://redis:6379/1"  # else nobody knows how runs end

beat_schedule = {
    "tick": {"task": "tasks.say", "schedule": 10, "args": ("tick",)},
    "nightly": {"task": "tasks.say", "schedule": "30 2 * * *", "args": ("good night",)},
}
