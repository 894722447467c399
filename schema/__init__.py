"""The contract between relay, volunteers, clients and pages: bytes in, events out.

Knows the wire format, the control messages, the REST bodies, the limits and the errors.
Does not know sockets, event loops, tensors libraries or databases: nothing here is async and
nothing here imports outside the standard library and msgspec.
"""
