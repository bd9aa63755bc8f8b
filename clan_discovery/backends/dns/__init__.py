"""The DNS backend: names are asked side by side, each answer is kept until its TTL ends, and each name stands alone.

Pure are `names` (text and bytes), `wire` and `message` (bytes and replies: the short way, and dnspython's), `lookup`
(what a reply means), `reading` (what is asked, and the book of answers), `findings` and `claims` (what the book says of
machines and targets) and `networks` (which addresses no target has). `servers` says who is asked, `carry` what every
carrier of questions promises: `datagrams`, `streams`, `https`. `resolver` decides who is asked next, `backend` ties it
together.
"""
