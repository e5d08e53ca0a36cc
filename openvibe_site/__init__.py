"""Wiring only: settings, URLs, servers and the supervisor. No rule of the product lives here.

Every process of the site begins here, and so does what all of them want of Python.
"""

import gc

#: How many objects more than before there are when the garbage collector looks at the youngest, and how often it does
#: before it looks at older ones. What a site has loaded is half a million objects that stay, and at Python's own 700
#: all of them were looked at every few hundred runs: a fifth of a worker's time, half a second each in which it stood.
COLLECT_AT = (10_000, 10, 10)

gc.set_threshold(*COLLECT_AT)
