"""Tell all about one trainer: network and its arguments, recipe, cost, and what its name means.

NAME is any trainer's name, with whatever suffixes. With --memory also what a training keeps for the backward pass,
which is counted and so takes seconds.
"""

import argparse
from typing import Any

from nnunet_attn.catalog import ENTRIES

HELP = "tell all about one trainer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one object, as an entry of list --json")
    parser.add_argument("--memory", action="store_true", help="count the memory that is kept for the backward pass")
    parser.add_argument("name", metavar="NAME", help="for example nnUNetTrainerDCAUNet_lambda05_SGD_100epochs")


def run(options: argparse.Namespace) -> None:
    import difflib

    from nnunet_attn.catalog import STOCK
    from nnunet_attn.citations import CITATIONS
    from nnunet_attn.errors import UserError
    from nnunet_attn.lookup import find_entry, find_family, written_trainers
    from nnunet_attn.report.paper_differences import paper_differences
    from nnunet_attn.trainer_names import describe_trainer, parse_trainer_name, twin_names, unreadable_suffixes

    parsed = parse_trainer_name(options.name)
    if parsed is None or parsed.family is None:
        if reason := unreadable_suffixes(options.name):
            raise UserError(reason)
        near = difflib.get_close_matches(options.name, [name for name, _ in written_trainers()], 3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; see nnunet-attn list"
        raise UserError(f"{options.name} is not one of our trainers{hint}")

    if options.json:
        print_json(options.name, parsed.base)
        return
    family, entry = find_family(parsed.family), find_entry(parsed.base)
    print(f"{options.name}\n  family      {family.title}, {family.paper} ({family.source})")
    if entry is not None:
        cost, size = entry.trainers[parsed.base], "x".join(map(str, entry.image_size))
        print(f"  network     {entry.network}")
        print(f"  dimensions  {' and '.join(f'{d}D' for d in entry.dimensions)}")
        print(f"  parameters  {cost.parameters:,} ({entry.input_channels} channels, {entry.num_classes} classes)")
        print(f"  GMACs       {cost.gmacs:.3f} at {size}")
        print(f"  in paper    {entry.paper_cost or 'no counts'}")
        if parsed.ablation:
            print(f"  ablation    of {entry.trainer}: {family.describe(parsed.ablation)}")
        else:
            ablations = [f"_{name}: {family.describe(name)}" for name in entry.ablations] or ["none"]
            print("  ablations   " + "\n              ".join(ablations))
        if entry.pretrained_encoder:
            print(f"  pretrained  encoder {entry.pretrained_encoder}, see NNUNET_ATTN_PRETRAINED")
        twins = twin_names(options.name)
        if twins:
            print(f"  twin        {twins[0]} (the same network without its attention)")
        counted = memory_text(entry, parsed.base) if options.memory else None
        print(f"  memory      {counted or f'of your plans: nnunet-attn doctor DATASET -tr {parsed.base}'}")
        print(f"  options     {', '.join(entry.options) or 'none'}")
    if parsed.base == STOCK:
        rate = f"initial rate {parsed.initial_lr:g}, " if parsed.initial_lr else ""
        print(
            f"  schedule    {parsed.epochs or 1000} epochs of {parsed.iterations or 250} iterations, {rate}all else "
            "stock nnU-Net's"
        )
        return

    from nnunet_attn.recipe import Recipe, describe_recipe

    network_kwargs, fields, mutation = settings(options.name)
    kwargs = ", ".join(f"{key}={value!r}" for key, value in network_kwargs.items())
    print(f"  arguments   {kwargs or 'the defaults of the network'}")
    recipe = Recipe(**fields)
    epochs, iterations = parsed.epochs or recipe.num_epochs, parsed.iterations or recipe.num_iterations_per_epoch
    fixed = parsed.epochs is not None or parsed.iterations is not None
    lines = describe_recipe(recipe, epochs, iterations, fixed=fixed)
    if mutation:
        lines["loss"] += f"; the {recipe.mutation} over the subsets of its prediction maps"
    for title, text in lines.items():
        print(f"  {title:<12}{text}")
    if differences := paper_differences(options.name):
        print("  differs     from the paper's training, on plans with its input size (nnunet-attn plan --input-size):")
        print("\n".join(f"    - {text}" for text in differences))
    print(f"  means       {describe_trainer(options.name)}")
    dimensions = entry.dimensions if entry else (2, 3)
    for configuration in ("2d", "3d_fullres")[: 2 if 3 in dimensions else 1]:
        print(f"  train with  nnUNetv2_train DATASET {configuration} 0 -tr {options.name}")
    if parsed.family in CITATIONS:
        indented = CITATIONS[parsed.family].bibtex.replace("\n", "\n    ")
        print(f"  cite\n    {indented}")


def settings(name: str) -> tuple[dict, dict, bool]:
    """Arguments of the network, fields of the recipe, and whether the mutation loss trains it.

    Of a trainer in ``nnunet_attn.paper_tables`` without an import of torch; of all others from their class.
    """
    from nnunet_attn.lookup import find_family
    from nnunet_attn.paper_tables import MUTATION, TABLES
    from nnunet_attn.recipe import SGD
    from nnunet_attn.trainer_names import parse_trainer_name

    parsed = parse_trainer_name(name)
    if parsed is None or parsed.network not in TABLES:
        from nnunet_attn import trainers
        from nnunet_attn.training.base import MutationTrainer, merged

        cls = getattr(trainers, name)
        return merged(cls, "network_kwargs"), merged(cls, "recipe"), issubclass(cls, MutationTrainer)
    tables, ablation = TABLES[parsed.network], parsed.ablation
    kwargs: dict = {}
    if ablation:
        kwargs = tables.ablations[find_family(parsed.family or "").same.get(ablation, ablation)]
    recipe = ({"SGD": SGD} | tables.paper_recipes)[parsed.recipe] if parsed.recipe else {}
    if parsed.initial_lr:
        recipe = recipe | {"initial_lr": parsed.initial_lr}
    return kwargs, recipe, parsed.network in MUTATION


def memory_text(entry: Any, written: str) -> str:
    """What training at the catalogue's size keeps, counted on the device "meta"."""
    import torch

    from nnunet_attn.complexity import saved_bytes

    try:
        with torch.device("meta"):
            made = network_of(entry, written)
            kept = saved_bytes(made, torch.empty(2, entry.input_channels, *entry.image_size)) / 2
    except Exception as error:  # a library that is not installed, or whatever another package's network raises
        if entry in ENTRIES:
            raise
        return f"not counted ({' '.join(str(error).split())})"
    size = "x".join(map(str, entry.image_size))
    return (
        f"{kept / 2**20:.0f} MiB kept for backward per sample of {size} in fp32; of your plans: nnunet-attn doctor "
        f"DATASET -tr {written}"
    )


def network_of(entry: Any, written: str) -> Any:
    """The network at the row's size: ours from its arguments, others as their trainer makes it for nnU-Net's plans."""
    import pydoc

    from nnunet_attn import trainers
    from nnunet_attn.training.base import merged

    trainer = getattr(trainers, written)
    if entry not in ENTRIES:
        from nnunet_attn.training.default_plans import default_configuration

        plan = default_configuration(entry.image_size)
        return trainer.build_network_architecture(None, plan, entry.input_channels, entry.num_classes, False)
    network: Any = pydoc.locate(entry.network)
    arguments = entry.arguments | merged(trainer, "network_kwargs")
    located = {k: pydoc.locate(v) if isinstance(v, str) and v.startswith("torch.") else v for k, v in arguments.items()}
    return network(entry.input_channels, entry.num_classes, **located)


def print_json(name: str, written: str) -> None:
    """The trainer's object of ``list --json`` with what its name means, its twin and its citation."""
    import json

    from nnunet_attn.citations import CITATIONS
    from nnunet_attn.cli.list import rows
    from nnunet_attn.trainer_names import describe_trainer, parse_trainer_name, twin_names

    parsed = parse_trainer_name(name)
    listed: dict = next((row for row in rows() if row["trainer"] == written), {})
    citation = CITATIONS.get(parsed.family if parsed and parsed.family else "stock")
    own = {
        "trainer": name, "means": describe_trainer(name), "twins": twin_names(name),
        "bibtex": citation.bibtex if citation else None,
    }  # fmt: skip
    print(json.dumps(listed | own, indent=2))
