"""Restricted unpickler: read pickles of tensors, arrays and plain values; execute nothing.

A pickle is a program for a small machine. Python's machine can import and call anything; the one
here can build plain Python values, and stand-ins for what the *names table* of its caller allows.
What follows from its construction, and not from a list of known attacks:

* **Nothing of this process is touched.** A name in the file becomes a :class:`Name` of ours, never
  a class or function. ``REDUCE`` and ``NEWOBJ`` call only what the table holds for a name; ``BUILD``
  changes only stand-ins that this very pickle has made. Tensors and arrays are made after the last
  instruction (:func:`settle`), of arguments that were checked.
* **Time is linear in the size of the file.** Each instruction costs a fixed time, or a time in
  proportion to the bytes that it reads. Nothing that the file gave is printed, hashed or compared
  as long as it may be nested: dictionary keys are text, whole numbers, truth values, bytes or None,
  and messages give the *type* of a wrong value, or a short text in ASCII.
* **Memory is bounded by the size of the file.** Each instruction is charged the bytes that its
  object takes, against a :class:`Budget` of ``base + factor * size``. Lengths are compared with the
  bytes that are left before anything is allocated.
* **No recursion.** The machine and :func:`settle` are loops, so no depth ends in RecursionError.

Limits, chosen so that a training checkpoint of 7 GB (1 MB of pickle) and the results of 100,000
videos pass with room: see the constants below.
"""

import io
import math
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch

BASE = 48 << 20  # bytes of Python objects that any pickle may make
FACTOR = 16  # and so many more for each byte of it; a dump of test results takes about 5
LONGEST_KEY = 4096  # characters
LONGEST_NAME = 500  # characters of `module name`
LONGEST_INT = 255  # bytes
LARGEST_INT_KEY = 2**61 - 2  # above, different numbers have the same hash
MOST_DIMENSIONS = 64
VIEWS_BASE, VIEWS_FACTOR = 64 << 20, 4  # bytes of all tensors, of those of their storages
DEEPEST = 100  # levels of containers, for those who walk through them recursively
SHARED_BASE, SHARED_FACTOR = 16 << 20, 8  # characters when printed, of those when shared
LONG_TEXT = 64  # characters, from which on a text counts once however often it is shared


class RefusedError(Exception):
    """A pickle asked for more than data needs; the message names what."""


class DamagedError(Exception):
    """A pickle is cut short or contradicts itself."""


class InstructionError(Exception):
    """A pickle has an instruction that the writers of its kind do not use; args: its number."""


def shown(value: Any) -> str:
    """Return short text as ASCII in quotes, a small number as it is, of all else the type."""
    if type(value) is str and len(value) <= 60:
        return ascii(value)
    if type(value) in (bool, int) and abs(value) < 10**18:
        return str(value)
    return f'a {type(value).__name__}'


class Budget:
    """The bytes of Python objects that a pickle may still make.

    Args:
        size: Bytes of the pickle.
        base: Bytes that any pickle may make.
        factor: Bytes of objects for each byte of the pickle.
    """

    def __init__(self, size: int, base: int = BASE, factor: int = FACTOR) -> None:
        self.limit = self.left = base + factor * size

    def charge(self, cost: int) -> None:
        """Take bytes off.

        Raises:
            RefusedError: Nothing is left.
        """
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
        """Take the state that ``BUILD`` gives.

        Raises:
            RefusedError: The state is not one of such an object.
        """
        raise RefusedError(f'a change of a {type(self).__name__.strip("_")}')

    def settle(self, blocks: 'Blocks') -> Any:
        """Return what this stands for; called once, after the last instruction."""
        raise RefusedError(f'a bare {type(self).__name__.strip("_")}')


