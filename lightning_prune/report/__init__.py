"""What a run or a study found out: values, their tables and pictures, and one writer for all."""
