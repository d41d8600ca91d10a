"""The engine: arrays in, arrays out. No I/O, no clock, no store."""
