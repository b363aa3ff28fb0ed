"""The store of results: what runs measure, in one DuckDB file that SQL can ask."""
