"""Every limit of the mesh protocol, with its reason."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# Encoding
DEPTH: Final = 8  # the deepest object, a list of records in evidence, needs 4
INTEGER: Final = 2**53 - 1  # every language's JSON and double can hold it
AMOUNT: Final = 2**40  # a million credits: sums of a thousand still fit 2^53
BLOB: Final = 64 * MIB  # above every single body

# Connections: a node has at most a few dozen neighbours at work
CONNECTIONS_PER_PEER: Final = 8
CONNECTIONS_PER_PREFIX: Final = 32
CONNECTIONS: Final = 512
TLS_HANDSHAKE_S: Final = 3.0
HEADER_S: Final = 5.0
IDLE_S: Final = 20.0

# Rates
REQUESTS_PER_PEER: Final = 20  # per second
REQUESTS_BURST: Final = 60
QUOTES_PER_PEER: Final = 5  # per second: a quote costs the worker a signature
QUOTES_PER_PREFIX: Final = 20
DIALBACK_INTERVAL_S: Final = 60.0  # a dialback makes us open a connection

# Work
OPEN_LEASES_PER_ACCOUNT: Final = 16
OPEN_LEASES: Final = 64
LONG_POLLS_PER_PEER: Final = 4
LONG_POLL_MS: Final = 20_000
QUEUED_JOBS: Final = 64
QUEUED_MS: Final = 300_000

# Sizes
INPUT: Final = 16 * MIB
OUTPUT: Final = 16 * MIB
PROOF: Final = 8 * MIB
MODEL: Final = 2 * GIB
CHUNK: Final = MIB
CHUNKS: Final = MODEL // CHUNK
UPLOADS_PER_PEER: Final = 2
UPLOAD_BYTES_PER_S: Final = 64 * KIB  # over 10 s: below it an upload only holds a slot
ENTRIES_PER_POST: Final = 64
TENSORS: Final = 16  # inputs of one model
NODE_RECORDS: Final = 10_000
EVENTS_PER_POLL: Final = 32

# Clocks
RECORD_AHEAD_MS: Final = 3_600_000
RECORD_LIFE_MS: Final = 86_400_000
SKEW_SHOWN_MS: Final = 5_000

# Keeping
UPLOAD_KEPT_S: Final = 600.0  # without a lease
RESULT_KEPT_MS: Final = 86_400_000  # a requester that slept comes back and pays
PROOF_KEPT_MS: Final = 30 * 86_400_000
