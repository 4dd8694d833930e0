"""One network whose weights lie in main memory and come to the device while it runs: some to stay, some one by one.

The modules themselves hold the host's tensors whenever the network is not running, the very same objects; nothing is
ever written back. While it runs, what stays is in their place, and the blocks that do not stay come one by one into a
ring of buffers: the next is on its way while one computes.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from longtake.backend import modules, runtime, transfer
from longtake.machine import is_cpu
from longtake.models import adapters
from longtake.models.pretrained import ALL, MODULATIONS, REST, PretrainedModel
from longtake.pipeline.budget import RING, Lies, spread
from longtake.pipeline.sizes import BLOCK, KINDS, MODULATION, STREAMED, TABLE

LOAD, MANY = 128 * 2**20, 512 * 2**20
"""Bytes of a load on its way to stay on the device, and of how many it is worth its buffers."""


@dataclass
class Item:
    """One weight: the module that holds it, and its tensor on the host."""

    name: str
    owner: Any
    key: str
    host: Any
    block: int | None
    """The block that it is in."""
    modulation: bool
    now: Any = None
    """The tensor that stands in its place while the network runs; None: its own."""

    def stand_in(self, tensor: Any) -> Any:
        """Let the module compute with another tensor; gives what it holds then."""
        self.now = transfer.put(self.owner, self.key, tensor)
        return self.now

    def restore(self) -> None:
        """Give the module its own tensor back; what was put there meanwhile stays, on the host."""
        if self.now is None:
            return
        stands, self.now = self.now, None
        found = getattr(self.owner, self.key, None)
        if found is stands:
            transfer.put(self.owner, self.key, self.host)
        elif found is not None:
            transfer.put(self.owner, self.key, runtime.place(found, self.host.device))


@dataclass
class Coming:
    """A block's weights on their way into one of the buffers."""

    number: int
    needed: str
    items: list[Item]
    slot: int
    versions: list[Any]
    arrive: Callable[[], list[Any]]


@dataclass
class Copy:
    """A weight's copy on the device or in pinned memory, and what it is a copy of."""

    host: Any
    version: Any
    tensor: Any
    bytes: int

    def is_of(self, item: Item) -> bool:
        """Tell if it still is what the item's tensor holds."""
        return self.host is item.host and self.version == transfer.version(item.host)


