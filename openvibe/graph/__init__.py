"""Checkpointers: LangGraph's memory of a run, kept as rows that any database can hold."""
