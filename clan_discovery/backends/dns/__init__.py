"""The DNS backend: names are asked side by side, each answer is kept until its TTL ends, and each name stands alone.

`reading` says what is asked, `claims` and `findings` say what the cached answers mean for machines and targets.
`backend` ties them together; `dnsclient` asks.
"""
