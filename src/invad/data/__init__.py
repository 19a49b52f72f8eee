"""Images, masks and folders of them: reading, listing, and turning pixels into network input."""
