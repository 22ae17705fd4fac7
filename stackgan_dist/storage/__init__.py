"""Files on any URL, with retries, streams and leases."""
