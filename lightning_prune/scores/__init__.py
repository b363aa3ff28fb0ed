"""From evidence to one number for each unit; higher stays. Pure functions of tensors."""
