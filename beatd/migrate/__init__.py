"""From other schedulers to beatd: what they keep becomes marks and config modules."""
