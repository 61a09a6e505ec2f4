"""How a row was trained and its cost: plans, schedule, recipe, hardware, time, memory, parameters, GMACs."""

import contextlib
import inspect
import io
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from nnunet_attn.comparison.results import NOT_RECORDED, Fold, Model
from nnunet_attn.comparison.rows import Row

GIB = 2**30
# Settings of the recipe, in the order shown: title, and the trainer's attribute in debug.json.
RECIPE = {
    "optimiser": "optimizer",
    "initial rate": "initial_lr",
    "weight decay": "weight_decay",
    "rate schedule": "lr_scheduler",
    "deep supervision": "enable_deep_supervision",
    "oversampling": "oversample_foreground_percent",
}


@dataclass
class Facts:
    """Settings and cost of one row; None where nothing was recorded.

    Attributes:
        plans: Patch size, batch size, spacing and network in the plans.
        schedule: (epochs, iterations per epoch) as planned, and the mirroring axes used at prediction.
        recipe: Settings by title, see ``RECIPE``.
        environment: GPU or CPU, version of torch, and for our trainers of more packages; sets, since folds may differ.
        epoch_seconds: Median over all logged epochs of the folds that are compared.
        hours: Sum of all logged epochs of those folds, over all repeats.
        trainings: Number of those folds, over all repeats.
        peak_allocated, peak_reserved: GPU memory in GiB, largest of all folds; only our trainers record it.
        parameters, gmacs: Counts of the network at the plans' patch size; ``cost_problem`` says why they are missing.
        varying: Titles of settings that are not the same in all folds.
    """

    plans: dict[str, object]
    schedule: tuple[int, int] | None = None
    mirroring: str | None = None
    recipe: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    pretrained: str = NOT_RECORDED
    epoch_seconds: float | None = None
    hours: float | None = None
    trainings: int = 0
    peak_allocated: float | None = None
    peak_reserved: float | None = None
    parameters: int | None = None
    gmacs: float | None = None
    cost_problem: str | None = None
    varying: list[str] = field(default_factory=list)


def _plans(model: Model) -> dict[str, object]:
    settings = model.settings
    network = settings.get("architecture", {}).get("network_class_name", NOT_RECORDED)
    return {
        "patch": settings.get("patch_size"),
        "batch": settings.get("batch_size"),
        "spacing": settings.get("spacing"),
        "preprocessed data": settings.get("data_identifier"),
        "network in the plans": network.rpartition(".")[2],
    }


def _plain(text: str) -> str:
    """The name in a Python repr: ``SGD (...`` -> SGD, ``<pkg.PolyLRScheduler object at ...>`` -> PolyLRScheduler."""
    if found := re.match(r"<(?:[\w.]*\.)?(\w+) object", text):
        return found[1]
    return text.split("(")[0].strip() or text


def _sessions(fold: Fold) -> list[dict]:
    return fold.record.get("sessions", [])


def _pretrained(fold: Fold) -> str:
    content = fold.record.get("pretrained", fold.settings.get("pretrained", NOT_RECORDED))
    return content["file"] if isinstance(content, dict) else str(content)


def _setting(fold: Fold, key: str) -> str | None:
    return _plain(fold.settings[key]) if key in fold.settings else None


