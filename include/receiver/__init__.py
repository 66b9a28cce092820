"""Receives what Webex tells of new captures, and keeps it as hints in the bucket."""
