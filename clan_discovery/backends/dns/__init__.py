"""The DNS backend: names are asked side by side, each answer is kept until its TTL ends, and each name stands alone.

`names` writes names, `wire` reads messages, `lookup` says what an answer means, `reading` what is asked and what the
answers say of machines and endpoints: all pure. `datagrams`, `streams` and `https` carry messages, `resolver` decides
who is asked next, `backend` ties it together.
"""
