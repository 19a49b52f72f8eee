"""Images, masks and folders of them: reading, listing, and turning pixels into network input.

Order of imports: files, formats, pages, listing, lock, content, images, masks, preprocess, labelled,
ahead, layouts, datasets, synthetic, check, known.
"""
