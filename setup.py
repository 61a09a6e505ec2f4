"""Adds the interpreter start-up files to wheels and editable installs; all else stands in pyproject.toml.

``nnunet_attn.pth`` (and ``nnunet_attn.start``, PEP 829, for Python 3.15 and later) call ``register()`` of the copy of
``nnunet_attn/_startup.py`` that is put at the root of the wheel, so that starting Python imports nothing but ``os``.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).parent
MODULE = "_nnunet_attn_startup"


def write_startup_files(folder: Path, package: str) -> None:
    """Write the three files into ``folder``; ``package`` is the expression that gives the package's own folder."""
    source = (ROOT / "nnunet_attn" / "_startup.py").read_text(encoding="utf-8")
    (folder / f"{MODULE}.py").write_text(f"{source}\n\nPACKAGE = {package}\n", encoding="utf-8")
    (folder / "nnunet_attn.pth").write_text(f"import {MODULE}; {MODULE}.register()\n", encoding="utf-8")
    (folder / "nnunet_attn.start").write_text(f"{MODULE}:register\n", encoding="utf-8")


class BuildPy(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            write_startup_files(Path(self.build_lib), 'os.path.join(PACKAGE, "nnunet_attn")')


class EditableWheel(editable_wheel):
    def _configure_build(self, name, unpacked_wheel, build_lib, tmp_dir):
        super()._configure_build(name, unpacked_wheel, build_lib, tmp_dir)
        write_startup_files(Path(unpacked_wheel), repr(str(ROOT.resolve() / "nnunet_attn")))


setup(cmdclass={"build_py": BuildPy, "editable_wheel": EditableWheel})
