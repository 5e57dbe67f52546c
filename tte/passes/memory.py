# SPDX-License-Identifier: Apache-2.0
"""Places every arena tensor: lifetimes in, offsets out.

An op that may run in place puts its output where a dying input lies; the two become one block,
whose size may change over time. Blocks are placed at the lowest free offset in several orders;
each order is then improved by seeded exchanges until the arena equals the lower bound (the
largest sum of live bytes) or the tries are used up. Where they are, an exhaustive search for a
smaller arena either finds one or proves that there is none, as far as its number of tries goes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tte.ir import Graph, MemoryPlan, Placement, Schedule
from tte.ir.plan import Lifetime
from tte.ops import INTEGER_OPS

ALIGNMENT_BYTES = 4
EXCHANGES = 400
QUICK_EXCHANGES = 10
SEEDS = 4  # of the best start's exchanges: where one misses the bound another often reaches it
SEARCH_NODES = 20_000  # of the exhaustive search: some seconds at most
SEARCH_BLOCKS = 400  # more are not searched


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tensor in a block: `size` bytes (aligned) while ops first .. last run."""

    name: str
    first: int
    last: int
    size: int


@dataclass(frozen=True, slots=True)
class _Block:
    """Pieces that share one offset."""

    pieces: tuple[_Piece, ...]

    @property
    def size(self) -> int:
        return max(piece.size for piece in self.pieces)

    @property
    def duration(self) -> int:
        return self.pieces[-1].last - self.pieces[0].first

    @property
    def area(self) -> int:
        return sum(piece.size * (piece.last - piece.first + 1) for piece in self.pieces)


def live_bytes(graph: Graph, schedule: Schedule) -> list[int]:
    """Bytes alive while each op runs; the largest is the lower bound of any plan."""
    return _live_bytes(_blocks(graph, schedule), len(graph.ops))


def plan_memory(graph: Graph, schedule: Schedule, thorough: bool = True) -> MemoryPlan:
    """Offsets of all arena tensors and scratch buffers. Without `thorough` few exchanges are tried
    and nothing is searched: the arena is never smaller than the thorough one."""
    blocks = _blocks(graph, schedule)
    live = _live_bytes(blocks, len(graph.ops))
    bound = max(live, default=0)
    offsets, proven = _place(blocks, bound, thorough), bound
    if thorough:
        offsets, proven = _improve(blocks, offsets, bound, len(graph.ops))
    peak_op = live.index(bound) if live else 0
    placements: dict[str, Placement] = {}
    spans: dict[str, Lifetime] = {}
    peak: dict[str, int] = {}
    for block, offset in zip(blocks, offsets, strict=True):
        for piece in block.pieces:
            placements[piece.name] = Placement(offset, piece.size)
            spans[piece.name] = Lifetime(piece.first, piece.last)
        at_peak = [p for p in block.pieces if p.first <= peak_op <= p.last]
        if at_peak:
            largest = max(at_peak, key=lambda piece: piece.size)
            peak[largest.name] = largest.size
    arena = max((p.offset_bytes + p.size_bytes for p in placements.values()), default=0)
    ranked = tuple(sorted(peak.items(), key=lambda item: -item[1]))
    return MemoryPlan(placements, spans, arena, bound, proven, tuple(live), peak_op, ranked)


