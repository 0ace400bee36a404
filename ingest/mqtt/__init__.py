"""The server side of MQTT 3.1.1 and 5.0 without any I/O: bytes in, events and bytes out.

`connection.Connection` is the way in. Clocks, sockets and credentials belong to its caller.
"""
