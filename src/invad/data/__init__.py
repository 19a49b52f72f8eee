"""Images, masks and folders of them: reading, listing, and turning pixels into network input.

Order of imports: files, listing, lock, content, images, preprocess, labelled, ahead, layouts, datasets,
synthetic, check, known.
"""
