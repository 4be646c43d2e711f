"""Download checkpoints from the web, the Hugging Face Hub and timm, once, and verify their hash.

=================================  ===============================================================
``weights.pth``, a folder          as it is
``https://…/weights.pth``          downloaded once; ``#sha256=…`` at the end is verified
``hf://owner/name``                the repository's weights and configs, through huggingface_hub
``hf://owner/name/file``           one file of it; ``@revision`` after the name picks one (below)
``timm://vit_base_patch16_224…``   the file that timm names for this model
=================================  ===============================================================

A revision is a branch, a tag or a commit, or ``refs/pr/N`` for a pull request. As in
huggingface_hub, a slash in the name of a branch is written ``%2F``, since the rest names a file:
``hf://owner/name@feature%2Fx/model.safetensors``. A download that fails leaves no file.
"""

import hashlib
import importlib
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import ModuleType

from mmtimesformer.checkpoints.readers import FOLDER_FILES
from mmtimesformer.fileio.atomic import write_atomically
from mmtimesformer.fileio.safe_text import read_json
from mmtimesformer.terminal import echo

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte
REVISION = r'refs/pr/\d+|refs/convert/[\w.-]+|[^/@]+'


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint is named by an address and not by a path."""
    return str(source).startswith(('http://', 'https://', 'hf://', 'timm://'))


def model_address(name: str | os.PathLike[str]) -> str:
    """Return where a model is: a path that exists, an address, or ``owner/name`` on the hub.

    Raises:
        FileNotFoundError: It is none of these.

    Example:
        >>> model_address('facebook/timesformer-base-finetuned-k400')
        'hf://facebook/timesformer-base-finetuned-k400'
    """
    text = str(name)
    if is_remote(text) or Path(text).expanduser().exists():
        return text
    if re.fullmatch(rf'[\w.-]+/[\w.-]+(@({REVISION}))?', text) and not text.startswith('.'):
        return f'hf://{text}'
    raise FileNotFoundError(
        f'{text} is not a folder or file here, and not owner/name of a repository on the Hugging '
        'Face Hub; correct it'
    )


def fetch(source: str | os.PathLike[str], sha256: str | None = None) -> Path:
    """Download a checkpoint if it is an address and not here yet; return its path.

    Args:
        source: See above.
        sha256: Hash of the file, its first 8 or more digits; verified also for a local file.

    Raises:
        ValueError: The hash differs, the download failed, or an extra package is missing.
    """
    text = re.sub(r'^([A-Za-z][A-Za-z0-9+.-]+):/(?=[^/])', r'\1://', str(source))
    is_address = re.match('[A-Za-z][A-Za-z0-9+.-]+://', text)
    if is_address and not is_remote(text) and not Path(source).exists():
        raise FileNotFoundError(
            f'checkpoint {text} is an address of a kind that is not fetched (https://, '
            'http://, hf:// and timm:// are); download it first and give the path of the file'
        )
    scheme, _, rest = text.partition('://') if is_remote(text) else ('', '', '')
    if scheme in ('http', 'https'):
        return _download(text, sha256)
    if scheme == 'hf':
        path = _fetch_huggingface(rest)
    elif scheme == 'timm':
        path = _fetch_timm(rest)
    else:
        path = Path(source).expanduser()
    if sha256 is not None:
        _verify(path, sha256)
    return path


def cache_folder() -> Path:
    """Return the folder of downloads: ``$MMTIMESFORMER_CACHE``, or ``~/.cache/mmtimesformer``."""
    folder = os.environ.get('MMTIMESFORMER_CACHE')
    return Path(folder) if folder else Path('~/.cache/mmtimesformer').expanduser()


def _download(url: str, sha256: str | None) -> Path:
    address, _, fragment = url.partition('#')
    if fragment.startswith('sha256='):
        sha256 = fragment.removeprefix('sha256=')
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(address).path)).name or 'checkpoint'
    path = cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:12] / name
    if not path.is_file():
        try:
            _download_to(address, path, sha256)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise ValueError(
                f'cannot download {address} ({error}); check the address and the connection, or '
                'download it by other means and give the path'
            ) from error
    elif sha256 is not None:
        _verify(path, sha256)
    return path


def _download_to(address: str, path: Path, sha256: str | None) -> None:
    # NOTE: torch.hub.download_url_to_file waits without a limit, and takes half a file for all.
    _check_hash_form(sha256)
    digest, done = hashlib.sha256(), 0
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer, write_atomically(path) as part:
        size = int(answer.headers.get('Content-Length') or 0)
        with part.open('wb') as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                _show_progress(path.name, done, size)
        if size and done < size:
            raise ValueError(
                f'the download of {address} broke off after {done} of {size} bytes; try again'
            )
        _compare(address, digest.hexdigest(), sha256)


def _show_progress(name: str, done: int, size: int) -> None:
    of = f' of {size / 1e6:.1f} MB ({done / size:.0%})' if size else ' MB'
    end = '\n' if done == size else ''
    print('\r', end='', file=sys.stderr)
    echo(f'downloading {name}: {done / 1e6:.1f}{of}', end=end, file=sys.stderr, flush=True)


def _verify(path: Path, sha256: str) -> None:
    _check_hash_form(sha256)
    if not path.is_file():
        raise ValueError(f'a hash is given for {path}, which is not one file; leave it out')
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    _compare(str(path), digest.hexdigest(), sha256)


def _compare(what: str, has: str, wanted: str | None) -> None:
    if wanted is not None and not has.startswith(wanted.lower()):
        raise ValueError(
            f'{what} has the SHA-256 {has}, but {wanted} is wanted: it is another file, or was '
            'changed on its way; get it again, or correct the hash'
        )


def _check_hash_form(sha256: str | None) -> None:
    if sha256 is not None and not re.fullmatch(r'[0-9a-fA-F]{8,64}', sha256):
        raise ValueError(f'sha256={sha256!r} is not a hash; give 8 to 64 hexadecimal digits')


def _fetch_huggingface(rest: str) -> Path:
    hub = import_extra('huggingface_hub', f'hf://{rest}')
    match = re.fullmatch(rf'([^/@]+/[^/@]+)(?:@({REVISION}))?(?:/(.+))?', rest)
    if match is None:
        raise ValueError(
            f'hf://{rest} is not a repository; write hf://owner/name or hf://owner/name/file'
        )
    repository, revision, file = match.groups()
    revision = revision and urllib.parse.unquote(revision)
    try:
        if file is not None:
            return Path(hub.hf_hub_download(repository, file, revision=revision))
        files = hub.HfApi().list_repo_files(repository, revision=revision)
        weights = next((name for name in FOLDER_FILES if name in files), None)
        if weights is None:
            raise ValueError(
                f'hf://{rest} has none of {", ".join(FOLDER_FILES)} at its top; name the file: '
                f'hf://{repository}/FILE'
            )
        wanted = ['config.json', '*preprocessor_config.json', weights]
        if weights.endswith('.index.json'):
            stem, suffix = weights.removesuffix('.index.json').rsplit('.', 1)
            wanted.append(f'{stem}-*.{suffix}')
        folder = hub.snapshot_download(repository, revision=revision, allow_patterns=wanted)
        return Path(folder)
    except ValueError:
        raise
    except Exception as error:  # The hub's errors have no common parent.
        if file is None and (cached := _cached_snapshot(hub, repository, revision)):
            echo(f'the hub cannot be reached: using the copy of hf://{rest} here', file=sys.stderr)
            return cached
        raise ValueError(
            f'cannot download hf://{rest} ({type(error).__name__}: {error}); check the name and '
            'the connection, or download it by other means and give the path'
        ) from error


def _cached_snapshot(hub: ModuleType, repository: str, revision: str | None) -> Path | None:
    """Return the folder of a repository that was downloaded earlier, with all its weights."""
    try:
        found = hub.snapshot_download(repository, revision=revision, local_files_only=True)
    except Exception:  # as above
        return None
    folder = Path(found)
    weights = next((name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if weights is None or not (folder / 'config.json').is_file():
        return None
    if not weights.endswith('.index.json'):
        return folder
    parts = read_json(folder / weights)['weight_map'].values()
    return folder if all((folder / Path(name).name).is_file() for name in parts) else None


def _fetch_timm(name: str) -> Path:
    timm = import_extra('timm', f'timm://{name}')
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        config = None
    if config is None:
        raise ValueError(
            f'timm://{name} is not a model that timm has weights of; timm.list_pretrained() lists '
            'those it has'
        )
    hub_id = getattr(config, 'hf_hub_id', None)
    if hub_id:
        if hub_id.endswith('/'):
            tag = getattr(config, 'tag', '')
            hub_id += f'{config.architecture}.{tag}' if tag else config.architecture
        return fetch(f'hf://{hub_id}')
    if not getattr(config, 'url', None):
        raise ValueError(f'timm has no file for timm://{name}; choose another tag of this model')
    return fetch(config.url)


def import_extra(package: str, source: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: Its name.
        source: What needs it, for the message.

    Raises:
        ValueError: It cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except Exception as error:  # with another torchvision than it expects, timm fails in many ways
        raise ValueError(
            f'{source} needs the package {package}, which cannot be imported here ({error}); run '
            f'`pip install {package}`, or download the file and give its path'
        ) from error
