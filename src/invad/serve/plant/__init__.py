"""What stands around a service: stations by file, and the sources that their parts come from.

Order of imports: times, sources, outputs, cycle, care, handshake, controllers, opcua, lineup, found, gather,
folder, feeds, streams, genicam, triggers, camera, telling, registers, modbus, sinks, mqtt, making, controls,
checking, turns, plant.
"""
