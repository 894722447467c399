"""The store's queries, one module for each table they are about; relay/store.py puts them together."""
