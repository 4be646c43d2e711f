"""Write and read ONNX, torch.export and TorchScript files.

============  ============  ================================================================
format        ending        read by
============  ============  ================================================================
onnx          .onnx         ONNX Runtime and other software for ONNX
torch-export  .pt2          ``torch.export.load``: PyTorch without this package
torchscript   .torchscript  ``torch.jit.load``, also from C++; PyTorch has deprecated it
============  ============  ================================================================

Each holds the metadata as JSON: ONNX under ``mmtimesformer`` in its ``metadata_props``, the
other two as the extra file ``mmtimesformer``.
"""

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtimesformer.export.metadata import KEY

Run = Callable[[Tensor], Tensor]

#: The opset that torch writes by itself; it can convert to newer ones, but not to 17.
OPSET = 18
INSTALL = 'pip install "mmtimesformer[export]"'
LARGEST_ONNX = 2**31  # bytes that one protobuf message may have


@dataclass(frozen=True)
class Format:
    """A kind of file: the ending of its name, and how it is written and read.

    ``write(module, example, dynamic, metadata, path)`` writes a module for the batch of the
    example, or with ``dynamic`` for any. ``read`` returns a function that runs the file, and its
    metadata.
    """

    ending: str
    write: Callable[[nn.Module, Tensor, bool, dict[str, Any], Path], None]
    read: Callable[[Path], tuple[Run, dict[str, Any]]]


def require_onnx() -> None:
    """Check that ONNX files can be written and run.

    Raises:
        ModuleNotFoundError: A package is missing; the message ends with the command to install it.
    """
    try:
        for name in ('onnx', 'onnxscript', 'onnxruntime'):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'ONNX files are written by onnx and onnxscript and compared by onnxruntime, but '
            f'{error.name} is not installed; run: {INSTALL}'
        ) from error


def _write_onnx(
    module: nn.Module, example: Tensor, dynamic: bool, metadata: dict[str, Any], path: Path
) -> None:
    size = sum(weight.nbytes for weight in module.state_dict().values())
    if size >= LARGEST_ONNX:
        raise ValueError(
            f'the weights are {size / 1e9:.1f} GB and an ONNX file holds 2.1; give --format '
            'torch-export'
        )
    opset = metadata['opset']
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=[metadata['input']['name']],
            output_names=[metadata['output']['name']],
            dynamic_shapes=_dynamic_shapes(dynamic),
            verbose=False,
        )
    assert program is not None
    written = program.model.opset_imports['']
    if written != opset:
        raise ValueError(
            f'torch {torch.__version__} cannot write opset {opset}, it wrote {written}; give '
            f'--opset {written}, or leave --opset out'
        )
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    program.model.producer_name = KEY
    program.model.metadata_props[KEY] = json.dumps(metadata)
    program.save(path, external_data=False)


def _read_onnx(path: Path) -> tuple[Run, dict[str, Any]]:
    onnxruntime: Any = importlib.import_module('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    name = metadata['input']['name']
    return lambda video: torch.from_numpy(session.run(None, {name: video.numpy()})[0]), metadata


def _write_torch_export(
    module: nn.Module, example: Tensor, dynamic: bool, metadata: dict[str, Any], path: Path
) -> None:
    program = torch.export.export(module, (example,), dynamic_shapes=_dynamic_shapes(dynamic))
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # with the paths of this machine
    program.example_inputs = None  # else the clips themselves are in the file
    with path.open('wb') as file:
        torch.export.save(program, file, extra_files={KEY: json.dumps(metadata)})


def _read_torch_export(path: Path) -> tuple[Run, dict[str, Any]]:
    extra = {KEY: ''}
    with path.open('rb') as file:
        program = torch.export.load(file, extra_files=extra)
    return program.module(), json.loads(extra[KEY])


def _write_torchscript(
    module: nn.Module, example: Tensor, dynamic: bool, metadata: dict[str, Any], path: Path
) -> None:
    # A trace accepts any batch; the batch of the metadata is the one that was compared.
    with _quiet():
        traced = torch.jit.trace(module, example, check_trace=False)
        with path.open('wb') as file:  # given a path, torch would write its temporary name inside
            torch.jit.save(traced, file, _extra_files={KEY: json.dumps(metadata)})


def _read_torchscript(path: Path) -> tuple[Run, dict[str, Any]]:
    extra = {KEY: ''}
    with _quiet():
        return torch.jit.load(path, _extra_files=extra), json.loads(extra[KEY])


def _dynamic_shapes(dynamic: bool) -> Any:
    return ({0: torch.export.Dim('batch')},) if dynamic else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' messages on torchvision, deprecation, tracing and opsets."""
    loud = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript')]
    levels = [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)


#: The formats ``'onnx'``, ``'torch-export'`` and ``'torchscript'``, each with its ending.
FORMATS = {
    'onnx': Format('.onnx', _write_onnx, _read_onnx),
    'torch-export': Format('.pt2', _write_torch_export, _read_torch_export),
    'torchscript': Format('.torchscript', _write_torchscript, _read_torchscript),
}
