"""QR codes as SVG (ISO/IEC 18004): bytes, error correction M, versions 1 to 10; pure."""

import re
from collections.abc import Callable, Iterator
from itertools import chain, pairwise, product, zip_longest
from typing import Final

from anxin.errors import AnxinError

QUIET: Final = 4
"""Light modules around the code that readers need."""

# By version: error correction codewords of a block, and the data codewords of each block.
_BLOCKS: Final = {
    1: (10, [16]),
    2: (16, [28]),
    3: (26, [44]),
    4: (18, [32] * 2),
    5: (24, [43] * 2),
    6: (16, [27] * 4),
    7: (18, [31] * 4),
    8: (22, [38] * 2 + [39] * 2),
    9: (22, [36] * 3 + [37] * 2),
    10: (26, [43] * 4 + [44]),
}
_MASKS: Final[tuple[Callable[[int, int], int], ...]] = (
    lambda i, j: (i + j) % 2,
    lambda i, _: i % 2,
    lambda _, j: j % 3,
    lambda i, j: (i + j) % 3,
    lambda i, j: (i // 2 + j // 3) % 2,
    lambda i, j: i * j % 2 + i * j % 3,
    lambda i, j: (i * j % 2 + i * j % 3) % 2,
    lambda i, j: ((i + j) % 2 + i * j % 3) % 2,
)
_LIKE_A_FINDER: Final = re.compile("(?=10111010000|00001011101)")

Grid = list[list[int]]


class TooLong(AnxinError):
    """This is too long for a QR code: at most 213 bytes."""


def svg(text: str) -> str:
    """Return a picture of the QR code for a text; raise TooLong."""
    grid = modules(text.encode())
    size = len(grid) + 2 * QUIET
    dark = "".join(
        f"M{x + QUIET} {y + QUIET}h1v1h-1z"
        for y, row in enumerate(grid)
        for x, module in enumerate(row)
        if module
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" '
        f'shape-rendering="crispEdges"><path fill="#fff" d="M0 0h{size}v{size}H0z"/>'
        f'<path d="{dark}"/></svg>'
    )


def modules(data: bytes) -> Grid:
    """Return the modules of the QR code row by row, 1 for a dark one; raise TooLong."""
    for version, (_, sizes) in _BLOCKS.items():
        if 4 + _count_bits(version) + 8 * len(data) <= 8 * sum(sizes):
            break
    else:
        raise TooLong
    grid, free = _frame(version)
    # Up to seven places stay over at the end.
    for (y, x), bit in zip(_way(free), _bits(_codewords(version, data)), strict=False):
        grid[y][x] = bit
    candidates = [_masked(grid, free, version, mask) for mask in range(len(_MASKS))]
    return min(candidates, key=_penalty)


def _count_bits(version: int) -> int:
    return 8 if version < 10 else 16


def _codewords(version: int, data: bytes) -> list[int]:
    """Return data and error correction of all blocks, interleaved."""
    correction, sizes = _BLOCKS[version]
    capacity = 8 * sum(sizes)
    bits = f"0100{len(data):0{_count_bits(version)}b}" + "".join(f"{byte:08b}" for byte in data)
    bits += "0" * min(4, capacity - len(bits))
    bits += "0" * (-len(bits) % 8)
    words = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    words += [(0xEC, 0x11)[number % 2] for number in range(sum(sizes) - len(words))]
    blocks = []
    for size in sizes:
        blocks.append(words[:size])
        words = words[size:]
    checks = [_correction(block, correction) for block in blocks]
    columns = chain(zip_longest(*blocks), zip_longest(*checks))
    return [word for column in columns for word in column if word is not None]


def _correction(block: list[int], count: int) -> list[int]:
    """Return the Reed-Solomon remainder of a block over GF(256) modulo x⁸+x⁴+x³+x²+1."""
    generator = [1]
    root = 1
    for _ in range(count):
        shifted = [*generator, 0]
        for at, factor in enumerate(generator):
            shifted[at + 1] ^= _times(factor, root)
        generator = shifted
        root = _times(root, 2)
    rest = [*block, *[0] * count]
    for at in range(len(block)):
        factor = rest[at]
        for offset, one in enumerate(generator):
            rest[at + offset] ^= _times(one, factor)
    return rest[len(block) :]


def _times(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def _bits(words: list[int]) -> Iterator[int]:
    return (word >> shift & 1 for word in words for shift in range(7, -1, -1))


def _frame(version: int) -> tuple[Grid, Grid]:
    """Return the fixed patterns, and which modules are left for data."""
    size = 17 + 4 * version
    grid = [[0] * size for _ in range(size)]
    free = [[1] * size for _ in range(size)]

    def put(y: int, x: int, *, dark: bool) -> None:
        if 0 <= y < size and 0 <= x < size:
            grid[y][x], free[y][x] = int(dark), 0

    def put_rings(top: int, left: int, light: tuple[int, ...], reach: int) -> None:
        for y in range(-reach, reach + 1):
            for x in range(-reach, reach + 1):
                put(top + y, left + x, dark=max(abs(y), abs(x)) not in light)

    for at in range(size):
        put(6, at, dark=at % 2 == 0)
        put(at, 6, dark=at % 2 == 0)
    for top, left in ((3, 3), (3, size - 4), (size - 4, 3)):
        put_rings(top, left, (2, 4), 4)
    for top, left in _centres(version):
        put_rings(top, left, (1,), 2)
    for at in range(9):  # kept for the format
        put(8, at, dark=bool(grid[8][at]))
        put(at, 8, dark=bool(grid[at][8]))
    for at in range(8):
        put(8, size - 1 - at, dark=False)
        put(size - 1 - at, 8, dark=at == 7)
    for at, bit in enumerate(_information(version)):
        put(at // 3, size - 11 + at % 3, dark=bit)
        put(size - 11 + at % 3, at // 3, dark=bit)
    return grid, free


def _information(version: int) -> list[bool]:
    """Return the bits that name the version, which small codes do without."""
    if version < 7:
        return []
    word = version << 12 | _remainder(version, 6, 0x1F25)
    return [bool(word >> at & 1) for at in range(18)]


def _centres(version: int) -> list[tuple[int, int]]:
    """Return where alignment patterns have their centres: not in the corners of the finders."""
    if version == 1:
        return []
    last = 10 + 4 * version
    lines = [6, last] if version < 7 else [6, 2 * version + 8, last]
    return sorted({*product(lines, lines)} - {(6, 6), (6, last), (last, 6)})


def _remainder(value: int, bits: int, generator: int) -> int:
    """Return the BCH remainder of a value of so many bits."""
    degree = generator.bit_length() - 1
    rest = value << degree
    for at in range(bits - 1, -1, -1):
        if rest >> (at + degree) & 1:
            rest ^= generator << at
    return rest


def _way(free: Grid) -> Iterator[tuple[int, int]]:
    """Yield the places of data: pairs of columns from the right, up and down in turn."""
    size = len(free)
    upward = True
    for right in range(size - 1, 0, -2):
        column = right if right > 6 else right - 1
        for step in range(size):
            y = size - 1 - step if upward else step
            for x in (column, column - 1):
                if free[y][x]:
                    yield y, x
        upward = not upward


def _masked(grid: Grid, free: Grid, version: int, mask: int) -> Grid:
    """Return the code under one mask, with the format that says so."""
    size = 17 + 4 * version
    inverts = _MASKS[mask]
    found = [
        [module ^ (free[y][x] and not inverts(y, x)) for x, module in enumerate(row)]
        for y, row in enumerate(grid)
    ]
    format_ = (mask << 10 | _remainder(mask, 5, 0x537)) ^ 0x5412
    rows = [0, 1, 2, 3, 4, 5, 7, 8, *range(size - 7, size)]
    columns = [*range(size - 1, size - 9, -1), 7, 5, 4, 3, 2, 1, 0]
    for at in range(15):
        bit = format_ >> at & 1
        found[rows[at]][8] = bit
        found[8][columns[at]] = bit
    return found


def _penalty(grid: Grid) -> int:
    """Return how hard a reader would find this, as the standard counts it."""
    size = len(grid)
    lines = ["".join(map(str, line)) for line in chain(grid, zip(*grid, strict=True))]
    runs = sum(len(run[0]) - 2 for line in lines for run in re.finditer("0{5,}|1{5,}", line))
    squares = sum(
        upper[x] == upper[x + 1] == lower[x] == lower[x + 1]
        for upper, lower in pairwise(grid)
        for x in range(size - 1)
    )
    finders = sum(len(_LIKE_A_FINDER.findall(line)) for line in lines)
    dark = sum(map(sum, grid))
    off = abs(20 * dark - 10 * size * size) // (size * size)
    return runs + 3 * squares + 40 * finders + 10 * off