def read_facts(row: Row, used: Sequence[str]) -> Facts:
    """Collect what the compared folds of all repeats of a row have recorded.

    Args:
        row: The row.
        used: Folds whose scores are compared, so that cost and scores belong to the same trainings. For a test set,
            which all folds predict together, the folds that every training has completed.
    """
    folds = row.folds(used)
    varying = []

    def common(title: str, read: Callable[[Fold], str | None]) -> str | None:
        values = list(dict.fromkeys(v for v in map(read, folds) if v is not None))
        if len(values) > 1:
            varying.append(title)
        return " / ".join(values) if values else None

    epochs = common("epochs", lambda f: f.settings.get("num_epochs"))
    iterations = common("iterations", lambda f: f.settings.get("num_iterations_per_epoch"))
    known = epochs and iterations and epochs.isdigit() and iterations.isdigit()
    recipe = {title: common(title, partial(_setting, key=key)) for title, key in RECIPE.items()}
    environment = {
        "GPU": common("GPU", lambda f: f.settings.get("gpu_name") or ("none (CPU)" if _on_cpu(f) else None)),
        "torch": common("torch", lambda f: f.settings.get("torch_version")),
        "nnunetv2": common("nnunetv2", lambda f: _packages(f).get("nnunetv2")),
        "nnunet-attn": common("nnunet-attn", lambda f: _packages(f).get("nnunet-attn")),
        "git revision": common("git revision", lambda f: _last_environment(f).get("git_revision")),
        "compiled": common("compiled", lambda f: _text(f.record.get("compiled"))),
        "processes": common("processes", lambda f: _text(f.record.get("processes"))),
    }
    seconds = [s for fold in folds for s in fold.epoch_seconds.values()]
    peaks = {
        key: [s[key] for fold in folds for s in _sessions(fold) if s.get(key)]
        for key in ("peak_memory_allocated", "peak_memory_reserved")
    }
    return Facts(
        plans=_plans(row.model),
        schedule=(int(epochs), int(iterations)) if epochs and iterations and known else None,
        mirroring=common("mirroring", lambda f: f.settings.get("inference_allowed_mirroring_axes")),
        recipe={title: value or NOT_RECORDED for title, value in recipe.items()},
        environment={title: value or NOT_RECORDED for title, value in environment.items()},
        pretrained=common("encoder weights", _pretrained) or NOT_RECORDED,
        epoch_seconds=statistics.median(seconds) if seconds else None,
        hours=sum(seconds) / 3600 if seconds else None,
        trainings=len(folds),
        peak_allocated=max(peaks["peak_memory_allocated"]) / GIB if peaks["peak_memory_allocated"] else None,
        peak_reserved=max(peaks["peak_memory_reserved"]) / GIB if peaks["peak_memory_reserved"] else None,
        varying=varying,
    )


def _on_cpu(fold: Fold) -> bool:
    return fold.settings.get("device") == "cpu"


def _last_environment(fold: Fold) -> dict:
    sessions = _sessions(fold)
    return sessions[-1].get("environment", {}) if sessions else {}


def _packages(fold: Fold) -> dict:
    return _last_environment(fold).get("packages", {})


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def measure_network(model: Model, facts: Facts) -> None:
    """Build the row's network on the device "meta", as nnU-Net builds it for prediction, and count.

    Any error (a trainer that is not installed here, a network that needs a GPU) goes into ``facts.cost_problem``; the
    comparison goes on.
    """
    import torch
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_attn.complexity import gmacs

    try:
        plans = PlansManager(model.plans)
        configuration = plans.get_configuration(model.configuration)
        channels = determine_num_input_channels(plans, configuration, model.dataset)
        heads = plans.get_label_manager(model.dataset).num_segmentation_heads
        with contextlib.redirect_stdout(io.StringIO()):
            build = recursive_find_trainer_class_by_name(model.trainer).build_network_architecture
            with torch.device("meta"):
                if "plans_manager" in inspect.signature(build).parameters:
                    network = build(plans, configuration, channels, heads, enable_deep_supervision=False)
                else:
                    network = build(
                        configuration.network_arch_class_name,
                        configuration.network_arch_init_kwargs,
                        configuration.network_arch_init_kwargs_req_import,
                        channels,
                        heads,
                        enable_deep_supervision=False,
                    )
        facts.parameters = sum(p.numel() for p in network.parameters())
        facts.gmacs = gmacs(network, configuration.patch_size, channels)
    except Exception as error:  # trainers of others may raise anything
        facts.cost_problem = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
