"""What invad asks of the machine: files written whole, one writer to a folder, digests, signals, devices.

Order of imports: version, waiting, pauses, arguments, digests, packages, devices, signals, supervisor,
files, tensors, plain, lock, network.
"""
