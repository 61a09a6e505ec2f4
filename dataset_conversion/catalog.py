"""The datasets that ``nnunet-attn convert`` knows, as data. Standard library only, so that ``--help`` is fast.

One ``Dataset`` feeds the command's help, the README, and dataset.json. Licences are quoted where the dataset's own page
states one that could be read; all others say ``SEE_PAGE``. The conversion itself is the module of the same name.
"""

from dataclasses import dataclass, field
from typing import Any

SEE_PAGE = "see the dataset's page"


@dataclass(frozen=True)
class Option:
    """An argument that only one dataset's command has; ``arguments`` go to argparse's ``add_argument``."""

    flag: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    Attributes:
        title: Full name.
        folder: The NAME in DatasetXXX_NAME, unless ``--name`` is given.
        number: Dataset number used in examples; any other works.
        page: Address of the download page.
        access: What access requires, such as an account.
        licence: Licence or terms of use.
        reference: Publication to cite.
        contents: Description of the complete download.
        cases: Numbers of cases in complete downloads.
        layouts: The arrangements of files that are recognised.
        splits: Official splits by name, each with a description.
        options: Arguments that only this dataset's command has.
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


_TENTHS = "80 % for training, 10 % for validation, 10 % for testing; our own seeded draw (the papers' is not public)"

_SPACING = Option(
    "--spacing",
    {
        "nargs": 3,
        "type": float,
        "metavar": ("X", "Y", "Z"),
        "help": "voxel size along x, y, z in mm, for repackaged files, which lack it (default: 1 mm, noted as unknown)",
    },
)

_NUMBERS = Option(
    "--original-numbers",
    {
        "action": "store_true",
        "help": "the files of this repackaged copy kept the original's numbers, so the numbers tell the sequences",
    },
)

