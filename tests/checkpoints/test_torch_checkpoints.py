"""Training checkpoints are read completely; files with programs are refused, not run."""

import contextlib
import pickle
import zipfile
from collections import Counter, OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from mmtimesformer.checkpoints.torch_checkpoints import ScalarHistory, load_torch

HISTORY_BUFFER = 'mmengine.logging.history_buffer', 'HistoryBuffer'


# -- Writing pickles by hand: what no honest program writes --------------------------------------


class Program:
    """A pickle put together from its instructions, to be smuggled into a torch file."""

    def __init__(self) -> None:
        self.code = b'\x80\x02'

    def name(self, module: str, name: str) -> 'Program':
        self.code += f'c{module}\n{name}\n'.encode()
        return self

    def text(self, text: str) -> 'Program':
        data = text.encode()
        self.code += b'X' + len(data).to_bytes(4, 'little') + data
        return self

    def raw(self, code: bytes) -> 'Program':
        self.code += code
        return self

    def save(self, path: Path) -> Path:
        """Save a torch file whose pickle is this one."""
        torch.save({}, path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, 'w') as archive:
            for name, data in members.items():
                archive.writestr(name, self.code + b'.' if name.endswith('data.pkl') else data)
        return path


def touch(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def run_system(marker: Path) -> Program:
    """The textbook attack: ``os.system('touch marker')``."""
    return Program().name('posix', 'system').text(f'touch {marker}').raw(b'\x85R')


def run_through_getattr(marker: Path) -> Program:
    """``eval`` fetched by ``getattr(getattr(getattr, '__self__'), 'eval')``, all names allowed."""
    program = Program().name('__builtin__', 'getattr').raw(b'q\x00h\x00h\x00')
    program.text('__self__').raw(b'\x86R').text('eval').raw(b'\x86R')
    return program.text(touch(marker)).raw(b'\x85R')


def run_through_history_buffer(marker: Path) -> Program:
    """``HistoryBuffer.__setstate__`` made to call ``exec``.

    It calls ``self._statistics_methods.update(statistics_methods)``; a second buffer whose own
    ``update`` is ``exec`` takes the place of the dict.
    """
    program = Program().name('__builtin__', 'getattr').raw(b'q\x00h\x00')
    program.text('__self__').raw(b'\x86Rq\x010')  # 1: the module builtins
    for slot, builtin in ((2, 'exec'), (3, 'slice')):
        program.raw(b'h\x00h\x01').text(builtin).raw(b'\x86Rq' + bytes([slot]) + b'0')
    program.name(*HISTORY_BUFFER).raw(b')\x81q\x04}(')
    program.text('setdefault').raw(b'h\x03').text('update').raw(b'h\x02ub0')
    program.name(*HISTORY_BUFFER).raw(b')\x81q\x05}(')
    program.text('_statistics_methods').raw(b'h\x04ub}(')
    program.text('statistics_methods').text(touch(marker))
    return program.raw(b'ub')


ATTACKS = [run_system, run_through_getattr, run_through_history_buffer]


# -- What training writes -------------------------------------------------------------------------


def training_checkpoint() -> dict[str, Any]:
    """Everything that MMEngine's ``save_checkpoint`` has been seen to put into a file."""
    hub = MessageHub('training_checkpoint')
    for step in range(5):
        hub.update_scalar('train/loss', 1.0 / (step + 1))
        hub.update_scalar('train/lr', 0.005)
    hub.update_info('best_score', np.float64(0.75))
    hub.update_info('keep_ckpt_ids', [1, 2])
    return {
        'meta': {'epoch': 2, 'iter': 10, 'cfg': 'model = dict()', 'dataset_meta': {}},
        'state_dict': OrderedDict(weight=torch.arange(6.0).reshape(2, 3)),
        'message_hub': hub.state_dict(),
        'optimizer': {'state': {0: {'momentum_buffer': torch.ones(2, 3)}}, 'param_groups': []},
        'param_schedulers': [{'milestones': Counter([5, 10]), 'last_step': 2}],
    }


def save(tmp_path: Path, content: Any, **options: Any) -> Path:
    path = tmp_path / 'checkpoint.pth'
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_a_training_checkpoint_is_read_completely(tmp_path: Path, zipped: bool) -> None:
    saved = training_checkpoint()
    path = save(tmp_path, saved, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # else this test shows nothing

    loaded = load_torch(path)

    assert torch.equal(loaded['state_dict']['weight'], saved['state_dict']['weight'])
    assert loaded['meta'] == saved['meta']
    assert loaded['param_schedulers'] == saved['param_schedulers']
    assert loaded['message_hub']['runtime_info'] == saved['message_hub']['runtime_info']
    curve = loaded['message_hub']['log_scalars']['train/loss']
    assert type(curve) is ScalarHistory
    values, counts = saved['message_hub']['log_scalars']['train/loss'].data
    assert np.array_equal(curve.log_history, values)
    assert np.array_equal(curve.count_history, counts)
    assert curve.max_length == 1000000


def test_a_curve_without_values_is_read(tmp_path: Path) -> None:
    curve = load_torch(save(tmp_path, HistoryBuffer()))
    assert curve.log_history.shape == (0,)


def test_names_of_numpy_1_are_known(tmp_path: Path) -> None:
    modern = pickle.dumps({'score': np.float32(0.5), 'row': np.arange(3)}, protocol=2)
    program = Program()
    program.code = modern[:-1].replace(b'numpy._core.', b'numpy.core.')
    loaded = load_torch(program.save(tmp_path / 'numpy1.pth'))
    assert loaded['score'] == np.float32(0.5)
    assert np.array_equal(loaded['row'], [0, 1, 2])


@pytest.mark.parametrize(
    'array',
    [
        np.arange(30, dtype='>i2').reshape(2, 3, 5),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
        np.array(['walking', 'running']),
        np.array(3.0),
        np.zeros((0, 3)),
    ],
    ids=['big_endian', 'fortran', 'bool', 'text', 'scalar', 'empty'],
)
def test_arrays_survive(tmp_path: Path, array: np.ndarray) -> None:
    first, second = load_torch(save(tmp_path, (array, [array])))
    assert type(first) is np.ndarray
    assert first.dtype == array.dtype
    assert np.array_equal(first, array)
    assert second[0] is first  # shared before, shared after


# -- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize('attack', ATTACKS)
def test_the_attacks_work_where_they_are_allowed(tmp_path: Path, attack: Any) -> None:
    """Without this, the next test could pass on harmless files."""
    marker = tmp_path / 'executed'
    with contextlib.suppress(Exception):  # an attack need not end well, only act
        pickle.loads(attack(marker).code + b'.')
    assert marker.exists()


@pytest.mark.parametrize('attack', ATTACKS)
def test_nothing_in_a_file_is_executed(tmp_path: Path, attack: Any) -> None:
    marker = tmp_path / 'executed'
    path = attack(marker).save(tmp_path / 'hostile.pth')
    with pytest.raises(ValueError, match=r'hostile.pth is refused: it asks for (posix|getattr)'):
        load_torch(path)
    assert not marker.exists()


@pytest.mark.parametrize('attack', ATTACKS)
def test_nothing_is_executed_where_the_program_around_us_was_careless(
    tmp_path: Path, attack: Any
) -> None:
    marker = tmp_path / 'executed'
    path = attack(marker).save(tmp_path / 'hostile.pth')
    with torch.serialization.safe_globals([HistoryBuffer, getattr]):
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(ValueError, match='is refused'):
            load_torch(path)
        assert set(torch.serialization.get_safe_globals()) == before
    assert not marker.exists()


def test_what_others_allow_is_not_allowed_here(tmp_path: Path) -> None:
    path = save(tmp_path, {'rate': Fraction(1, 2)})
    with torch.serialization.safe_globals([Fraction]):
        torch.load(path, weights_only=True)  # else this test shows nothing
        with pytest.raises(ValueError, match=r'refused: it asks for fractions\.Fraction'):
            load_torch(path)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, np.array([{}, 'x'], dtype=object))
    with pytest.raises(ValueError, match="refused: it asks for an array of dtype 'O8'"):
        load_torch(path)


def test_a_structured_array_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, np.zeros(2, dtype=[('x', 'f4'), ('y', 'f4')]))
    with pytest.raises(ValueError, match="refused: it asks for an array of dtype 'V8'"):
        load_torch(path)


