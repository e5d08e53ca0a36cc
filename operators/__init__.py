"""The domain on Django: what runs, what happened, what waits, and every door by which a run can be changed."""