class Name(StandIn):
    """A name of a class or function in a pickle.

    Attributes:
        path: ``module.name``.
        meaning: What the table has for it: a function of the machine and arguments, or a
            :class:`Constant`.
    """

    __slots__ = ('meaning', 'path')

    def __init__(self, path: str, meaning: Any) -> None:
        self.path, self.meaning = path, meaning

    def build(self, machine: 'Unpickler', state: Any) -> NoReturn:
        raise RefusedError('a change of a class')

    def settle(self, blocks: 'Blocks') -> Any:
        if type(self.meaning) is Constant:
            return self.meaning.value
        raise RefusedError(f'{self.path} itself')


class Constant:
    """The meaning of a name that stands for a plain value, such as ``torch.float32``."""

    __slots__ = ('value',)

    def __init__(self, value: Any) -> None:
        self.value = value


Names = Mapping[str, Callable[..., Any] | Constant]


class Blocks:
    """Give the bytes of storages to tensors; see :mod:`mmtimesformer.fileio.torch_files`."""

    def storage(self, block: 'Block') -> torch.UntypedStorage:
        """Return the bytes of a block."""
        if block.content is None:
            raise RefusedError('a tensor without content')
        return block.content


class Block:
    """The bytes that tensors share.

    Attributes:
        key: Its name in the file.
        nbytes: How many.
        location: The device that they were on, such as ``'cuda:0'``.
        element: Bytes whose order depends on the machine.
        content: The bytes, once they are read.
    """

    __slots__ = ('content', 'element', 'key', 'location', 'nbytes')

    def __init__(self, key: str, nbytes: int, location: str, element: int) -> None:
        self.key, self.nbytes, self.location, self.element = key, nbytes, location, element
        self.content: torch.UntypedStorage | None = None


class Storage(StandIn):
    """A typed view of a block, ``start`` bytes into it."""

    __slots__ = ('block', 'dtype', 'nbytes', 'start')

    def __init__(self, block: Block, dtype: torch.dtype, start: int, nbytes: int) -> None:
        self.block, self.dtype, self.start, self.nbytes = block, dtype, start, nbytes


class _Tensor(StandIn):
    __slots__ = ('dtype', 'offset', 'requires_grad', 'size', 'storage', 'stride')

    def __init__(
        self,
        storage: Storage | None,
        dtype: torch.dtype,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        requires_grad: bool,
    ) -> None:
        self.storage, self.dtype, self.offset = storage, dtype, offset
        self.size, self.stride, self.requires_grad = size, stride, requires_grad

    def settle(self, blocks: Blocks) -> torch.Tensor:
        if self.storage is None:
            tensor = torch.empty_strided(self.size, self.stride, dtype=self.dtype, device='meta')
        else:
            content = blocks.storage(self.storage.block)
            tensor = torch.empty(0, dtype=self.dtype, device=content.device)
            tensor.set_(content, self.offset, self.size, self.stride)
        if self.requires_grad and (self.dtype.is_floating_point or self.dtype.is_complex):
            tensor.requires_grad_(True)
        return tensor


class _Parameter(StandIn):
    __slots__ = ('requires_grad', 'tensor')

    def __init__(self, tensor: _Tensor, requires_grad: bool) -> None:
        self.tensor, self.requires_grad = tensor, requires_grad

    def settle(self, blocks: Blocks) -> torch.nn.Parameter:
        tensor = self.tensor.settle(blocks).detach()
        wanted = self.requires_grad and (tensor.is_floating_point() or tensor.is_complex())
        return torch.nn.Parameter(tensor, requires_grad=wanted)


def _dimensions(values: Any, what: str) -> tuple[int, ...]:
    """Check a shape or strides: at most 64 numbers that are not negative."""
    if type(values) not in (tuple, torch.Size) or len(values) > MOST_DIMENSIONS:
        raise RefusedError(f'a tensor whose {what} is a {type(values).__name__}')
    for value in values:
        if type(value) is not int or not 0 <= value < 2**62:
            raise RefusedError(f'a tensor with {shown(value)} in its {what}')
    return tuple(values)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise RefusedError(f'a tensor whose requires_grad is a {type(value).__name__}')
    return value


