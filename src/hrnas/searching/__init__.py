"""The search: units, their penalty, the control of the budget, and the plan and cut of a shrink.

Knows no data, task or loop; works on any network made of search blocks.
"""
