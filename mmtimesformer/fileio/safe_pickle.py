"""Restricted unpickler: read pickles of tensors, arrays and plain values; execute nothing.

A pickle is a program for a small machine. Python's machine can import and call anything; the one
here can build plain Python values, and stand-ins for what the *names table* of its caller allows.
These properties follow from its construction:

* **Nothing of this process is touched.** A name in the file becomes a :class:`Name` of ours, never
  a class or function. ``REDUCE`` and ``NEWOBJ`` call only what the table holds for a name;
  ``BUILD`` changes only stand-ins that this very pickle has made. Tensors and arrays are made after
  the last instruction (:func:`settle`), from arguments that were checked.
* **Time is linear in the size of the file.** Each instruction costs a fixed time, or a time in
  proportion to the bytes that it reads. No value of the file that may be nested is printed, hashed
  or compared: dictionary keys are text, whole numbers, truth values, bytes or None,
  and messages give the *type* of a wrong value, or a short text in ASCII.
* **Memory is bounded by the size of the file.** Each instruction is charged the bytes that its
  object takes, against a :class:`Budget` of ``base + factor * size``. Lengths are compared with the
  bytes that are left before anything is allocated.
* **No recursion.** The machine and :func:`settle` are loops, so no depth ends in RecursionError.

The limits below leave room for a training checkpoint of 7 GB and the results of 100,000 videos.
"""

import io
import pickle
import struct
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

BASE = 32 << 20  # bytes of Python objects that any pickle may make
FACTOR = 16  # and so many more for each byte of it; a dump of test results takes 8
LONGEST_KEY = 4096  # characters
LONGEST_NAME = 500  # characters of `module name`
LONGEST_INT = 255  # bytes
LARGEST_INT_KEY = 2**61 - 2  # above, different numbers have the same hash
VIEWS_BASE, VIEWS_FACTOR = 64 << 20, 4  # bytes of all tensors, and of their storages
DEEPEST = 100  # levels of containers, for recursive functions
SHARED_BASE, SHARED_FACTOR = 16 << 20, 8  # characters when printed, and of those in memory
LONG_TEXT = 64  # characters; a longer text counts once, however often it is referred to


class RefusedError(Exception):
    """A pickle asked for more than data needs; the message names what."""


class DamagedError(Exception):
    """A pickle is cut short or contradicts itself."""


class InstructionError(Exception):
    """A pickle has an instruction that the writers of its kind do not use; args: its number."""


def shown(value: Any) -> str:
    """Return short text in quotes as ASCII, a small number or None as it is, else the type."""
    if type(value) is str and len(value) <= 60:
        return ascii(value)
    is_small = type(value) in (bool, int) and abs(value) < 10**18
    if value is None or is_small or type(value) is float:
        return str(value)
    return f'a {type(value).__name__}'


class Budget:
    """Count the bytes of Python objects that a pickle of ``size`` bytes may still make."""

    def __init__(self, size: int, base: int = BASE, factor: int = FACTOR) -> None:
        self.limit = self.left = base + factor * size

    def charge(self, cost: int) -> None:
        """Subtract bytes, and raise ``RefusedError`` if none are left."""
        self.left -= cost
        if self.left < 0:
            raise RefusedError(
                f'objects of more than {self.limit:,} bytes, far more than a file of this size '
                'can need'
            )


# -- Stand-ins -------------------------------------------------------------------------------------


class StandIn:
    """An object of a pickle, in place of one of a class that the pickle names."""

    __slots__ = ()
    may_be_key = False

    def build(self, machine: 'Unpickler', state: Any) -> None:
        """Set the state that ``BUILD`` gives, or raise ``RefusedError``."""
        raise RefusedError(f'a change of a {type(self).__name__.strip("_")}')

    def settle(self, blocks: 'Blocks') -> Any:
        """Return the value of this stand-in; called once, after the last instruction."""
        raise RefusedError(f'a bare {type(self).__name__.strip("_")}')


@dataclass(slots=True, eq=False)
class Constant:
    """The meaning of a name that stands for a plain value, such as ``torch.float32``."""

    value: Any


