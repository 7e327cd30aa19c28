"""Nothing from outside chooses where we write, or how much we read: attacks by kind.

Each ends in one line that says what is wrong, and what stood there before still stands. Bags that
unpack without bound are attacked in `test/bags/test_limits.py`.
"""
