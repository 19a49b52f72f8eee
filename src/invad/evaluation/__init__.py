"""What a detector is worth: test sets, metrics in named definitions, benchmarks, speed, the demo.

Order of imports: machine, definitions, predictions, false_alarms, inspected, parts, evaluate, told, speed,
tables, rows, demo, testset, beside, results, benchmark, drift, matching, compare.
"""
