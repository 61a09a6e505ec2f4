"""The studies of the papers' tables, as files; ``nnunet-attn study list`` shows them."""

from pathlib import Path

PAPERS = Path(__file__).parent


def paper_studies() -> dict[str, Path]:
    """The study files by name."""
    return {path.stem: path for path in sorted(PAPERS.glob("*.yaml"))}


def find_study(given: Path) -> Path:
    """The file that a user names: a path, or a study of this package by its name."""
    return given if given.exists() else paper_studies().get(str(given), given)


def list_text() -> str:
    """Each study with what its file's first line says."""
    lines = []
    for name, path in paper_studies().items():
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"{name}: {title}")
    return "\n".join([*lines, "", "nnunet-attn study check NAME says what data a study needs and where to get it"])