@dataclass(slots=True, eq=False)
class Name(StandIn):
    """A name of a class or function in a pickle.

    Attributes:
        path: ``module.name``.
        meaning: What the table has for it: a function of the machine and arguments, or a
            :class:`Constant`.
    """

    path: str
    meaning: Callable[..., Any] | Constant

    def build(self, machine: 'Unpickler', state: Any) -> NoReturn:
        raise RefusedError('a change of a class')

    def settle(self, blocks: 'Blocks') -> Any:
        if type(self.meaning) is Constant:
            return self.meaning.value
        raise RefusedError(f'{self.path} itself')


def constant_of(name: object) -> Any:
    """Return the value of a name that stands for a :class:`Constant`, else None."""
    meaning = name.meaning if type(name) is Name else None
    return meaning.value if type(meaning) is Constant else None


Names = Mapping[str, Callable[..., Any] | Constant]


class Blocks:
    """Give the bytes of storages to tensors; see :mod:`mmtimesformer.fileio.torch_files`."""

    def storage(self, block: Any) -> Any:
        """Return the bytes of a block."""
        if block.content is None:
            raise RefusedError('a tensor without content')
        return block.content


# -- The machine -----------------------------------------------------------------------------------


class Unpickler:
    """Run a pickle on stand-ins.

    Args:
        file: Positioned at the pickle; afterwards, at its end.
        end: The byte at which the file ends.
        names: What the names in the pickle mean; every other name is refused.
        budget: The bytes of objects that may be made.
        protocol: The newest pickle protocol whose instructions are read.
        storages: Finds the storage of a persistent id; without it, there are none.
        views: Bytes that all tensors together may have.
    """

    def __init__(
        self,
        file: BinaryIO,
        end: int,
        names: Names,
        budget: Budget,
        *,
        protocol: int = 5,
        storages: Callable[[Any], Any] | None = None,
        views: int = VIEWS_BASE,
    ) -> None:
        self.file, self.end, self.names, self.budget = file, end, names, budget
        self.read, self.charge = file.read, budget.charge
        self.handlers = _HANDLERS_OF_2 if protocol == 2 else _HANDLERS
        self.storages = storages
        self.views_left = self.views = views
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.found: dict[str, Name] = {}
        self.known_start = b''  # of the torch files in this pickle, see load_from_bytes

    def load(self) -> Any:
        """Run the pickle to its end; return its value, with stand-ins in it.

        Raises:
            RefusedError: It asks for more than data needs.
            InstructionError: It has an instruction of another protocol.
            DamagedError: It ends too early, or contradicts itself.
        """
        read, handlers, budget = self.read, self.handlers, self.budget
        try:
            while True:
                code = read(1)
                if code == b'.':
                    return self.stack.pop()
                handler, cost = handlers[code[0]]
                budget.left -= cost
                if budget.left < 0:
                    budget.charge(0)
                handler(self)
        except IndexError:
            raise DamagedError('it ends too early, or uses what is not there') from None
        except (struct.error, UnicodeError) as error:
            raise DamagedError(f'it is no pickle ({type(error).__name__})') from None

    def charge_view(self, nbytes: int) -> None:
        """Count the bytes of a tensor, whose storage other tensors may use too."""
        self.views_left -= nbytes
        if self.views_left < 0:
            raise RefusedError(
                f'tensors of more than {self.views:,} bytes, which are not in the file'
            )

    def key(self, key: Any) -> Any:
        """Return a key of a dictionary; refuse one that takes time to hash."""
        kind = type(key)
        if kind in (str, bytes):
            if len(key) > LONGEST_KEY:
                raise RefusedError(f'a key of {len(key):,} characters')
        elif kind is int:
            if abs(key) > LARGEST_INT_KEY:
                raise RefusedError('a key of more than 61 bits')
        elif not (kind is bool or key is None or (isinstance(key, StandIn) and key.may_be_key)):
            raise RefusedError(f'a key that is a {kind.__name__}')
        return key

    # Reading

    def take(self, count: int) -> bytes:
        """Read so many bytes, if there are as many."""
        if count > 4096 and count > self.end - self.file.tell():
            raise DamagedError('it ends too early')
        content = self.read(count)
        if len(content) != count:
            raise DamagedError('it ends too early')
        return content

    def line(self) -> str:
        line = self.file.readline(LONGEST_NAME)
        if not line.endswith(b'\n'):
            raise DamagedError(f'a name is cut short, or longer than {LONGEST_NAME} characters')
        return line[:-1].decode('utf-8')

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    # Instructions

    def find(self, module: str, name: str) -> Name:
        path = f'{_RENAMED.get(module, module)}.{name}'
        if path not in self.found:
            meaning = self.names.get(path)
            if meaning is None:
                plain = len(path) <= 200 and path.isascii() and path.isprintable()
                raise RefusedError(path if plain else f'a name of {len(path)} characters')
            self.charge(300)
            self.found[path] = Name(path, meaning)
        return self.found[path]

    def call(self, function: Any, args: Any) -> Any:
        if not isinstance(function, Name) or isinstance(function.meaning, Constant):
            called = function.path if isinstance(function, Name) else 'a value'
            raise RefusedError(f'a call of {called}')
        if type(args) is not tuple:
            raise RefusedError(f'arguments that are a {type(args).__name__}')
        self.charge(sum(len(value) for value in args if type(value) in _SIZED))
        try:
            return function.meaning(self, *args)
        except TypeError:
            raise RefusedError(f'{function.path} of {len(args)} arguments') from None

    def global_(self) -> None:
        module = self.line()
        self.stack.append(self.find(module, self.line()))

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not type(name) is type(module) is str or len(name) + len(module) > LONGEST_NAME:
            raise RefusedError('a name that is no short text')
        self.stack.append(self.find(module, name))

    def reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def new_with_keywords(self) -> None:
        keywords = self.stack.pop()
        if type(keywords) is not dict or keywords:
            raise RefusedError('keyword arguments')
        self.reduce()

    def build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if type(state) in _SIZED:
            self.charge(16 * len(state))  # a state may be used often, and is read each time
        if isinstance(made, StandIn):
            made.build(self, state)
        elif type(made) is OrderedDict:  # a state dict's versions of its modules
            if type(state) is dict and type(state.get('_metadata')) in (dict, OrderedDict):
                self.charge(_VERSION * len(state['_metadata']))  # copied, see _versions
                made._metadata = state['_metadata']  # type: ignore[attr-defined]
        else:
            raise RefusedError(f'a change of a {type(made).__name__}')

    def persistent(self) -> None:
        given = self.stack.pop()
        if self.storages is None:
            raise RefusedError('content of another file')
        self.stack.append(self.storages(given))

    def last(self, kinds: set[type], what: str) -> Any:
        """Return the object on top of the stack, if it is of one of these types."""
        made = self.stack[-1]
        if type(made) not in kinds:
            raise RefusedError(f'{what} of a {type(made).__name__}')
        return made

    def append(self) -> None:
        item = self.stack.pop()
        self.last(_LISTS, 'an item').append(item)

    def appends(self) -> None:
        items = self.pop_mark()
        self.last(_LISTS, 'items').extend(items)

    def setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.last(_DICTS, 'entries')[self.key(key)] = value

    def setitems(self) -> None:
        items = self.pop_mark()
        made = self.last(_DICTS, 'entries')
        if len(items) % 2:
            raise DamagedError('a key has no value')
        self.charge(50 * len(items))
        for i in range(0, len(items), 2):
            key = items[i]
            made[key if type(key) is str and len(key) < 100 else self.key(key)] = items[i + 1]

    def additems(self) -> None:
        items = self.pop_mark()
        made = self.last(_SETS, 'items')
        self.charge(100 * len(items))
        made.update([self.key(item) for item in items])

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def tuple_(self) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise DamagedError('it uses what is not there')
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def long(self, count: int) -> None:
        if not 0 <= count <= LONGEST_INT:
            raise RefusedError(f'a number of {count} bytes')
        self.stack.append(int.from_bytes(self.take(count), 'little', signed=True))

    def text(self, count: int) -> None:
        content = self.take(count)
        text = content.decode('utf-8', 'surrogatepass')
        self.charge(sys.getsizeof(text) - 40)  # up to four bytes for each character
        self.stack.append(text)

    def bytes_(self, count: int, kind: type[bytes | bytearray] = bytes) -> None:
        content = self.take(count)
        self.charge(len(content))
        self.stack.append(kind(content))


