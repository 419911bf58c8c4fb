"""Dice that fall as bytes say, so that who changes the bytes changes what is drawn."""

import random


class Steered(random.Random):
    """Draws from bytes; after their end every draw is the lowest there is."""

    def __new__(cls, _):
        return super().__new__(cls)

    def __init__(self, data):
        super().__init__(0)
        self._data, self._at = data, 0

    def getrandbits(self, k):
        count = (k + 7) // 8
        piece = self._data[self._at : self._at + count].ljust(count, b"\0")
        self._at += count
        return int.from_bytes(piece, "big") >> (8 * count - k)

    def random(self):
        return self.getrandbits(16) / 65536

    def _randbelow(self, n):
        # The library's own draws again while a number is too large: bytes would be thrown away.
        return self.getrandbits(8 * max(1, (n.bit_length() + 7) // 8)) % n
