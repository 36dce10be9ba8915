"""
What an alert is and how it changes: pure decisions over persisted state.

`identity` says which alert it is, `lifecycle` what a verdict does to it. Nothing here reads a clock,
a store or a network; `now` comes in, a `Step` goes out.
"""
