"""Look up machines and targets in DNS.

Names are asked in parallel, each answer is cached until its TTL ends, and each name is answered or fails by itself.
`reading` lists the questions, `claims` and `findings` interpret the cached answers, and `backend` ties them together.
`dnsclient` sends the questions.
"""
