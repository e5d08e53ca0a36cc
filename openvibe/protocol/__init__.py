"""What goes over the wire: subjects, envelopes, headers and streams. Nothing else in the house knows them."""
