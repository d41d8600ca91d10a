"""Stores: where bars, events, vectors and their superseded revisions live. One interface, Arrow in and out."""
