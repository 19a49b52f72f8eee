"""Images, masks and folders of them: reading, listing, and turning pixels into network input.

Order of imports: formats, pages, listing, lists, content, pixels, png, lossless, limits, codestream, dicom,
decoding, images, masks, region, preprocess, samples, tiling, labelled, ahead, video, layouts, annotated,
datasets, groups, members, synthetic, drawn, check, known, published.
"""
