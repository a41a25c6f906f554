"""What every call passes before its service: who calls, whether there is room, whether it is a message."""
