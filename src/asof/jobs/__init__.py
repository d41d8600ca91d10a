"""Jobs: the only place where sources, stores and the engine meet; each module serves one purpose."""
