"""The service over HTTP.

Order of imports: problems, guard, auth, uploads, answers, inspection, administration, people, versions,
reviewing, drifting, tensors, oip, inferring.
"""
