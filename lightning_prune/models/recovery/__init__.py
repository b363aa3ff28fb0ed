"""What recovers a pruned model: adapters, zeros kept in training, a teacher, and merging."""
