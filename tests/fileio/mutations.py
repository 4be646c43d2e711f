"""Change files at random, from a seed: bytes, and instructions of pickles."""

import io
import json
import pickletools
import random
import re
import zipfile

from tests.cases.hostile import doubled, name, nested, text

NAMES = (
    ('os', 'system'), ('builtins', 'eval'), ('builtins', 'getattr'), ('builtins', 'set'),
    ('collections', 'OrderedDict'), ('collections', 'Counter'), ('torch', 'float32'),
    ('torch', 'Size'), ('torch', 'FloatStorage'), ('torch', 'device'), ('numpy', 'dtype'),
    ('torch._utils', '_rebuild_tensor_v2'), ('torch._utils', '_rebuild_tensor_v3'),
    ('torch._utils', '_rebuild_parameter'), ('torch._tensor', '_rebuild_from_type_v2'),
    ('torch.storage', '_load_from_bytes'), ('_codecs', 'encode'), ('pathlib', 'PosixPath'),
    ('numpy.core.multiarray', '_reconstruct'), ('numpy.core.multiarray', 'scalar'),
    ('mmengine.logging.history_buffer', 'HistoryBuffer'), ('copyreg', '_reconstructor'),
    ('torch.distributed.checkpoint.metadata', 'Metadata'),
    ('torch.distributed.checkpoint.metadata', 'MetadataIndex'),
    ('torch.distributed.checkpoint.metadata', '_MEM_FORMAT_ENCODING'),
)  # fmt: skip
STEPS = (b'R', b'b', b'\x81', b'0', b'(', b't', b'e', b'u', b's', b'a', b'\x86', b')', b'}', b']',
         b'N', b'\x88', b'Q', b'K\x01', b'J\xff\xff\xff\xff', b'\x8a\x08' + b'\xff' * 7 + b'\x7f',
         b'h\x00', b'h\x01', b'q\x01', b'G\x7f\xf0' + b'\0' * 6)  # fmt: skip
WORDS = ('', '-1', '0', '99999999999', '1e999', 'NaN', 'null', '[]', '{}', '"x"', '[[[]]]', 'true',
         '[' * 2000, '"\\ud800"', "__import__('os')", '(' * 300, '-' * 5000 + '1')  # fmt: skip


def bytes_changed(content: bytes, chance: random.Random) -> bytes:
    """Flip, insert, remove, repeat or cut bytes at one to four places."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(6)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at:at] = chance.randbytes(chance.randint(1, 8))
        elif kind == 2:
            del changed[at : at + chance.choice((1, 2, 8, 100))]
        elif kind == 3:
            changed[at:at] = changed[at : at + chance.randint(1, 200)]
        elif kind == 4 and changed:
            changed[at % len(changed)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 5 and chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def text_changed(content: bytes, chance: random.Random) -> bytes:
    """Put other values in the place of numbers and words, and change bytes."""
    found = list(re.finditer(rb'-?\d+(\.\d+)?|"[^"]*"|\'[^\']*\'|\btrue\b|\bNone\b', content))
    if not found or chance.random() < 0.3:
        return bytes_changed(content, chance)
    for match in sorted(chance.sample(found, min(len(found), chance.randint(1, 3))), key=_start):
        word = chance.choice(WORDS).encode('utf-8', 'surrogatepass')
        content = content.replace(match[0], word, 1)
    return content


def _start(match: re.Match[bytes]) -> int:
    return -match.start()


def pickle_changed(content: bytes, chance: random.Random) -> bytes:
    """Put other instructions between, or in the place of, those of a pickle."""
    if chance.random() < 0.2:
        return bytes_changed(content, chance)
    places = [place for _, _, place in pickletools.genops(content) if place is not None]
    for _ in range(chance.randint(1, 3)):
        at = chance.choice(places[1:])
        content = content[:at] + _program(chance) + content[at:]
        if chance.random() < 0.5:  # what stood there is left out
            after = at + chance.choice((1, 2, 3, 5))
            content = content[:at] + content[after:]
        places = [place for place in places if place <= at] or [0, 0]
        if len(places) < 2:
            places = [0, at]
    return content


def _program(chance: random.Random) -> bytes:
    kind = chance.randrange(8)
    if kind == 0:
        return name(*chance.choice(NAMES))
    if kind == 1:
        return doubled(chance.choice((20, 100)))
    if kind == 2:
        return nested(chance.choice((10, 2000)))
    if kind == 3:  # a call with arguments
        arguments = b''.join(chance.choice(STEPS) for _ in range(chance.randrange(4)))
        return name(*chance.choice(NAMES)) + b'(' + arguments + b'tR'
    if kind == 4:  # a change of whatever is there
        return b'}(' + text(chance.choice(('__defaults__', '_metadata', 'x'))) + doubled(40) + b'ub'
    if kind == 5:  # a key that is nested
        return b'}(' + doubled(60) + b'K\x01u'
    if kind == 6:
        return text(chance.choice(('state_dict', 'model', 'cls_token', 'x' * 5000)))
    return b''.join(chance.choice(STEPS) for _ in range(chance.randint(1, 5)))


def zip_changed(content: bytes, chance: random.Random) -> bytes:
    """Change a file of torch or NumPy: its bytes, its pickle, or a member, packed again."""
    if chance.random() < 0.2:
        return bytes_changed(content, chance)
    target = io.BytesIO()
    method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, 'w', method) as new:
        names = old.namelist()
        pickled = [member for member in names if member.endswith('data.pkl')]
        chosen = pickled[0] if pickled and chance.random() < 0.8 else chance.choice(names)
        for member in names:
            data = old.read(member)
            if member == chosen:
                is_pickle = member.endswith('data.pkl')
                data = (pickle_changed if is_pickle else bytes_changed)(data, chance)
            new.writestr(member, data)
    return target.getvalue()


def safetensors_changed(content: bytes, chance: random.Random) -> bytes:
    """Change the header, as text, and set its length right."""
    length = int.from_bytes(content[:8], 'little')
    if chance.random() < 0.3:
        return bytes_changed(content, chance)
    header = text_changed(content[8 : 8 + length], chance)
    return len(header).to_bytes(8, 'little') + header + content[8 + length :]


def json_changed(content: bytes, chance: random.Random) -> bytes:
    """Put a value of another kind somewhere into JSON."""
    if chance.random() < 0.4:
        return text_changed(content, chance)
    value = json.loads(content)
    inner = value
    while isinstance(inner, dict) and inner:
        key = chance.choice(list(inner))
        if not isinstance(inner[key], dict) or not inner[key] or chance.random() < 0.3:
            inner[key] = chance.choice(
                (None, [], {}, 1, -1, 10**30, 'x', ['a'], {'a': 1}, [[1]], True, 1.5, 'a\0b')
            )
            break
        inner = inner[key]
    return json.dumps(value).encode()
