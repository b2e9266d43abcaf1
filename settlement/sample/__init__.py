"""Make a call log to try the settlement on: realistic, and known to the last row.

Every call is a pure function of its number: who called what, when, and whether it failed are read
off the bits of a mixed 64-bit number. A re-delivered call is therefore not carried along but simply
asked for again, so files can be made in any order, on any number of threads, in the memory of a
few row groups, and come out the same. Because each row is made *as* something (a call, its
re-delivery, a retry, …), the summary tells which bucket every row must land in.
"""