def _align(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _blocks(graph: Graph, schedule: Schedule) -> list[_Block]:
    """One block per tensor or chain of in-place tensors, and one per scratch buffer."""
    chain_of: dict[str, list[_Piece]] = {}

    def piece(name: str) -> _Piece:
        span = schedule.lifetimes[name]
        return _Piece(name, span.first, span.last, _align(graph[name].type.size_bytes))

    chains: list[list[_Piece]] = []
    for name in graph.inputs:
        if name in schedule.lifetimes:
            chain_of[name] = [piece(name)]
            chains.append(chain_of[name])
    for index, op in enumerate(graph.ops):
        spec = INTEGER_OPS[op.kind]
        for position, name in enumerate(op.writes):
            if name not in schedule.lifetimes or name in chain_of:
                continue
            host = None
            if position == 0:
                host = _in_place(
                    graph, schedule, index, spec.in_place(op), _align(graph[name].type.size_bytes)
                )
            if host is None:
                chain_of[name] = []
                chains.append(chain_of[name])
            else:
                chain_of[name] = chain_of[host]
            chain_of[name].append(piece(name))
        scratch = _align(spec.scratch_bytes(op, graph))
        if scratch:
            chains.append([_Piece(f"{op.name}.scratch", index, index, scratch)])
    return [_Block(tuple(chain)) for chain in chains]


def _in_place(
    graph: Graph, schedule: Schedule, index: int, positions: Sequence[int], size: int
) -> str | None:
    """The dying input whose place the first output takes."""
    op = graph.ops[index]
    for position in positions:
        name = op.inputs[position]
        if not name:
            continue
        root = graph.storage(name)
        span = schedule.lifetimes.get(root)
        others = [n for i, n in enumerate(op.inputs) if i != position and n]
        if span is None or span.last != index or root in map(graph.storage, others):
            continue
        if _align(graph[root].type.size_bytes) >= size:
            return root
    return None


def _live_bytes(blocks: Sequence[_Block], steps: int) -> list[int]:
    """Sum of live bytes while each op runs."""
    change = [0] * (steps + 1)
    for block in blocks:
        if len(block.pieces) == 1:
            (piece,) = block.pieces
            change[piece.first] += piece.size
            change[piece.last + 1] -= piece.size
            continue
        for step in range(block.pieces[0].first, block.pieces[-1].last + 1):
            size = max((p.size for p in block.pieces if p.first <= step <= p.last), default=0)
            change[step] += size
            change[step + 1] -= size
    return list(accumulate(change[:-1]))


def _conflicts(blocks: Sequence[_Block]) -> list[list[tuple[int, int, int]]]:
    """For each block: (other block, its size, own size) for every pair of pieces alive at once."""
    table: list[list[tuple[int, int, int]]] = [[] for _ in blocks]
    for i, a in enumerate(blocks):
        for j in range(i):
            b = blocks[j]
            for pa in a.pieces:
                for pb in b.pieces:
                    if pa.first <= pb.last and pb.first <= pa.last:
                        table[i].append((j, pb.size, pa.size))
                        table[j].append((i, pa.size, pb.size))
    return table


def _place(blocks: Sequence[_Block], bound: int, thorough: bool = True) -> list[int]:
    """The best offsets found."""
    exchanges, seeds = (EXCHANGES, SEEDS) if thorough else (QUICK_EXCHANGES, 1)
    conflicts, sizes = _conflicts(blocks), [block.size for block in blocks]
    indices = range(len(blocks))
    orders = [
        sorted(indices, key=lambda i: (-blocks[i].size, blocks[i].pieces[0].first)),
        sorted(indices, key=lambda i: (-blocks[i].area, -blocks[i].size)),
        sorted(indices, key=lambda i: (blocks[i].pieces[0].first, -blocks[i].size)),
        sorted(indices, key=lambda i: (-blocks[i].duration, -blocks[i].size)),
    ]
    starts = [(*_fit(order, sizes, conflicts), order) for order in orders]
    best = min(starts, key=lambda start: start[0])
    starts.sort(key=lambda start: start[0])
    attempts = [(seed, starts[0]) for seed in range(seeds)] + [(0, start) for start in starts[1:]]
    for seed, (arena, offsets, order) in attempts:
        rng = random.Random(seed)
        for _ in range(exchanges if len(blocks) > 1 else 0):
            if best[0] <= bound:
                return best[1]
            other = list(order)
            # Whatever reaches the top is worth placing earlier.
            high = max(indices, key=lambda i: offsets[i] + sizes[i])
            position = other.index(high) if rng.random() < 0.5 else rng.randrange(len(other))
            other.insert(rng.randrange(position + 1), other.pop(position))
            found = _fit(other, sizes, conflicts, arena)
            if found[0] <= arena:
                arena, offsets, order = *found, other
                best = min(best, (arena, offsets, order), key=lambda start: start[0])
    return best[1]


def _improve(
    blocks: Sequence[_Block], offsets: list[int], bound: int, steps: int
) -> tuple[list[int], int]:
    """Offsets of the smallest arena, and the size below which no arena was found possible."""
    proven, nodes = bound, SEARCH_NODES if len(blocks) <= SEARCH_BLOCKS else 0
    while True:
        arena = max((o + b.size for o, b in zip(offsets, blocks, strict=True)), default=0)
        if arena <= proven or nodes <= 0:
            return offsets, proven
        limit = proven + (arena - proven - 1) // 2 // ALIGNMENT_BYTES * ALIGNMENT_BYTES
        search = _Search(blocks, limit, steps, nodes)
        nodes = search.nodes
        if search.found is not None:
            offsets = search.found
        elif nodes > 0:
            proven = limit + ALIGNMENT_BYTES


class _Search:
    """All ways to stack the blocks below `limit`: in any placement in which no block can move
    down, blocks taken by rising offset each lie on what is already there. A branch ends where
    what is stacked at a step, its gaps included, and what is still to come there exceed the
    limit. `nodes`: tries that are left; 0 where the search was given up."""

    def __init__(self, blocks: Sequence[_Block], limit: int, steps: int, nodes: int) -> None:
        self.found: list[int] | None = None
        self.nodes = nodes
        self._limit = limit
        # By falling duration: whatever lives long lies at the bottom of most good placements.
        self._order = sorted(range(len(blocks)), key=lambda i: (-blocks[i].duration, i))
        self._sizes = [
            {
                step: max((p.size for p in block.pieces if p.first <= step <= p.last), default=0)
                for step in range(block.pieces[0].first, block.pieces[-1].last + 1)
            }
            for block in (blocks[i] for i in self._order)
        ]
        self._heights = [0] * steps
        self._coming = [sum(sizes.get(step, 0) for sizes in self._sizes) for step in range(steps)]
        self._offsets = [-1] * len(blocks)
        self._stack(len(blocks), (0, -1))

    def _stack(self, left: int, last: tuple[int, int]) -> None:
        """Places the `left` blocks that remain, none before `last` = (offset, block)."""
        if left == 0:
            placed = zip(self._order, self._offsets, strict=True)
            self.found = [offset for _, offset in sorted(placed)]
            return
        places = sorted(
            (max(self._heights[step] for step in sizes), i)
            for i, sizes in enumerate(self._sizes)
            if self._offsets[i] < 0
        )
        for offset, i in places:
            if (offset, i) < last:
                continue
            self.nodes -= 1
            if self.nodes <= 0:
                return
            sizes = self._sizes[i]
            before = {step: self._heights[step] for step in sizes}
            for step, size in sizes.items():
                self._heights[step] = offset + size
                self._coming[step] -= size
            self._offsets[i] = offset
            if all(self._heights[step] + self._coming[step] <= self._limit for step in sizes):
                self._stack(left - 1, (offset, i))
                if self.found is not None:
                    return
            self._offsets[i] = -1
            for step, size in sizes.items():
                self._heights[step] = before[step]
                self._coming[step] += size


def _fit(
    order: Sequence[int],
    sizes: Sequence[int],
    conflicts: Sequence[Sequence[tuple[int, int, int]]],
    limit: int | None = None,
) -> tuple[int, list[int]]:
    """First fit: each block at the lowest offset that overlaps no placed block in time. Ends where
    the arena is larger than `limit`."""
    offsets = [-1] * len(sizes)
    arena = 0
    for i in order:
        forbidden = [
            (placed - own_size, placed + other_size)
            for j, other_size, own_size in conflicts[i]
            if (placed := offsets[j]) >= 0
        ]
        forbidden.sort()
        offset = 0
        for low, high in forbidden:
            if offset <= low:
                break
            if high > offset:
                offset = high
        offsets[i] = offset
        arena = max(arena, offset + sizes[i])
        if limit is not None and arena > limit:
            break
    return arena, offsets
