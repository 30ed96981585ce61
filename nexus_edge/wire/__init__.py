"""What nodes say to each other: canonical bytes, signed objects, messages, refusals and limits.

The only place that encodes, decodes or checks a signature. docs/mesh-protocol.md is generated from the types here.
"""
