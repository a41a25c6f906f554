"""Who may call what: tokens, principals, certificates."""
