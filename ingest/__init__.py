"""From a device's packet to a committed row and its acknowledgement."""
