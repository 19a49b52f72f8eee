"""The page of the service, for people: drawn here, made alive by htmx and one small module for each page.

Nothing comes from another host, and everything but the review works before a script ran.

Order of imports: words, rendering, frame, reference, entry, live, history, part, review, limits, drift,
models, settings, site.
"""
