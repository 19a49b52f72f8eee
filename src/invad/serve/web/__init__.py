"""The service over HTTP.

Order of imports: problems, guard, auth, keyfile, uploads, answers, inspection, administration, people,
versions, reviewing, drifting, tensors, oip, inferring.
"""
