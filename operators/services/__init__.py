"""What may change, and when. Services write; views, tasks and the bridge call them."""
