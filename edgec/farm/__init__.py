"""A farm of devices: bundles benchmarked, verified and finished on real hardware.

Dask distributed carries it: its scheduler holds the queue, a worker on each device supervises. What
stands here is what Dask leaves open: a ledger that survives the scheduler (`ledger.py`), who may
take part (`certs.py`, `link.py`), bundles by content hash (`store.py`, `cache.py`), and a job in a
process of its own, alone on its device (`device.py`, `sandbox.py`).
"""
