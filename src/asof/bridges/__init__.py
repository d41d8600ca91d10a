"""Bridges to programs that backtest: each a small module that hands over what was known, in the form that its program reads."""
