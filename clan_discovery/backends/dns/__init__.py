"""The DNS backend: names are asked side by side, each answer is kept until its TTL ends, and each name stands alone.

`reading` says what is asked and keeps the book of answers, `claims` and `findings` say what the book means for machines
and targets, `networks` which addresses no target may have. `backend` ties them together; `dnsclient` asks.
"""
