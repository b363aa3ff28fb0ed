"""What an uneven model is: classes for models whose blocks differ in heads and neurons.

`modeling_pruned` needs torch and transformers alone and travels in saved folders; `registry` makes
its classes for every family and makes them known to transformers' Auto classes.
"""
