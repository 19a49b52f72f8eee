"""What stands around a service: stations by file, and the sources that their parts come from.

Order of imports: sources, outputs, cycle, handshake, opcua, lineup, folder, telling, sinks, making, checking,
turns, plant.
"""
