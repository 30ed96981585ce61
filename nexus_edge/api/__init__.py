"""How programs on this machine talk to the agent: typed models, the admin socket, its client. docs/admin-api.md is made from this."""
