"""What pyproject.toml cannot say: configs/ and tools/ ride in the wheel, where OpenMMLab looks."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Build the package with `mmtimesformer/.mim/{configs,tools,model-index.yml}` inside.

    An editable install has the checkout itself and gets no `.mim`, which would be a stale copy.
    """

    def run(self):
        """Build, then copy what is shipped with the code."""
        super().run()
        if self.editable_mode:
            return
        mim = Path(self.build_lib) / 'mmtimesformer' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)  # an earlier build's configs, perhaps renamed since
        mim.mkdir(parents=True)
        for folder in ('configs', 'tools'):
            shutil.copytree(
                ROOT / folder, mim / folder, ignore=shutil.ignore_patterns('__pycache__', '*.pyc')
            )
        shutil.copy(ROOT / 'model-index.yml', mim)


setup(cmdclass={'build_py': BuildWithConfigs})
