"""Guests in other tools: one module for each, named after it, with an extra of the same name.

A module imports its host inside functions or, where it subclasses what the host brings, at its top, always
within `importing` of `system.packages`, which says in one line what is wrong with a host; `import invad`
never imports any of them. They do not import each other, and their order here is that of the alphabet.

Order of imports: anomalib, coco, diffusers, fiftyone, hub, label_studio, mlflow, sklearn, spark, supervision.
"""
