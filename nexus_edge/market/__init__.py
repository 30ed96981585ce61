"""Who works for whom at what price: quotes, leases, both sides of a job, payment.

Composes transport, ledger, compute and proofs. Rules are pure functions; drivers do what states say, and write before they send.
"""
