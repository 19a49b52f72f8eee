"""What invad asks of the operating system: files written whole, one writer to a folder, threads that sleep.

Order of imports: waiting, files, tensors, plain, lock.
"""
