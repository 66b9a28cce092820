"""Webex as the program sees it: tokens, contact tasks, captures and their downloads."""
