"""Stand-ins of the restricted unpickler for tensors, arrays and a few Python types.

The unpickler calls these functions in place of those that a pickle names. Each checks its
arguments and makes a stand-in or a plain value. The tables at the end hold the names that files may
use.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

from mmtimesformer.fileio.safe_pickle import (
    Blocks,
    Constant,
    Name,
    Names,
    RefusedError,
    StandIn,
    Unpickler,
    constant_of,
    shown,
)

MOST_DIMENSIONS = 64


@dataclass(slots=True, eq=False)
class Block:
    """The bytes of one or several tensors.

    Attributes:
        key: Its name in the file.
        nbytes: How many.
        location: The device that they were on, such as ``'cuda:0'``.
        element: Bytes whose order depends on the machine.
        content: The bytes, once they are read.
    """

    key: str
    nbytes: int
    location: str
    element: int
    content: torch.UntypedStorage | None = None


@dataclass(slots=True, eq=False)
class Storage(StandIn):
    """A typed view of a block, ``start`` bytes into it."""

    block: Block
    dtype: torch.dtype
    start: int
    nbytes: int


@dataclass(slots=True, eq=False)
class _Tensor(StandIn):
    storage: Storage | None
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool

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


@dataclass(slots=True, eq=False)
class _Parameter(StandIn):
    tensor: _Tensor
    requires_grad: bool

    def settle(self, blocks: Blocks) -> torch.nn.Parameter:
        tensor = self.tensor.settle(blocks).detach()
        wanted = self.requires_grad and (tensor.is_floating_point() or tensor.is_complex())
        return torch.nn.Parameter(tensor, requires_grad=wanted)


def _refusing(what: str) -> Callable[..., NoReturn]:
    """Return the meaning of a class that a pickle may name, but not call."""

    def refuse(machine: Unpickler, *_: object) -> NoReturn:
        raise RefusedError(what)

    return refuse


_no_tensor = _refusing('a torch.Tensor without a storage')
_no_parameter = _refusing('a torch.nn.Parameter of an old kind')
_no_array = _refusing('numpy.ndarray without _reconstruct')


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


def _dtype_of(name: object) -> torch.dtype:
    dtype = constant_of(name)
    if not isinstance(dtype, torch.dtype):
        raise RefusedError(f'a tensor whose dtype is a {type(name).__name__}')
    return dtype


def _rebuild_tensor(
    machine: Unpickler,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    _hooks: Any = None,
    metadata: Any = None,
    dtype: torch.dtype | None = None,
) -> _Tensor:
    """``torch._utils._rebuild_tensor_v2``; hooks are always empty, and dropped."""
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
    machine: Unpickler,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> _Tensor:
    kind = _dtype_of(dtype)
    return _rebuild_tensor(
        machine, storage, offset, size, stride, requires_grad, hooks, metadata, kind
    )


def _rebuild_meta_tensor(
    machine: Unpickler, dtype: Any, size: Any, stride: Any, requires_grad: Any
) -> _Tensor:
    """A tensor of a shape and no content."""
    kind = _dtype_of(dtype)
    size, stride = _dimensions(size, 'size'), _dimensions(stride, 'stride')
    if (
        len(size) != len(stride)
        or math.prod(size) * kind.itemsize >= 2**62
        or sum(n * step for n, step in zip(size, stride, strict=True)) >= 2**58
    ):
        raise RefusedError('a tensor whose size and stride do not fit')
    machine.charge(700)
    return _Tensor(None, kind, 0, size, stride, _flag(requires_grad))


def _rebuild_parameter(
    machine: Unpickler, data: Any, requires_grad: Any, _hooks: Any, _state: Any = None
) -> _Parameter:
    if type(data) is not _Tensor:
        raise RefusedError(f'a parameter that is a {type(data).__name__}')
    machine.charge(700)
    return _Parameter(data, _flag(requires_grad))


def _rebuild_from_type(
    machine: Unpickler, make: Any, kind: Any, args: Any, _state: Any
) -> _Tensor | _Parameter:
    """A tensor with attributes of its own, which are dropped."""
    if type(make) is not Name or make.meaning not in (_rebuild_tensor, _rebuild_tensor_v3):
        raise RefusedError('a tensor made by something else than _rebuild_tensor_v2')
    if type(kind) is not Name or kind.meaning not in (_no_tensor, _no_parameter):
        raise RefusedError('a tensor of a class of its own')
    if type(args) is not tuple:
        raise RefusedError(f'arguments that are a {type(args).__name__}')
    tensor: _Tensor = make.meaning(machine, *args)
    is_parameter = kind.meaning is _no_parameter
    return _Parameter(tensor, tensor.requires_grad) if is_parameter else tensor


def _torch_size(machine: Unpickler, values: Any = ()) -> torch.Size:
    if type(values) is list:
        values = tuple(values[: MOST_DIMENSIONS + 1])
    return torch.Size(_dimensions(values, 'size'))


def _torch_device(machine: Unpickler, *args: Any) -> torch.device:
    if not 1 <= len(args) <= 2 or type(args[0]) is not str or len(args[0]) > 20:
        raise RefusedError('a device without a name')
    if len(args) == 2 and type(args[1]) is not int:
        raise RefusedError(f'a device whose number is a {type(args[1]).__name__}')
    try:
        return torch.device(*args)
    except RuntimeError:
        raise RefusedError(f'the device {shown(args[0])}') from None


def _layout(machine: Unpickler, name: Any) -> Any:
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

    def __init__(self, machine: Unpickler, code: Any, *_align_and_copy: Any) -> None:
        if type(code) is not str or len(code) > 7 or not _is_dtype_code(code):
            raise RefusedError(f'an array of dtype {shown(code)}')
        self.code, self.order = code, '='

    def build(self, machine: Unpickler, state: Any) -> None:
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
    return code == '?' or (
        code[:1] in tuple('biufcUS') and code[1:].isascii() and code[1:].isdigit()
    )


class ArrayStandIn(StandIn):
    """``numpy.ndarray``: a shape, a dtype and exactly as many bytes as these two need."""

    __slots__ = ('array',)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def build(self, machine: Unpickler, state: Any) -> None:
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
        try:
            self.array = values.reshape(shape, order='F' if fortran else 'C')
        except (ValueError, OverflowError):  # nothing in it, of more than all memory
            raise RefusedError('an array of an impossible shape') from None

    def settle(self, blocks: Blocks | None = None) -> np.ndarray:
        """Return the array, over the very bytes of the pickle: a large file is held once."""
        if self.array is None:
            raise RefusedError('an array without content')
        return self.array


class _OwnArray(ArrayStandIn):
    """The same, with bytes of its own, which may be written to."""

    __slots__ = ()

    def build(self, machine: Unpickler, state: Any) -> None:
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


def _reconstruct(machine: Unpickler, kind: Any, *_shape_and_code: Any) -> ArrayStandIn:
    """``numpy…multiarray._reconstruct``: an array, to be filled by its state."""
    if type(kind) is not Name or kind.meaning is not _no_array:
        raise RefusedError(f'an array whose class is a {type(kind).__name__}')
    return _OwnArray()


def _reconstruct_in_place(machine: Unpickler, kind: Any, *_shape_and_code: Any) -> ArrayStandIn:
    _reconstruct(machine, kind)
    return ArrayStandIn()


def _scalar(machine: Unpickler, dtype: Any, data: Any) -> np.generic:
    """``numpy…multiarray.scalar``: one number, or one piece of text."""
    values = _numbers_in(dtype, data)
    if len(values) != 1:
        raise RefusedError(f'one number made of {len(values)}')
    try:
        number: np.generic = values[0]
    except ValueError:
        raise RefusedError('text of characters that do not exist') from None
    return number


# -- Python


def _latin1(machine: Unpickler, text: Any, encoding: Any) -> bytes:
    """``_codecs.encode``, by which old protocols write bytes; no codec is looked up."""
    if type(text) is not str or type(encoding) is not str or encoding not in ('latin1', 'latin-1'):
        raise RefusedError(f'_codecs.encode(…, {shown(encoding)})')
    return text.encode('latin1')


def _empty_bytes(machine: Unpickler) -> bytes:
    """``bytes``, by which old protocols write an empty one."""
    return b''


def _bytearray(machine: Unpickler, *args: Any) -> bytearray:
    if args and not (len(args) == 1 and type(args[0]) is bytes):
        raise RefusedError('a bytearray of something else than bytes')
    return bytearray(*args)


def _complex(machine: Unpickler, *args: Any) -> complex:
    if len(args) > 2 or any(type(x) not in (int, float) or abs(x) > 1e300 for x in args):
        raise RefusedError('a complex number of something else than two numbers')
    return complex(*args)


def _ordered_dict(machine: Unpickler, *pairs: Any) -> 'OrderedDict[Any, Any]':
    made: OrderedDict[Any, Any] = OrderedDict()
    if len(pairs) > 1 or (pairs and type(pairs[0]) is not list):
        raise RefusedError('an OrderedDict of something else than pairs')
    for pair in pairs[0] if pairs else ():
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise RefusedError('an OrderedDict of something else than pairs')
        machine.charge(120)
        made[machine.key(pair[0])] = pair[1]
    return made


def _counter(machine: Unpickler, counts: Any = None) -> 'Counter[Any]':
    if counts is not None and type(counts) is not dict:
        raise RefusedError(f'a Counter of a {type(counts).__name__}')
    machine.charge(120 * len(counts or ()))
    made: Counter[Any] = Counter()
    made.update(counts or {})
    return made


def _set(machine: Unpickler, items: Any = ()) -> set[Any]:
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
    'float64', 'float32', 'float16', 'bfloat16', 'complex128', 'complex64', 'int64', 'int32',
    'int16', 'int8', 'uint64', 'uint32', 'uint16', 'uint8', 'bool', 'float8_e4m3fn', 'float8_e5m2',
    'float8_e4m3fnuz', 'float8_e5m2fnuz', 'float8_e8m0fnu',
)  # fmt: skip
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


@dataclass(slots=True, eq=False)
class StorageType:
    """The meaning of ``torch.FloatStorage`` and similar names: an element type."""

    dtype: torch.dtype


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
