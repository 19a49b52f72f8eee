"""How well scores and maps separate: exact metrics, those read at sampled thresholds, intervals.

Order of imports: exact, alarms, intervals, sampled.
"""