def _constant_of(name: Any, kind: type, what: str) -> Any:
    value = name.meaning.value if type(name) is Name and type(name.meaning) is Constant else None
    if not isinstance(value, kind):
        raise RefusedError(f'a tensor whose {what} is a {type(name).__name__}')
    return value


def _rebuild_tensor(
    machine: 'Unpickler',
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    _hooks: Any = None,
    metadata: Any = None,
    dtype: torch.dtype | None = None,
) -> _Tensor:
    """``torch._utils._rebuild_tensor_v2``; hooks are always empty, and left out."""
    if type(storage) is not Storage:
        raise RefusedError(f'a tensor whose storage is a {type(storage).__name__}')
    size, stride = _dimensions(size, 'size'), _dimensions(stride, 'stride')
    if type(offset) is not int or not 0 <= offset < 2**62 or len(size) != len(stride):
        raise RefusedError('a tensor whose offset, size and stride do not fit')
    if metadata is not None and not (type(metadata) is dict and not metadata):
        raise RefusedError('a tensor with metadata, such as a conjugate view')
    dtype = dtype or storage.dtype
    if storage.start % dtype.itemsize:
        raise RefusedError('a tensor between the elements of its storage')
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last + 1) * dtype.itemsize > storage.nbytes:
        raise RefusedError('a tensor that is larger than its storage')
    machine.charge(700)  # of the tensor itself
    machine.charge_view(count * dtype.itemsize)
    return _Tensor(
        storage, dtype, offset + storage.start // dtype.itemsize, size, stride, _flag(requires_grad)
    )


