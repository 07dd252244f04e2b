"""beatd: a periodic task scheduler that emits each slot exactly once."""
