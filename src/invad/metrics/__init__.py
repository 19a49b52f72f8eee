"""How well scores and maps separate: exact metrics, those read at sampled thresholds, their intervals.

Order of imports: exact, intervals, sampled.
"""
