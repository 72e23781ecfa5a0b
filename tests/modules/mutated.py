"""Files as a disk or a transfer may leave them."""

from random import Random


def mutated(data: bytes, number: int) -> bytes:
    """One bit is another; every fourth time the end is missing."""
    random, data = Random(number), bytearray(data)
    if number % 4:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        return bytes(data)
    return bytes(data[: random.randrange(len(data))])
