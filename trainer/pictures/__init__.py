"""Pictures, drawn from records and tables; nothing here trains."""