DATASETS = {
    "synapse": Dataset(
        title="Synapse multi-organ CT (BTCV, MICCAI 2015 Multi-Atlas Abdomen Labeling)",
        folder="Synapse",
        number=29,
        page="https://www.synapse.org/Synapse:syn3193805",
        access="account, and agreement to the terms",
        licence=SEE_PAGE,
        reference="Landman et al., MICCAI 2015 Multi-Atlas Labeling Beyond the Cranial Vault: workshop and challenge, "
        "Synapse:syn3193805",
        contents="30 labelled CT volumes. Labels: aorta, gallbladder, left and right kidney, liver, pancreas, spleen, "
        "stomach, or all 13 organs with --organs 13",
        cases=(30,),
        layouts="RawData/Training/img/imgXXXX.nii.gz with label/labelXXXX.nii.gz, or TransUNet's files: "
        "caseXXXX_sliceYYY.npz and caseXXXX.npy.h5 (needs h5py: the extra [hdf5])",
        splits={"transunet": "18 volumes for training, 12 for testing, as in TransUNet and its successors"},
        options=(
            Option(
                "--organs", {"type": int, "choices": (8, 13), "default": 8, "help": "labels (default: %(default)s)"}
            ),
            Option(
                "--label-order",
                {
                    "choices": ("transunet", "cascade", "btcv"),
                    "help": "order of the labels in repackaged files; required unless an id above 8 shows it is btcv",
                },
            ),
            _SPACING,
        ),
    ),
    "acdc": Dataset(
        title="ACDC, Automated Cardiac Diagnosis Challenge (cine MRI)",
        folder="ACDC",
        number=27,
        page="https://www.creatis.insa-lyon.fr/Challenge/acdc/",
        access="registration",
        licence=f"{SEE_PAGE} (mirrors quote CC BY-NC-SA 4.0)",
        reference="Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018, doi:10.1109/TMI.2018.2837502",
        contents="100 training and 50 test patients, two labelled frames each: 200 and 100 cases. "
        "Labels: right ventricle, myocardium, left ventricle",
        cases=(200, 300),
        layouts="patientXXX/ folders with Info.cfg, patientXXX_frameYY.nii.gz and patientXXX_frameYY_gt.nii.gz, "
        "under training/ and testing/ or alone; or SSL4MIS's patientXXX_frameYY.h5 (needs h5py: the extra [hdf5])",
        splits={
            "A": "70/10/20 patients of the 100, as TransUNet's and MT-UNet's successors use it; one fold",
            "B": "70/10/20 patients of the 100, as SSL4MIS has it; one fold. Results on A and B cannot be compared",
        },
        options=(_SPACING,),
    ),
    "clinicdb": Dataset(
        title="CVC-ClinicDB (colonoscopy frames)",
        folder="ClinicDB",
        number=31,
        page="https://polyp.grand-challenge.org/CVCClinicDB/",
        access="registration",
        licence=SEE_PAGE,
        reference="Bernal et al., Computerized Medical Imaging and Graphics 43, 2015, "
        "doi:10.1016/j.compmedimag.2015.02.007",
        contents="612 frames of 29 sequences, 384x288. Label: polyp",
        cases=(612,),
        layouts="Original/ with Ground Truth/ (tif or png); or images/ with masks/ (sequences unknown: folds need "
        "--groups)",
        splits={
            "8-1-1": f"{_TENTHS}; no sequence is divided, a study may be (29 sequences of 25 studies)",
            "pranet": "PraNet's 62 test frames. This split leaks: 26 of the 29 sequences are "
            "in both training and test set",
        },
        options=(_NUMBERS,),
    ),
    "colondb": Dataset(
        title="CVC-ColonDB (colonoscopy frames)",
        folder="ColonDB",
        number=32,
        page="http://mv.cvc.uab.es/projects/colon-qa/cvccolondb",
        access="see the page",
        licence=SEE_PAGE,
        reference="Bernal, Sánchez, Vilariño, Pattern Recognition 45(9), 2012, doi:10.1016/j.patcog.2012.03.002",
        contents="380 frames, 574x500; 300 in the first release (15 sequences). Label: polyp",
        cases=(300, 380),
        layouts="the original: N.tiff (or .bmp) with pN in one folder; or images/ with masks/ (sequences unknown: "
        "folds need --groups)",
        splits={
            "8-1-1": f"{_TENTHS}; no sequence is divided",
            "pranet": "all 380 frames for testing and none for training: predict them with a model of another "
            "dataset (the published list of PraNet's test names lacks 77 to 97, its test set has them)",
        },
        options=(_NUMBERS,),
    ),
    "isic2017": Dataset(
        title="ISIC 2017 part 1 (dermoscopy)",
        folder="ISIC2017",
        number=33,
        page="https://challenge.isic-archive.com/data/#2017",
        access="open",
        licence=SEE_PAGE,
        reference="Codella et al., Skin lesion analysis toward melanoma detection: a challenge at the 2017 ISBI, "
        "arXiv:1710.05006",
        contents="2000 training, 150 validation, 600 test pictures of 0.4 to over 20 megapixels. Label: lesion",
        cases=(2750,),
        layouts="folders ISIC-2017_{Training,Validation,Test_v2}_Data and _Part1_GroundTruth, or their six archives",
        splits={"official": "2000 training, 150 validation (the one fold), 600 test pictures"},
    ),
    "kvasir": Dataset(
        title="Kvasir-SEG (gastroscopy and colonoscopy)",
        folder="KvasirSEG",
        number=34,
        page="https://datasets.simula.no/kvasir-seg/",
        access="open",
        licence=SEE_PAGE,
        reference="Jha et al., Kvasir-SEG: a segmented polyp dataset, MultiMedia Modeling 2020, arXiv:1911.07069",
        contents="1000 pictures of 332x487 to 1920x1072, JPEG masks. Label: polyp",
        cases=(1000,),
        layouts="images/ with masks/",
        splits={
            "8-1-1": f"{_TENTHS}; which pictures show the same polyp is not published",
            "colonsegnet": "the authors' 880 for training and 120 for testing",
            "pranet": "PraNet's 100 test pictures, the other 900 for training",
        },
    ),
    "glas": Dataset(
        title="GlaS, gland segmentation in colon histology (H&E)",
        folder="GlaS",
        number=35,
        page="https://glas.grand-challenge.org/Dataset",
        access="registration",
        licence="for research only, no commercial use (as its page says)",
        reference="Sirinukunwattana et al., Medical Image Analysis 35, 2017, doi:10.1016/j.media.2016.08.008",
        contents="85 training, 60 + 20 test pictures (A, B), with numbered instances and Grade.csv. Label: gland",
        cases=(165,),
        layouts="train_N.bmp, testA_N.bmp, testB_N.bmp with *_anno.bmp, and Grade.csv, in one folder",
        splits={
            "official": "85 training and 80 test pictures; the default, with the count checked. This split "
            "leaks: some patients are in both training and test set"
        },
    ),
    "monuseg": Dataset(
        title="MoNuSeg 2018, nuclei of several organs (H&E)",
        folder="MoNuSeg",
        number=36,
        page="https://monuseg.grand-challenge.org/Data/",
        access="open",
        licence=f"{SEE_PAGE} (mirrors quote CC BY-NC-SA 4.0)",
        reference="Kumar et al., IEEE Transactions on Medical Imaging 36(7), 2017, doi:10.1109/TMI.2017.2677499, and "
        "39(5), 2020, doi:10.1109/TMI.2019.2947628",
        contents="30 training tiles (37 as distributed today) and 14 test tiles of 1000x1000. Label: nucleus",
        cases=(44, 51),
        layouts="Tissue Images/*.tif with Annotations/*.xml, and test tiles with .tif and .xml in one folder",
        splits={"official": "30 or 37 training and 14 test tiles; the default, with the count checked"},
    ),
}

OWN_PICTURES = Dataset(
    title="Pictures and masks of your own (2D)",
    folder="Pictures",
    number=40,
    page="your own",
    access="your own",
    licence="your own",
    reference="your own",
    contents="PNG, JPEG, BMP or TIFF pictures of any sizes, RGB or grey, with masks",
    cases=(),
    layouts="pictures and masks that pair by name",
)
OWN_VOLUMES = Dataset(
    title="Volumes and label maps of your own (3D)",
    folder="Volumes",
    number=41,
    page="your own",
    access="your own",
    licence="your own",
    reference="your own",
    contents="NIfTI, NRRD or MHA volumes of one or several channels, with label maps",
    cases=(),
    layouts="volumes and label maps that pair by name",
)
