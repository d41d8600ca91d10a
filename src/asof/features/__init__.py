"""The language: expressions over bars and events, feature sets, and their text. It knows no data, store or clock."""
