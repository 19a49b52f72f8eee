"""What data sets look like on disk, one family a file. Files are listed, never moved or rewritten."""