def _rebuild_tensor_v3(
    machine: 'Unpickler',
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> _Tensor:
    kind = _constant_of(dtype, torch.dtype, 'dtype')
    return _rebuild_tensor(
        machine, storage, offset, size, stride, requires_grad, hooks, metadata, kind
    )


def _rebuild_meta_tensor(
    machine: 'Unpickler', dtype: Any, size: Any, stride: Any, requires_grad: Any
) -> _Tensor:
    """A tensor of a shape and no content."""
    kind = _constant_of(dtype, torch.dtype, 'dtype')
    size, stride = _dimensions(size, 'size'), _dimensions(stride, 'stride')
    if len(size) != len(stride) or math.prod(size) * kind.itemsize >= 2**62:
        raise RefusedError('a tensor whose size and stride do not fit')
    if sum(n * step for n, step in zip(size, stride, strict=True)) >= 2**58:
        raise RefusedError('a tensor whose size and stride do not fit')
    machine.charge(700)
    return _Tensor(None, kind, 0, size, stride, _flag(requires_grad))


def _rebuild_parameter(
    machine: 'Unpickler', data: Any, requires_grad: Any, _hooks: Any, _state: Any = None
) -> _Parameter:
    if type(data) is not _Tensor:
        raise RefusedError(f'a parameter that is a {type(data).__name__}')
    return _Parameter(data, _flag(requires_grad))


def _rebuild_from_type(
    machine: 'Unpickler', make: Any, kind: Any, args: Any, _state: Any
) -> _Tensor | _Parameter:
    """A tensor with attributes of its own, which are left out."""
    if type(make) is not Name or make.meaning not in (_rebuild_tensor, _rebuild_tensor_v3):
        raise RefusedError('a tensor made by something else than _rebuild_tensor_v2')
    if type(kind) is not Name or kind.meaning not in (_no_tensor, _no_parameter):
        raise RefusedError('a tensor of a class of its own')
    if type(args) is not tuple:
        raise RefusedError(f'arguments that are a {type(args).__name__}')
    tensor: _Tensor = make.meaning(machine, *args)  # type: ignore[operator]
    is_parameter = kind.meaning is _no_parameter
    return _Parameter(tensor, tensor.requires_grad) if is_parameter else tensor


def _no_tensor(machine: 'Unpickler', *_: Any) -> NoReturn:
    raise RefusedError('a torch.Tensor without a storage')


def _no_parameter(machine: 'Unpickler', *_: Any) -> NoReturn:
    raise RefusedError('a torch.nn.Parameter of an old kind')


def _torch_size(machine: 'Unpickler', values: Any = ()) -> torch.Size:
    if type(values) is list:
        values = tuple(values[: MOST_DIMENSIONS + 1])
    return torch.Size(_dimensions(values, 'size'))


def _torch_device(machine: 'Unpickler', *args: Any) -> torch.device:
    if not 1 <= len(args) <= 2 or type(args[0]) is not str or len(args[0]) > 20:
        raise RefusedError('a device without a name')
    if len(args) == 2 and type(args[1]) is not int:
        raise RefusedError(f'a device whose number is a {type(args[1]).__name__}')
    try:
        return torch.device(*args)
    except RuntimeError:
        raise RefusedError(f'the device {shown(args[0])}') from None


def _layout(machine: 'Unpickler', name: Any) -> Any:
    if type(name) is not str or name != 'torch.strided':
        raise RefusedError(f'the layout {shown(name)}')
    return torch.strided


# -- NumPy


class _Dtype(StandIn):
    """``numpy.dtype``: truth values, integers, floats, complex numbers or text, in one byte order.

    NumPy's own ``dtype.__setstate__`` accepts any description of fields and Python objects, by
    which a file can turn its bytes into pointers. This one takes an element code and a byte order.
    """

    __slots__ = ('code', 'order')

    def __init__(self, machine: 'Unpickler', code: Any, *_align_and_copy: Any) -> None:
        if type(code) is not str or len(code) > 7 or not _is_dtype_code(code):
            raise RefusedError(f'an array of dtype {shown(code)}')
        self.code, self.order = code, '='

    def build(self, machine: 'Unpickler', state: Any) -> None:
        if type(state) is not tuple or len(state) < 5 or any(x is not None for x in state[2:5]):
            raise RefusedError('an array with structured elements')
        if type(state[1]) is not str or state[1] not in ('<', '>', '|', '='):
            raise RefusedError(f'an array of byte order {shown(state[1])}')
        self.order = state[1]

    def settle(self, blocks: Blocks | None = None) -> np.dtype:
        try:
            return np.dtype(self.order + self.code)
        except TypeError:
            raise RefusedError(f'an array of dtype {shown(self.code)}') from None


def _is_dtype_code(code: str) -> bool:
    return code == '?' or (code[:1] in tuple('biufcUS') and code[1:].isascii() and code[1:].isdigit())


class _Array(StandIn):
    """``numpy.ndarray``: a shape, a dtype and exactly as many bytes as these two need."""

    __slots__ = ('array',)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def build(self, machine: 'Unpickler', state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise RefusedError('an array of another make')
        _, shape, dtype, fortran, data = state
        if (
            type(shape) is not tuple
            or len(shape) > MOST_DIMENSIONS
            or any(type(n) is not int or n < 0 for n in shape)
        ):
            raise RefusedError(f'an array whose shape is a {type(shape).__name__}')
        if type(fortran) not in (bool, int):
            raise RefusedError(f'an array whose order is a {type(fortran).__name__}')
        values = _numbers_in(dtype, data)
        if math.prod(shape) != len(values):
            raise RefusedError('an array whose shape and content differ')
        self.array = values.reshape(shape, order='F' if fortran else 'C')

    def settle(self, blocks: Blocks | None = None) -> np.ndarray:
        """Return the array, over the very bytes of the pickle: a large file is held once."""
        if self.array is None:
            raise RefusedError('an array without content')
        return self.array


class _OwnArray(_Array):
    """The same, with bytes of its own, which may be written to."""

    __slots__ = ()

    def build(self, machine: 'Unpickler', state: Any) -> None:
        super().build(machine, state)
        assert self.array is not None
        machine.charge(self.array.nbytes)
        self.array = self.array.copy(order='K')


def _numbers_in(dtype: Any, data: Any) -> np.ndarray:
    if type(dtype) is not _Dtype or type(data) is not bytes:
        raise RefusedError('an array whose content is not a dtype and bytes')
    kind = dtype.settle()
    if kind.itemsize == 0 or len(data) % kind.itemsize:
        raise RefusedError('an array whose content is not a number of elements')
    return np.frombuffer(data, kind)


def _no_array(machine: 'Unpickler', *_: Any) -> NoReturn:
    raise RefusedError('numpy.ndarray without _reconstruct')


def _reconstruct(machine: 'Unpickler', kind: Any, *_shape_and_code: Any) -> _Array:
    """``numpy…multiarray._reconstruct``: an array, to be filled by its state."""
    if type(kind) is not Name or kind.meaning is not _no_array:
        raise RefusedError(f'an array whose class is a {type(kind).__name__}')
    return _OwnArray()


def _reconstruct_in_place(machine: 'Unpickler', kind: Any, *_shape_and_code: Any) -> _Array:
    _reconstruct(machine, kind)
    return _Array()


def _scalar(machine: 'Unpickler', dtype: Any, data: Any) -> np.generic:
    """``numpy…multiarray.scalar``: one number, or one piece of text."""
    values = _numbers_in(dtype, data)
    if len(values) != 1:
        raise RefusedError(f'one number made of {len(values)}')
    number: np.generic = values[0]
    return number


# -- Python


def _latin1(machine: 'Unpickler', text: Any, encoding: Any) -> bytes:
    """``_codecs.encode``, by which old protocols write bytes; no codec is looked up."""
    if type(text) is not str or type(encoding) is not str or encoding not in ('latin1', 'latin-1'):
        raise RefusedError(f'_codecs.encode(…, {shown(encoding)})')
    return text.encode('latin1')


def _empty_bytes(machine: 'Unpickler') -> bytes:
    """``bytes``, by which old protocols write an empty one."""
    return b''


def _bytearray(machine: 'Unpickler', *args: Any) -> bytearray:
    if args and not (len(args) == 1 and type(args[0]) is bytes):
        raise RefusedError('a bytearray of something else than bytes')
    return bytearray(*args)


def _complex(machine: 'Unpickler', *args: Any) -> complex:
    if len(args) > 2 or any(type(x) not in (int, float) or abs(x) > 1e300 for x in args):
        raise RefusedError('a complex number of something else than two numbers')
    return complex(*args)


def _ordered_dict(machine: 'Unpickler', *pairs: Any) -> 'OrderedDict[Any, Any]':
    made: OrderedDict[Any, Any] = OrderedDict()
    if len(pairs) > 1 or (pairs and type(pairs[0]) is not list):
        raise RefusedError('an OrderedDict of something else than pairs')
    for pair in pairs[0] if pairs else ():
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise RefusedError('an OrderedDict of something else than pairs')
        machine.charge(120)
        made[machine.key(pair[0])] = pair[1]
    return made


def _counter(machine: 'Unpickler', counts: Any = None) -> 'Counter[Any]':
    if counts is not None and type(counts) is not dict:
        raise RefusedError(f'a Counter of a {type(counts).__name__}')
    machine.charge(120 * len(counts or ()))
    made: Counter[Any] = Counter()
    made.update(counts or {})
    return made


def _set(machine: 'Unpickler', items: Any = ()) -> set[Any]:
    if type(items) not in (list, tuple):
        raise RefusedError(f'a set of a {type(items).__name__}')
    machine.charge(120 * len(items))
    return {machine.key(item) for item in items}


# -- Tables ----------------------------------------------------------------------------------------

PLAIN: Names = {
    '_codecs.encode': _latin1,
    'builtins.bytes': _empty_bytes,
    'builtins.bytearray': _bytearray,
    'builtins.complex': _complex,
    'builtins.set': _set,
    'collections.OrderedDict': _ordered_dict,
    'collections.Counter': _counter,
}


def _numpy_names(reconstruct: Callable[..., Any]) -> Names:
    names: dict[str, Any] = {'numpy.ndarray': _no_array, 'numpy.dtype': _Dtype}
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # NumPy 1, NumPy 2
        names[f'{module}._reconstruct'] = reconstruct
        names[f'{module}.scalar'] = _scalar
    return names


NUMPY = _numpy_names(_reconstruct)
NUMPY_IN_PLACE = _numpy_names(_reconstruct_in_place)  # read-only, for files of gigabytes

_DTYPES = (
    'float64 float32 float16 bfloat16 complex128 complex64 int64 int32 int16 int8 uint64 uint32 '
    'uint16 uint8 bool float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu'
).split()
DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in _DTYPES if hasattr(torch, name)
}
_STORAGES = {
    'DoubleStorage': torch.float64, 'FloatStorage': torch.float32, 'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16, 'LongStorage': torch.int64, 'IntStorage': torch.int32,
    'ShortStorage': torch.int16, 'CharStorage': torch.int8, 'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool, 'ComplexDoubleStorage': torch.complex128,
    'ComplexFloatStorage': torch.complex64, 'UntypedStorage': torch.uint8,
}  # fmt: skip


class StorageType:
    """The meaning of ``torch.FloatStorage`` and its like: an element type."""

    __slots__ = ('dtype',)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


TORCH: Names = {
    'torch._utils._rebuild_tensor': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v3': _rebuild_tensor_v3,
    'torch._utils._rebuild_meta_tensor_no_storage': _rebuild_meta_tensor,
    'torch._utils._rebuild_parameter': _rebuild_parameter,
    'torch._utils._rebuild_parameter_with_state': _rebuild_parameter,
    'torch._tensor._rebuild_from_type_v2': _rebuild_from_type,
    'torch.Tensor': _no_tensor,
    'torch.nn.parameter.Parameter': _no_parameter,
    'torch.Size': _torch_size,
    'torch.device': _torch_device,
    'torch.serialization._get_layout': _layout,
    **{f'torch.{name}': Constant(dtype) for name, dtype in DTYPES.items()},
    **{
        f'{module}.{name}': Constant(StorageType(dtype))
        for name, dtype in _STORAGES.items()
        for module in ('torch', 'torch.cuda', 'torch.storage')
    },
}


# -- The machine -----------------------------------------------------------------------------------


class Unpickler:
    """Run a pickle on stand-ins.

    Args:
        file: Where the pickle begins; afterwards it stands behind the pickle.
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
        storages: Callable[[Any], Storage] | None = None,
        views: int = VIEWS_BASE,
    ) -> None:
        self.file, self.end, self.names, self.budget = file, end, names, budget
        self.read_byte, self.charge = file.read, budget.charge
        self.handlers = _HANDLERS_OF_2 if protocol == 2 else _HANDLERS
        self.storages = storages
        self.views_left = self.views = views
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.found: dict[str, Name] = {}

    def load(self) -> Any:
        """Run the pickle to its end; return its value, with stand-ins in it.

        Raises:
            RefusedError: It asks for more than data needs.
            InstructionError: It has an instruction of another protocol.
            DamagedError: It ends too early, or contradicts itself.
        """
        read, handlers, budget = self.file.read, self.handlers, self.budget
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
        """Count the bytes of a tensor, which may share its storage with others."""
        self.views_left -= nbytes
        if self.views_left < 0:
            raise RefusedError(
                f'tensors of more than {self.views:,} bytes, which are not in the file'
            )

    def key(self, key: Any) -> Any:
        """Return a key of a dictionary, if hashing it takes no time.

        Raises:
            RefusedError: It is of another type, or too long.
        """
        kind = type(key)
        if kind is str or kind is bytes:
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
        content = self.file.read(count)
        if len(content) != count:
            raise DamagedError('it ends too early')
        return content

    def number(self, form: str) -> int:
        """Read a number, of a format of :mod:`struct`."""
        value: int = struct.unpack(form, self.file.read(struct.calcsize(form)))[0]
        return value

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
        if type(function) is not Name or type(function.meaning) is Constant:
            raise RefusedError(f'a call of {function.path if type(function) is Name else "a value"}')
        if type(args) is not tuple:
            raise RefusedError(f'arguments that are a {type(args).__name__}')
        cost = 0
        for value in args:
            kind = type(value)
            if kind in _SIZED:
                cost += len(value)
        self.charge(cost)
        try:
            return function.meaning(self, *args)  # type: ignore[operator]
        except TypeError:
            raise RefusedError(f'{function.path} of {len(args)} arguments') from None

    def global_(self) -> None:
        module = self.line()
        self.stack.append(self.find(module, self.line()))

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str or len(name) + len(module) > LONGEST_NAME:
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
        if isinstance(made, StandIn):
            made.build(self, state)
        elif type(made) is OrderedDict:  # a state dict's versions of its modules
            if type(state) is dict and type(state.get('_metadata')) in (dict, OrderedDict):
                made._metadata = state['_metadata']  # type: ignore[attr-defined]
        else:
            raise RefusedError(f'a change of a {type(made).__name__}')

    def persistent(self) -> None:
        given = self.stack.pop()
        if self.storages is None:
            raise RefusedError('content of another file')
        self.stack.append(self.storages(given))

    def append(self) -> None:
        item = self.stack.pop()
        if type(self.stack[-1]) is not list:
            raise RefusedError(f'an item of a {type(self.stack[-1]).__name__}')
        self.stack[-1].append(item)

    def appends(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not list:
            raise RefusedError(f'items of a {type(self.stack[-1]).__name__}')
        self.stack[-1].extend(items)

    def _dict(self) -> dict[Any, Any]:
        made = self.stack[-1]
        if type(made) not in _DICTS:
            raise RefusedError(f'entries of a {type(made).__name__}')
        return made  # type: ignore[no-any-return]

    def setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._dict()[self.key(key)] = value

    def setitems(self) -> None:
        items = self.pop_mark()
        made = self._dict()
        if len(items) % 2:
            raise DamagedError('a key has no value')
        self.charge(50 * len(items))
        for i in range(0, len(items), 2):
            key = items[i]
            made[key if type(key) is str and len(key) < 100 else self.key(key)] = items[i + 1]

    def additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise RefusedError(f'items of a {type(self.stack[-1]).__name__}')
        self.charge(100 * len(items))
        self.stack[-1].update([self.key(item) for item in items])

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

    def tuple1(self) -> None:
        self.stack[-1] = (self.stack[-1],)

    def tuple2(self) -> None:
        last = self.stack.pop()
        self.stack[-1] = (self.stack[-1], last)

    def tuple3(self) -> None:
        last, middle = self.stack.pop(), self.stack.pop()
        self.stack[-1] = (self.stack[-1], middle, last)

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
        self.charge(len(content))
        text = content.decode('utf-8', 'surrogatepass')
        if not text.isascii():  # up to four bytes for each character
            self.charge(3 * len(text))
        self.stack.append(text)

    def bytes_(self, count: int) -> None:
        content = self.take(count)
        self.charge(len(content))
        self.stack.append(content)


_RENAMED = {'__builtin__': 'builtins', 'torch.tensor': 'torch._tensor'}
_SIZED = {str, bytes, tuple, list, dict}
_DICTS = {dict, OrderedDict, Counter}


def _unknown(code: int) -> Callable[[Unpickler], None]:
    def refuse(machine: Unpickler) -> None:
        raise InstructionError(code)

    return refuse


def _pushing(value: Callable[[Unpickler], Any]) -> Callable[[Unpickler], None]:
    return lambda machine: machine.stack.append(value(machine))


_MEMO = 100  # bytes of an entry
# By instruction: what it does, the bytes that it may take, the protocol that brought it.
_INSTRUCTIONS: dict[bytes, tuple[Callable[[Unpickler], Any], int, int]] = {
    pickle.PROTO: (lambda machine: machine.number('B'), 1, 2),
    pickle.GLOBAL: (Unpickler.global_, 20, 2),
    pickle.REDUCE: (Unpickler.reduce, 300, 2),
    pickle.NEWOBJ: (Unpickler.reduce, 300, 2),
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
    pickle.TUPLE1: (Unpickler.tuple1, 64, 2),
    pickle.TUPLE2: (Unpickler.tuple2, 72, 2),
    pickle.TUPLE3: (Unpickler.tuple3, 80, 2),
    pickle.NONE: (_pushing(lambda _: None), 8, 2),
    pickle.NEWTRUE: (_pushing(lambda _: True), 8, 2),
    pickle.NEWFALSE: (_pushing(lambda _: False), 8, 2),
    pickle.EMPTY_LIST: (_pushing(lambda _: []), 80, 2),
    pickle.EMPTY_DICT: (_pushing(lambda _: {}), 80, 2),
    pickle.BININT: (_pushing(lambda machine: machine.number('<i')), 40, 2),
    pickle.BININT1: (_pushing(lambda machine: machine.number('B')), 8, 2),
    pickle.BININT2: (_pushing(lambda machine: machine.number('<H')), 40, 2),
    pickle.LONG1: (lambda machine: machine.long(machine.number('B')), 48, 2),
    pickle.LONG4: (lambda machine: machine.long(machine.number('<i')), 48, 2),
    pickle.BINFLOAT: (_pushing(lambda machine: machine.number('>d')), 32, 2),
    pickle.BINUNICODE: (lambda machine: machine.text(machine.number('<I')), 64, 2),
    pickle.SHORT_BINSTRING: (lambda machine: machine.text(machine.number('B')), 64, 2),
    pickle.BINGET: (lambda machine: machine.get(machine.number('B')), 8, 2),
    pickle.LONG_BINGET: (lambda machine: machine.get(machine.number('<I')), 8, 2),
    pickle.BINPUT: (lambda machine: machine.put(machine.number('B')), 8, 2),
    pickle.LONG_BINPUT: (lambda machine: machine.put(machine.number('<I')), _MEMO, 2),
    pickle.BINBYTES: (lambda machine: machine.bytes_(machine.number('<I')), 48, 3),
    pickle.SHORT_BINBYTES: (lambda machine: machine.bytes_(machine.number('B')), 48, 3),
    pickle.FRAME: (lambda machine: machine.number('<Q'), 1, 4),
    pickle.SHORT_BINUNICODE: (lambda machine: machine.text(machine.number('B')), 64, 4),
    pickle.BINUNICODE8: (lambda machine: machine.text(machine.number('<Q')), 64, 4),
    pickle.BINBYTES8: (lambda machine: machine.bytes_(machine.number('<Q')), 48, 4),
    pickle.EMPTY_SET: (_pushing(lambda _: set()), 232, 4),
    pickle.ADDITEMS: (Unpickler.additems, 16, 4),
    pickle.NEWOBJ_EX: (Unpickler.new_with_keywords, 300, 4),
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
    """Put tensors, arrays and constants in the place of their stand-ins.

    What a file shares stays shared; containers are changed in place, tuples are made again.

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
    """Check that what was read can be walked through, printed and compared.

    A file of a few bytes can hold a list that holds another list twice, and so on: small as long as
    it is shared, endless when it is printed.

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
        raise RefusedError('containers that hold each other so often that nobody could print them')


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
        bounded: Refuse what could not be printed, see :func:`check_bounded`.

    Raises:
        RefusedError: It asks for more than data needs.
        InstructionError: It has an instruction that is not read.
        DamagedError: It ends too early, or contradicts itself.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    views = VIEWS_BASE + VIEWS_FACTOR * size
    value = settle(Unpickler(file, size, names, Budget(size, factor=factor), views=views).load())
    if bounded:
        check_bounded(value)
    return value
