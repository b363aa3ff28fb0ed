"""Studies of one model: many methods, one method's arguments, shares of blocks, their importance.

Plain functions of a module and a data module: they need neither a Trainer nor a command line, and
return what they have found.
"""
