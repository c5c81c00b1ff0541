"""SMTP: what it costs to accept mail, without anything that is done with it."""