class Carried:
    """A network's weights and how they lie (`Lies`); as a walk (`PretrainedModel.walks`) it brings those of its blocks.

    `enter` and `leave` stand around each use; what stays on the device is kept between two of them, until `drop`.
    """

    brings = True

    def __init__(self, network: PretrainedModel, lies: Lies, device: Any) -> None:
        self.network, self.lies, self.device = network, lies, device
        self.depth = 0
        self.placed: Any = None
        """The placement of all networks of the model, this one among them."""
        self._items: list[Item] = []
        self._staying: list[Item] = []
        self._groups: dict[tuple[int, str], list[Item]] = {}
        self._numbers: dict[int, int] = {}
        self._kept: dict[tuple[int, str], Copy] = {}
        self._pins: dict[tuple[int, str], Copy] = {}
        self._lane: Any = None
        self._ahead: deque[Coming] = deque()
        self._revision = -1
        network.walks = (self, *network.walks)

    @property
    def _slots(self) -> int:
        # A CPU converts at the moment of need.
        return 1 if is_cpu(self.device) else self.lies.ring

    @property
    def taken(self) -> int:
        """Bytes of it that lie on the device."""
        ring = 0 if self._lane is None else self._slots * self._lane.size
        return ring + sum(copy.bytes for copy in self._kept.values())

    def at_work(self) -> AbstractContextManager[Any]:
        """Inside, the network is ready to run, and others have made room for it."""
        if self.placed is None:
            return contextlib.nullcontext()
        return self.placed.using(self.lies.part, self.network)

    def enter(self) -> None:
        """Make the network ready to run."""
        self.depth += 1
        if self.depth > 1:
            return
        try:
            self._scan()
            self._bring(item for item in self._staying if self._known(item) is None)
            for item in self._staying:
                item.stand_in(self._copy_of(item))
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Give the modules their own tensors back."""
        self.depth -= 1
        if self.depth == 0:
            for item in self._items:
                item.restore()

    def drop(self, count: int | None = None) -> None:
        """Free `count` bytes of the device, or all that is there."""
        if count is None or (self._lane is not None and count > 0):
            count = None if count is None else count - self._slots * self._lane.size
            self._close()
        while self._kept and (count is None or count > 0):
            _, copy = self._kept.popitem()
            count = None if count is None else count - copy.bytes
        transfer.free_cache(self.device)

    def relay(self, lies: Lies) -> None:
        """Lie otherwise from now on."""
        if lies == self.lies:
            return
        self._restore()
        self.drop()
        self.lies, self._revision = lies, -1
        if lies.source != "pinned":
            self._pins.clear()

    def release(self) -> None:
        """End: the network is an ordinary one in main memory, in the dtype that it computes in."""
        self._restore()
        self.drop()
        self._pins.clear()
        own = {}
        for name, owner, key, tensor in transfer.held(self.network):
            dtype = self._dtype(Item(name, owner, key, tensor, None, False))
            moved = runtime.place(tensor, "cpu", dtype)
            if moved is not tensor:
                own[name] = moved
        runtime.assign_weights(self.network, own)
        modules.note_place(self.network, "cpu", self.network.dtype)
        self.network.walks = tuple(walk for walk in self.network.walks if walk is not self)
        self.network.apart = frozenset()

    # Its weights ------------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        self._close()
        for item in self._items:
            item.restore()

    def _dtype(self, item: Item) -> Any:
        """The dtype that a weight has where it computes; None is its own."""
        if item.name.replace(".base.", ".") in self.network.apart and item.host.is_floating_point():
            return self.network.dtype
        return None

    def _is_ready(self, item: Item) -> bool:
        """Tell if the weight can be computed with as it lies."""
        dtype = self._dtype(item)
        return transfer.lies_on(item.host, self.device) and dtype in (None, item.host.dtype)

    def _scan(self) -> None:
        """Look at what the network holds, if anything has changed."""
        revision = adapters.revision(self.network)
        if revision == self._revision and all(
            getattr(item.owner, item.key, None) is item.host for item in self._items
        ):
            return
        self._flush()
        self._revision = revision
        blocks = sequence(self.network)
        self._numbers = {id(block): number for number, block in enumerate(blocks)}
        found = [self._item(*each) for each in transfer.held(self.network)]
        self._items = [self._settled(item) for item in found if not self._is_ready(item)]
        stay = spread(self.lies.resident, len(blocks))
        apart = self.network.apart
        self._staying, self._groups = [], {}
        for item in self._items:
            if item.block is None:
                # A table's rows are read where it lies.
                self._staying += [] if item.name in apart else [item]
            elif item.block in stay and (self.lies.modulations or not item.modulation):
                self._staying.append(item)
            else:
                for needed in (ALL, MODULATIONS if item.modulation else REST):
                    self._groups.setdefault((item.block, needed), []).append(item)
        here = {(id(item.owner), item.key) for item in self._items}
        self._kept = {key: copy for key, copy in self._kept.items() if key in here}
        self._pins = {key: copy for key, copy in self._pins.items() if key in here}

    def _item(self, name: str, owner: Any, key: str, tensor: Any) -> Item:
        found = BLOCK.search(name) if len(self._numbers) else None
        number = None
        if found is not None:
            # Single blocks come after the double ones.
            double: Any = getattr(self.network, KINDS[0], ())
            before = len(double) if found[1] == KINDS[1] else 0
            number = before + int(found[2])
        modulation = number is not None and bool(MODULATION.search(name))
        return Item(name, owner, key, tensor, number, modulation)

    def _settled(self, item: Item) -> Item:
        """The item; a single number moves to the device for good, for it is written to between two steps."""
        if math.prod(item.host.shape) == 1 and not transfer.lies_on(item.host, self.device):
            moved = runtime.place(item.host, self.device)
            item.host = transfer.put(item.owner, item.key, moved)
        return item

    def _known(self, item: Item) -> Copy | None:
        """The weight's copy on the device, if it is there."""
        known = self._kept.get((id(item.owner), item.key))
        return known if known is not None and known.is_of(item) else None

    def _copy_of(self, item: Item) -> Any:
        """The weight on the device, kept there."""
        known = self._known(item)
        if known is None:
            tensor = runtime.place(transfer.plain(item.host), self.device, self._dtype(item))
            known = self._keep(item, tensor)
        return known.tensor

    def _keep(self, item: Item, tensor: Any) -> Copy:
        size = transfer.size_of(item.host, self._dtype(item))
        made = Copy(item.host, transfer.version(item.host), tensor, size)
        self._kept[id(item.owner), item.key] = made
        return made

    def _bring(self, items: Iterable[Item]) -> None:
        """Bring weights that stay, if they are many: through a small ring, twice as fast as each by itself."""
        waiting = list(items)
        sizes = {id(item): transfer.size_of(item.host, self._dtype(item)) for item in waiting}
        if not transfer.has_streams(self.device) or sum(sizes.values()) < MANY:
            return
        lane = transfer.Lane(self.device, RING, LOAD)
        coming: deque[tuple[int, list[Item], Callable[[], list[Any]]]] = deque()
        for turn, load in enumerate(loads(waiting, sizes)):
            sources = [(transfer.plain(item.host), self._dtype(item)) for item in load]
            if len(coming) == RING:
                self._arrived(lane, *coming.popleft())
            coming.append((turn % RING, load, lane.load(turn % RING, sources)))
        while coming:
            self._arrived(lane, *coming.popleft())
        lane.close()

    def _arrived(self, lane: Any, slot: int, load: list[Item], arrive: Callable[[], list[Any]]) -> None:
        for item, tensor in zip(load, arrive(), strict=True):
            self._keep(item, transfer.copied(tensor))
        lane.leave(slot)

    # Its blocks -------------------------------------------------------------------------------------------------------

    def __call__(self, blocks: Iterable[Any]) -> Iterator[Any]:
        """The blocks, each with its weights where they compute for as long as it is asked for nothing else."""
        # Inside of `enter` nothing is counted here: after an error, whoever keeps it keeps this generator half-way.
        alone = self.depth == 0
        if alone:
            self.enter()
        try:
            yield from self._walk(list(blocks))
        finally:
            if alone:
                self.leave()

    def _walk(self, blocks: list[Any]) -> Iterator[Any]:
        needed = self.network.needed
        numbers = [self._numbers.get(id(block), -1) for block in blocks]
        plan = [number for number in numbers if (number, needed) in self._groups]
        asked = self._begin(plan, needed)
        for number, block in zip(numbers, blocks, strict=True):
            if (number, needed) not in self._groups:
                yield block
                continue
            asked = self._ask(plan, needed, asked, self._slots)
            coming, lane = self._ahead.popleft(), self._lane
            put: list[tuple[Item, Any]] = []
            try:
                for item, tensor in zip(coming.items, coming.arrive(), strict=True):
                    put.append((item, item.stand_in(tensor)))
                yield transfer.runnable(block)
            finally:
                for item, stands in put:
                    if item.now is stands:
                        item.restore()
                if self._lane is lane:
                    lane.leave(coming.slot)
            if self._slots > 1:
                asked = self._ask(plan, needed, asked, self._slots)
        if self._slots > 1 and plan and needed != MODULATIONS:
            self._ask(plan, needed, 0, self._slots)  # the next pass begins with the same blocks

    def _begin(self, plan: list[int], needed: str) -> int:
        """Make the ring ready for a pass; how many of its blocks are on their way already."""
        size = max((self._size(number, needed) for number in plan), default=0)
        if size and (self._lane is None or self._lane.size < size):
            self._close()
            # As large as the largest that any pass needs, so that it is made once.
            usual = [self._size(number, each) for number, each in self._groups if each != ALL]
            self._lane = transfer.Lane(self.device, self._slots, max(size, *usual))
        ahead = [(coming.number, coming.needed) for coming in self._ahead]
        if ahead != [(number, needed) for number in plan[: len(ahead)]] or not all(
            coming.items is self._groups[coming.number, needed]
            and coming.versions == [transfer.version(item.host) for item in coming.items]
            for coming in self._ahead
        ):
            self._flush()
        return len(self._ahead)

    def _ask(self, plan: list[int], needed: str, asked: int, slots: int) -> int:
        """Let the next blocks come, as far as there are free buffers; how many of the plan have been asked for then."""
        while asked < len(plan) and len(self._ahead) < slots:
            number = plan[asked]
            items = self._groups[number, needed]
            taken = {coming.slot for coming in self._ahead}
            slot = next(slot for slot in range(self._slots) if slot not in taken)
            arrive = self._lane.load(slot, self._sources(items))
            versions = [transfer.version(item.host) for item in items]
            self._ahead.append(Coming(number, needed, items, slot, versions, arrive))
            asked += 1
        return asked

    def _size(self, number: int, needed: str) -> int:
        return sum(transfer.size_of(item.host, self._dtype(item)) for item in self._groups[number, needed])

    def _sources(self, items: list[Item]) -> list[tuple[Any, Any]]:
        """The tensors that a block is copied from, each with the dtype that it shall have there."""
        if self.lies.source != "pinned":
            return [(transfer.plain(item.host), self._dtype(item)) for item in items]
        # What runs once a job is not worth a copy.
        lasting = [item for item in items if not item.modulation]
        missing = [item for item in lasting if not self._is_pinned(item)]
        made = transfer.pinned([(transfer.plain(item.host), self._dtype(item)) for item in missing])
        if made is None:
            self.lies = replace(self.lies, source="mapped")
            return self._sources(items)
        for item, tensor in zip(missing, made, strict=True):
            self._pins[id(item.owner), item.key] = Copy(item.host, transfer.version(item.host), tensor, 0)
        return [
            (self._pins[id(item.owner), item.key].tensor, None)
            if self._is_pinned(item)
            else (transfer.plain(item.host), self._dtype(item))
            for item in items
        ]

    def _is_pinned(self, item: Item) -> bool:
        known = self._pins.get((id(item.owner), item.key))
        return known is not None and known.is_of(item)

    def _flush(self) -> None:
        """Wait for what is on its way, and forget it."""
        while self._ahead:
            # An error of a copy that nobody asks for is nobody's error.
            with contextlib.suppress(RuntimeError, MemoryError):
                self._ahead.popleft().arrive()

    def _close(self) -> None:
        self._flush()
        if self._lane is not None:
            self._lane.close()
        self._lane = None


def loads(items: list[Item], sizes: dict[int, int]) -> Iterator[list[Item]]:
    """The items in lists of at most LOAD bytes; larger ones are left out."""
    load: list[Item] = []
    for item in items:
        if load and sum(sizes[id(each)] for each in (*load, item)) > LOAD:
            yield load
            load = []
        load += [item] if sizes[id(item)] <= LOAD else []
    if load:
        yield load


def sequence(network: Any) -> list[Any]:
    """The blocks that a network runs by its walks, in their order; none if it has no such sequence."""
    blocks = getattr(network, "blocks", None)
    return list(getattr(network, "layers", ()) if blocks is None else blocks)


def is_apart(part: str, name: str) -> bool:
    """Tell of a weight, by its name, if it can stay as its file has it: it is in a block, or a table of rows."""
    if part not in STREAMED:
        return False
    return BLOCK.search(name) is not None or (part == "text_encoder" and TABLE.search(name) is not None)
