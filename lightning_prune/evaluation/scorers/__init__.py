"""How much of an undesired thing a text has."""
