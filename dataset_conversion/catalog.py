"""The datasets that ``nnunet-attn convert`` knows, as data. Standard library only, so that ``--help`` is fast.

One ``Dataset`` feeds the command's help, the README, and dataset.json. Licences are quoted where the dataset's own page
states one that could be read; all others say ``SEE_PAGE``. The conversion itself is the module of the same name.
"""

from dataclasses import dataclass, field

SEE_PAGE = "see the dataset's page"


@dataclass(frozen=True)
class Option:
    """An argument that one dataset's command has beyond the common ones; ``arguments`` are argparse's."""

    flag: str
    arguments: dict[str, object]


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    Attributes:
        title: Its name in words.
        folder: Name after nnU-Net's number, unless ``--name`` is given.
        number: The number in the examples; any other will do.
        page: Where to get it.
        access: What getting it takes.
        licence: Its licence or terms.
        reference: What to cite.
        contents: What the complete download holds.
        cases: Numbers of cases that complete downloads convert to.
        layouts: The arrangements of files that are recognised.
        splits: Official splits, with what they hold out and what to know about them.
        options: Arguments beyond the common ones.
    """

    title: str
    folder: str
    number: int
    page: str
    access: str
    licence: str
    reference: str
    contents: str
    cases: tuple[int, ...]
    layouts: str
    splits: dict[str, str] = field(default_factory=dict)
    options: tuple[Option, ...] = ()

    def command(self, key: str) -> str:
        """An example."""
        return f"nnunet-attn convert {key} SOURCE {self.number}"


DATASETS = {
    "acdc": Dataset(
        title="ACDC, Automated Cardiac Diagnosis Challenge (cine MRI)",
        folder="ACDC",
        number=27,
        page="https://www.creatis.insa-lyon.fr/Challenge/acdc/",
        access="registration",
        licence=SEE_PAGE,
        reference="Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018, doi:10.1109/TMI.2018.2837502",
        contents="100 training and 50 test patients, two labelled frames each: 200 and 100 cases. "
        "Labels: 1 right ventricle, 2 myocardium, 3 left ventricle",
        cases=(200, 300),
        layouts="patientXXX/ folders with Info.cfg, patientXXX_frameYY.nii.gz and patientXXX_frameYY_gt.nii.gz, "
        "under training/ and testing/ or alone",
        splits={
            "A": "70/10/20 patients of the 100, as TransUNet's and MT-UNet's successors use it; one fold",
            "B": "70/10/20 patients of the 100, as SSL4MIS has it; one fold. Results on A and B do not compare",
        },
    ),
}