def test_an_own_class_is_refused_by_name(tmp_path: Path) -> None:
    path = save(tmp_path, {'model': Path('x')})
    with pytest.raises(ValueError, match=r'refused: it asks for pathlib\.'):
        load_torch(path)


@pytest.mark.parametrize(
    'state',
    [
        {'_log_history': np.zeros(2), '_count_history': np.zeros(3), 'max_length': 9},
        {'_log_history': np.zeros((2, 2)), '_count_history': np.zeros((2, 2)), 'max_length': 9},
        {'_log_history': np.zeros(2), '_count_history': np.zeros(2), 'max_length': 'many'},
        {'_log_history': [1.0], '_count_history': [1], 'max_length': 9},
        {'update': 'exec'},
    ],
    ids=['lengths', 'dimensions', 'max_length', 'lists', 'method'],
)
def test_a_curve_of_wrong_content_is_refused(tmp_path: Path, state: dict[str, Any]) -> None:
    curve = HistoryBuffer.__new__(HistoryBuffer)
    curve.__dict__.update(state)
    with pytest.raises(ValueError, match='refused: it asks for a HistoryBuffer'):
        load_torch(save(tmp_path, curve))


def test_a_file_that_doubles_itself_on_every_level_is_read_in_no_time(tmp_path: Path) -> None:
    nested: tuple = ()
    for _ in range(200):
        nested = (nested, nested)
    assert len(load_torch(save(tmp_path, nested))) == 2


# -- What is not a checkpoint ----------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'nowhere.pth does not exist'):
        load_torch(tmp_path / 'nowhere.pth')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty'),
        (b'<!DOCTYPE html>', r"is not a torch file: it begins with b'<!DOCTYP'"),
        (b'\x80\x02', 'is damaged or incomplete'),
        (pickle.dumps({'weight': 1}, protocol=4), 'holds pickle instruction 149'),
        (pickle.dumps({'weight': 1}, protocol=2), 'is damaged or incomplete'),
        (b'PK\x03\x04 and nothing more', 'is cut short'),
    ],
)
def test_other_files_than_checkpoints_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / 'other.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_torch(path)
    assert '\n' not in str(caught.value)


def test_a_folder_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='is not a file'):
        load_torch(tmp_path)


def test_a_zip_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / 'weights.npz', kernel=np.zeros(3))
    with pytest.raises(ValueError, match=r'zip archive that torch.save did not write'):
        load_torch(tmp_path / 'weights.npz')


@pytest.mark.parametrize('kept', [0.2, 0.5, 0.9])
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, zipped: bool, kept: float) -> None:
    path = save(tmp_path, training_checkpoint(), _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match=r'is (cut short|damaged or incomplete)') as caught:
        load_torch(path)
    assert '\n' not in str(caught.value)
