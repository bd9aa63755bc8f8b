"""Compare checklists that people tick with evidence. Nothing here writes a tick.

`checklist`, `evidence`, `judge`, `sockets`, `report` and `proposal` are pure; `gather` is the only asker.
"""
