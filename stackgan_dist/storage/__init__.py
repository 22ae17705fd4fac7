"""Files on any URL, by their literal names, with retries, streams and leases."""