_RENAMED = {'__builtin__': 'builtins', 'torch.tensor': 'torch._tensor'}
_SIZED = {str, bytes, tuple, list, dict}
_LISTS: set[type] = {list}
_SETS: set[type] = {set}
_DICTS: set[type] = {dict, OrderedDict, Counter}
_VERSION = 400  # bytes of the version of a module, in the attributes of a state dict


def _unknown(code: int) -> Callable[[Unpickler], None]:
    def refuse(machine: Unpickler) -> None:
        raise InstructionError(code)

    return refuse


def _pushing(value: Callable[[Unpickler], Any]) -> Callable[[Unpickler], None]:
    return lambda machine: machine.stack.append(value(machine))


def _tuple(count: int) -> Callable[[Unpickler], None]:
    """Join the last ``count`` objects into a tuple."""

    def join(machine: Unpickler) -> None:
        items = [machine.stack.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return join


def _number(form: str) -> Callable[[Unpickler], Any]:
    """Read a number, of a format of :mod:`struct`."""
    unpack, size = struct.Struct(form).unpack, struct.calcsize(form)
    return lambda machine: unpack(machine.read(size))[0]


def _uint8(machine: Unpickler) -> int:
    return machine.read(1)[0]


_uint16, _int32, _uint32, _uint64 = map(_number, ('<H', '<i', '<I', '<Q'))


_MEMO = 100  # bytes of an entry
# By instruction: what it does, the bytes that it may take, the protocol that brought it.
_INSTRUCTIONS: dict[bytes, tuple[Callable[[Unpickler], Any], int, int]] = {
    pickle.PROTO: (_uint8, 1, 2),
    pickle.GLOBAL: (Unpickler.global_, 20, 2),
    pickle.REDUCE: (Unpickler.reduce, 200, 2),
    pickle.NEWOBJ: (Unpickler.reduce, 200, 2),
    pickle.BUILD: (Unpickler.build, 200, 2),
    pickle.BINPERSID: (Unpickler.persistent, 400, 2),
    pickle.APPEND: (Unpickler.append, 16, 2),
    pickle.APPENDS: (Unpickler.appends, 16, 2),
    pickle.SETITEM: (Unpickler.setitem, 200, 2),
    pickle.SETITEMS: (Unpickler.setitems, 200, 2),
    pickle.MARK: (Unpickler.mark, 80, 2),
    pickle.POP: (Unpickler.pop, 1, 2),
    pickle.POP_MARK: (Unpickler.pop_mark, 1, 2),
    pickle.EMPTY_TUPLE: (_pushing(lambda _: ()), 8, 2),
    pickle.TUPLE: (Unpickler.tuple_, 80, 2),
    pickle.TUPLE1: (_tuple(1), 64, 2),
    pickle.TUPLE2: (_tuple(2), 72, 2),
    pickle.TUPLE3: (_tuple(3), 80, 2),
    pickle.NONE: (_pushing(lambda _: None), 8, 2),
    pickle.NEWTRUE: (_pushing(lambda _: True), 8, 2),
    pickle.NEWFALSE: (_pushing(lambda _: False), 8, 2),
    pickle.EMPTY_LIST: (_pushing(lambda _: []), 80, 2),
    pickle.EMPTY_DICT: (_pushing(lambda _: {}), 80, 2),
    pickle.BININT: (_pushing(_int32), 40, 2),
    pickle.BININT1: (_pushing(_uint8), 8, 2),
    pickle.BININT2: (_pushing(_uint16), 40, 2),
    pickle.LONG1: (lambda machine: machine.long(_uint8(machine)), 48, 2),
    pickle.LONG4: (lambda machine: machine.long(_int32(machine)), 48, 2),
    pickle.BINFLOAT: (_pushing(_number('>d')), 32, 2),
    pickle.BINUNICODE: (lambda machine: machine.text(_uint32(machine)), 64, 2),
    pickle.SHORT_BINSTRING: (lambda machine: machine.text(_uint8(machine)), 64, 2),
    pickle.BINGET: (lambda machine: machine.get(_uint8(machine)), 8, 2),
    pickle.LONG_BINGET: (lambda machine: machine.get(_uint32(machine)), 8, 2),
    pickle.BINPUT: (lambda machine: machine.put(_uint8(machine)), 8, 2),
    pickle.LONG_BINPUT: (lambda machine: machine.put(_uint32(machine)), _MEMO, 2),
    pickle.BINBYTES: (lambda machine: machine.bytes_(_uint32(machine)), 48, 3),
    pickle.SHORT_BINBYTES: (lambda machine: machine.bytes_(_uint8(machine)), 48, 3),
    pickle.FRAME: (_uint64, 1, 4),
    pickle.SHORT_BINUNICODE: (lambda machine: machine.text(_uint8(machine)), 64, 4),
    pickle.BINUNICODE8: (lambda machine: machine.text(_uint64(machine)), 64, 4),
    pickle.BINBYTES8: (lambda machine: machine.bytes_(_uint64(machine)), 48, 4),
    pickle.BYTEARRAY8: (lambda machine: machine.bytes_(_uint64(machine), bytearray), 64, 5),
    pickle.EMPTY_SET: (_pushing(lambda _: set()), 232, 4),
    pickle.ADDITEMS: (Unpickler.additems, 16, 4),
    pickle.NEWOBJ_EX: (Unpickler.new_with_keywords, 200, 4),
    pickle.STACK_GLOBAL: (Unpickler.stack_global, 20, 4),
    pickle.MEMOIZE: (lambda machine: machine.put(len(machine.memo)), _MEMO, 4),
}
_HANDLERS: list[tuple[Callable[[Unpickler], Any], int]] = [
    _INSTRUCTIONS[bytes([code])][:2] if bytes([code]) in _INSTRUCTIONS else (_unknown(code), 1)
    for code in range(256)
]
_HANDLERS_OF_2 = [
    (_unknown(code), 1) if _INSTRUCTIONS.get(bytes([code]), (0, 0, 2))[2] > 2 else handler
    for code, handler in enumerate(_HANDLERS)
]
# torch reads an empty set in this protocol, though no version of pickle writes one
_HANDLERS_OF_2[pickle.EMPTY_SET[0]] = _HANDLERS[pickle.EMPTY_SET[0]]


# -- What comes out --------------------------------------------------------------------------------

_CONTAINERS = {tuple, list, dict, OrderedDict, Counter}


def _parts(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, dict) else value


def settle(root: Any, blocks: Blocks | None = None) -> Any:
    """Replace stand-ins by tensors, arrays and constants.

    References to one object stay so; containers are changed in place, tuples are made again.

    Args:
        root: What :meth:`Unpickler.load` returned.
        blocks: Gives the bytes of tensors.

    Raises:
        RefusedError: A container contains itself, or a stand-in is not complete.
    """
    blocks = blocks or Blocks()
    done: dict[int, tuple[Any, Any]] = {}  # what it was, which keeps its id taken; what it became
    entered: set[int] = set()
    todo: list[tuple[Any, bool]] = [(root, False)]
    while todo:
        value, is_left = todo.pop()
        place = id(value)
        if is_left:
            entered.discard(place)
            done[place] = value, _with_parts_done(value, done, blocks)
        elif place in done:
            continue
        elif isinstance(value, StandIn):
            done[place] = value, value.settle(blocks)
        elif type(value) in _CONTAINERS:
            if place in entered:
                raise RefusedError(f'a {type(value).__name__} that contains itself')
            entered.add(place)
            todo.append((value, True))
            todo.extend(
                (part, False)
                for part in _parts(value)
                if type(part) in _CONTAINERS or isinstance(part, StandIn)
            )
            if type(value) is OrderedDict and '_metadata' in vars(value):
                value._metadata = _versions(vars(value)['_metadata'])  # type: ignore[attr-defined]
    return done[id(root)][1] if id(root) in done else root


def _with_parts_done(value: Any, done: dict[int, tuple[Any, Any]], blocks: Blocks) -> Any:
    if isinstance(value, dict):
        if any(isinstance(key, StandIn) for key in value):
            keys = [key.settle(blocks) if isinstance(key, StandIn) else key for key in value]
            values = [done[id(v)][1] if id(v) in done else v for v in value.values()]
            return dict(zip(keys, values, strict=True))
        for key, part in value.items():
            if id(part) in done:
                value[key] = done[id(part)][1]
        return value
    if type(value) is list:
        value[:] = [done[id(part)][1] if id(part) in done else part for part in value]
        return value
    changed = tuple(done[id(part)][1] if id(part) in done else part for part in value)
    return value if all(a is b for a, b in zip(value, changed, strict=True)) else changed


def _versions(metadata: Any) -> 'OrderedDict[str, Any]':
    """Keep of a state dict's ``_metadata`` the versions of modules, which are plain numbers."""
    kept: OrderedDict[str, Any] = OrderedDict()
    for name, entry in metadata.items():
        version = entry.get('version') if isinstance(entry, dict) else None
        if type(name) is str and (version is None or type(version) is int):
            kept[name] = {} if version is None else {'version': version}
    return kept


def check_bounded(root: Any) -> None:
    """Check that an object can be printed, compared and read recursively.

    A file of a few bytes can hold a list that holds another list twice, and so on: small in memory,
    endless when it is printed.

    Raises:
        RefusedError: It is nested more than :data:`DEEPEST` levels deep, or is far larger when
            printed than in memory.
    """
    sizes: dict[int, tuple[int, int]] = {}  # of containers: characters when printed, levels
    long_texts: set[int] = set()
    distinct = 0
    todo: list[tuple[Any, bool]] = [(root, False)]
    while todo:
        value, is_left = todo.pop()
        if id(value) in sizes or type(value) not in _CONTAINERS:
            continue
        if not is_left:
            todo.append((value, True))
            todo.extend((part, False) for part in _parts(value) if type(part) in _CONTAINERS)
            continue
        size, depth = _size_of(value), 1
        distinct += size
        for part in _parts(value):
            if type(part) in _CONTAINERS:
                more, deep = sizes.get(id(part), (0, DEEPEST))  # none: it contains itself
                size, depth = size + more, max(depth, deep + 1)
                continue
            more = _size_of(part)
            size += more
            if more > LONG_TEXT and id(part) in long_texts:
                continue
            distinct += more
            if more > LONG_TEXT:
                long_texts.add(id(part))
        if depth > DEEPEST:
            raise RefusedError(f'containers in containers, more than {DEEPEST} levels deep')
        sizes[id(value)] = size, depth
    if sizes.get(id(root), (0, 0))[0] > SHARED_BASE + SHARED_FACTOR * distinct:
        raise RefusedError('containers that hold each other too often to be printed')


def _size_of(value: Any) -> int:
    """About as many characters as a value takes when it is printed, without its parts."""
    if type(value) in (str, bytes, bytearray):
        return 8 + len(value)
    if isinstance(value, dict):
        return 8 + sum(8 + len(key) if type(key) in (str, bytes) else 16 for key in value)
    return 16


def read_pickle(
    content: bytes | BinaryIO,
    size: int,
    names: Names,
    *,
    factor: int = FACTOR,
    bounded: bool = True,
) -> Any:
    """Read one pickle that holds no torch storages of another file.

    Args:
        content: The pickle, or a file at whose beginning it is.
        size: Bytes of it.
        names: What the names in it mean.
        factor: Bytes of objects for each byte of it.
        bounded: Refuse what cannot be printed, see :func:`check_bounded`.

    Raises:
        RefusedError: It asks for more than data needs.
        InstructionError: It has an instruction that is not read.
        DamagedError: It ends too early, or contradicts itself.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    views = VIEWS_BASE + VIEWS_FACTOR * size
    machine = Unpickler(file, size, names, Budget(size, factor=factor), views=views)
    try:
        value = settle(machine.load())
        if bounded:
            check_bounded(value)
    except (RefusedError, InstructionError, DamagedError, OSError):
        raise
    except Exception as error:  # of torch or NumPy, where no check of ours was enough
        raise DamagedError(f'it contradicts itself ({type(error).__name__})') from error
    return value
