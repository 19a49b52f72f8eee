"""What stands around a service: stations by file, and the sources that their parts come from.

Order of imports: sources, outputs, lineup, folder, cycle, handshake, telling, sinks, making, checking,
turns, plant.
"""
