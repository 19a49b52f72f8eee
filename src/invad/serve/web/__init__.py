"""The service over HTTP.

Order of imports: problems, guard, auth, uploads, answers, inspection, administration, reviewing, drifting,
tensors, oip.
"""
