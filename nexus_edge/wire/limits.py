"""Every limit of the mesh protocol, with its reason."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# Encoding
DEPTH: Final = 8  # the deepest object, a list of records in evidence, needs 4
INTEGER: Final = 2**53 - 1  # every language's JSON and double can hold it
AMOUNT: Final = 2**40  # a million credits: sums of a thousand still fit 2^53
TEXT: Final = 1024  # of one text: the longest that a type allows has 200, and what is longer costs time before its type is known
BLOB: Final = 64 * MIB  # above every single body

# Connections
CONNECTIONS_PER_PEER: Final = 8  # long polls for four leases, and as many requests beside them
CONNECTIONS_PER_PREFIX: Final = 32  # four busy peers behind one address
CONNECTIONS: Final = 512  # a node has a few dozen neighbours at work; each connection may hold 64 KiB that nothing else counts
TLS_HANDSHAKE_S: Final = 3.0  # two round trips on the slowest line that is any use, and a busy machine's patience
HEADER_S: Final = 5.0  # for the headers of a request, which fit one packet, and between two requests

# Rates
REQUESTS_PER_PEER: Final = 20  # per second: against chatter; work brings its own requests
REQUESTS_BURST: Final = 60  # a start: records, quotes and open leases are asked for at once
REQUESTS_PER_LEASE: Final = 16  # given back with each new lease: quote, offer, input, polls, result, a proof in parts, payment
ANSWER_PER_REQUEST: Final = MIB  # of an answer count as one more request: it is read, hashed and copied before anybody takes it
QUOTES_PER_PEER: Final = 5  # per second: a quote costs the worker a signature; one that becomes a lease is given back
QUOTES_PER_PREFIX: Final = 20  # per second: as four peers
DIALBACK_INTERVAL_S: Final = 60.0  # a dialback makes us open a connection

# Work
OPEN_LEASES_PER_ACCOUNT: Final = 16  # a quarter of all: no one requester fills the queue
OPEN_LEASES: Final = 64  # as many as may wait
OPEN_LEASES_OF_STRANGERS: Final = 32  # half: names and addresses cost little, and those with a line find a place
LONG_POLLS_PER_PEER: Final = 4  # one for each lease that a requester has at work at once
LONG_POLL_MS: Final = 20_000  # below what home routers forget a silent connection after
QUEUED_JOBS: Final = 64  # more would wait longer than their requesters
QUEUED_MS: Final = 300_000  # five minutes: whoever asks then is better served elsewhere

# Sizes
INPUT: Final = 16 * MIB  # the largest tensors of the models that are supported, several times
OUTPUT: Final = 16 * MIB  # likewise
INPUT_WITH_LEASE: Final = 64 * KIB  # a refused lease wastes a second of the slowest line; what is larger waits for the accept
PROOF: Final = 8 * MIB  # the largest measured has 1.2 MB
MODEL: Final = 2 * GIB  # what a `.tflite` file can be
CHUNK: Final = MIB  # what a slow line loses when it breaks: some seconds
SMALL_ANSWER: Final = CHUNK  # output and proof that come with the poll, as one part of an object would
CHUNKS: Final = MODEL // CHUNK  # of the largest model
UPLOADS_PER_PEER: Final = 2  # one on its way while the one before is checked
UPLOAD_BYTES_PER_S: Final = 64 * KIB  # over 10 s: below it an upload only holds a slot
ENTRIES_PER_POST: Final = 64  # what a peer that was away for a day owes; more come in a second post
TENSORS: Final = 16  # inputs of one model
NODE_RECORDS: Final = 10_000  # some 10 MB in memory
MEMBERS: Final = 1024  # of one fleet that are remembered, each in one row of half a KiB
CERTIFICATES: Final = 8  # fleets that one node belongs to: it shows them to every peer it meets
EVENTS_PER_POLL: Final = 32  # a lease has some ten; the next poll has the rest

# Clocks
RECORD_AHEAD_MS: Final = 3_600_000  # an hour, the usual mistake about summer time: such a node is still a neighbour
RECORD_LIFE_MS: Final = 86_400_000  # a day: addresses of what was switched off do not wander for longer
GROUP_LIFE_MS: Final = 30 * 86_400_000  # a month: a stolen member key is good for no longer, and an owner need not sign every week
SKEW_SHOWN_MS: Final = 5_000  # below it nobody notices; nothing about money or leases compares two clocks

# Keeping
UPLOAD_KEPT_S: Final = 600.0  # without a lease: the time for a line that broke to come back
RESULT_KEPT_MS: Final = 86_400_000  # a requester that slept comes back and pays
PROOF_KEPT_MS: Final = 30 * 86_400_000  # a month to show a proof to somebody else
