"""One file for each step; a step that was released is never changed.

Order of imports: r0001_first, r0002_reviews, r0003_drift,
r0004_pictures, r0005_users, r0006_versions,
r0007_verdicts, r0008_taken, r0009_sinks, r0010_late, r0011_removed,
r0012_sizes, r0013_members.
"""
