"""The checks of ``check_network``, one function each; what a network must keep is told in docs/nnunet_contract.md.

A check returns a remark or nothing, or raises ``CheckFailed``, ``CheckNoted`` or ``CheckLeftOut``.
"""

import pickle
import warnings
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from nnunet_attn.complexity import saved_bytes
from nnunet_attn.testing.report import CheckFailed, CheckLeftOut, CheckNoted
from nnunet_attn.testing.subject import (
    BATCH,
    CHANNELS,
    CLASSES,
    LARGE,
    SEED,
    Subject,
    maps_of,
    python_state,
    settings,
    shapes,
    sizes,
)
from nnunet_attn.training.default_plans import default_configuration

Check = Callable[[Subject], str | None]


def reason(error: BaseException) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def construction(subject: Subject) -> str | None:
    """The network is made from channels, classes and plan."""
    wanted = "Net(input_channels, num_classes, *, ..., deep_supervision=False), all further arguments with defaults"
    try:
        network = subject.make()
    except Exception as error:
        raise CheckFailed(f"cannot be made: {reason(error)}", f"The constructor should be {wanted}.") from error
    if not isinstance(network, nn.Module):
        raise CheckFailed(f"made {type(network).__name__}, no torch module", f"The factory should return {wanted}.")
    try:
        for parameter in network.parameters():
            parameter.numel()
    except ValueError as error:  # lazy modules
        raise CheckFailed(
            f"has parameters without a shape before the first image: {reason(error)}",
            "Make all parameters in the constructor: nnU-Net makes the optimiser and loads weights before any image.",
        ) from error
    return f"{sum(p.numel() for p in network.parameters()):,} parameters"


def global_state(subject: Subject) -> str | None:
    """Making and running the network changes no seed and no setting of the process."""
    subject.make()  # libraries may set something up at their first use
    torch.manual_seed(SEED)
    before = settings()
    network = subject.make()
    with torch.no_grad():
        network.eval()(subject.image())
    changed = [key for key, value in settings().items() if value != before[key]]
    if changed:
        raise CheckFailed(
            f"making or running it changes {' and '.join(changed)}",
            "Leave the seed and the settings of torch, numpy and random alone: they belong to the training. "
            "For weights of your own seed use a torch.Generator.",
        )
    return None


def output_shape(subject: Subject) -> str | None:
    """Without deep supervision: one map of logits, (B, classes, *patch)."""
    network, expected = subject.make().eval(), (BATCH, CLASSES, *subject.first.patch_size)
    try:
        with torch.no_grad():
            output = network(subject.image())
    except Exception as error:
        raise CheckFailed(
            f"does not take an image of {sizes(subject.first.patch_size)}: {reason(error)}",
            "It should take (B, input_channels, *patch) for every patch that nnU-Net plans; pad inside where it must.",
        ) from error
    if not isinstance(output, torch.Tensor):
        raise CheckFailed(
            f"returns {type(output).__name__} without deep supervision",
            "Return the full-size map alone when deep_supervision is off.",
        )
    if tuple(output.shape) != expected:
        raise CheckFailed(
            f"returns {tuple(output.shape)} for an image of {tuple(subject.image().shape)}, expected {expected}",
            "Return logits of the image's size, (B, num_classes, *patch); crop what was padded.",
        )
    if not torch.isfinite(output).all():
        raise CheckFailed("logits of the fresh network are not finite", "Look for divisions, logarithms and roots.")
    return None


def size_dependence(subject: Subject) -> str | None:
    """Parameters do not depend on the image, and another planned patch is taken."""
    network = subject.make().eval()
    before = shapes(network)
    with torch.no_grad():
        network(subject.image())
    made = sorted(set(shapes(network).items()) - set(before.items()))
    if made:
        raise CheckFailed(
            f"the first image makes or changes {some([name for name, _ in made])}",
            "Make all parameters in the constructor; where they depend on the patch, take patch_size as an argument.",
        )
    other = tuple(subject.second.patch_size)
    try:
        second = subject.make(subject.second).eval()
        with torch.no_grad():
            output = second(subject.image(subject.second))
    except Exception as error:
        raise CheckFailed(
            f"takes {sizes(subject.first.patch_size)}, but not {sizes(other)}, planned as well: {reason(error)}",
            "Pad inside to a multiple of the stride and crop, interpolate position embeddings, or take patch_size "
            "(the plan's) as an argument of the constructor.",
        ) from error
    if tuple(output.shape) != (BATCH, CLASSES, *other):
        raise CheckFailed(
            f"returns {tuple(output.shape)} for an image of {sizes(other)}",
            "Return logits of the image's size for every planned patch; crop what was padded.",
        )
    if subject.follows_plans() and shapes(second) != before:
        return "parameters depend on the plan, so weights fit only plans of the same patch and stages"
    return None


def logits(subject: Subject) -> str | None:
    """The maps are logits: nnU-Net's loss and its predictor apply softmax or sigmoid."""
    with torch.no_grad():
        output = subject.make().eval()(10 * subject.image()).float()
    total = output.sum(1)
    if output.min() >= 0 and torch.allclose(total, torch.ones_like(total), atol=1e-3):
        kind = "softmax"
    elif output.min() >= 0 and output.max() <= 1:
        kind = "sigmoid"
    else:
        return None
    raise CheckFailed(
        f"the output looks like that of a {kind}: all values between 0 and 1" + (", sum 1" * (kind == "softmax")),
        f"Take the {kind} out: nnU-Net applies it to the logits itself; twice flattens the loss.",
    )


def _supervised(subject: Subject) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Sizes of the maps with deep supervision, and of nnU-Net's targets."""
    network = subject.heads()
    if network is None:
        raise CheckLeftOut("one head")
    with torch.no_grad():
        found = [tuple(m.shape[2:]) for m in maps_of(network(subject.image()))]
    steps = accumulate(subject.first.pool_op_kernel_sizes, lambda a, b: [x * y for x, y in zip(a, b, strict=True)])
    patch = subject.first.patch_size
    targets = [tuple(n // s for n, s in zip(patch, stride, strict=True)) for stride in steps]
    return found, targets[:-1]


def order_of_heads(subject: Subject) -> str | None:
    """With deep supervision: a list of maps, full size first."""
    found, _ = _supervised(subject)
    if found != sorted(found, reverse=True):
        raise CheckFailed(
            f"with deep supervision the maps come as {', '.join(map(sizes, found))}",
            "Return them full size first, coarsest last; nnU-Net pairs them with its targets by position.",
        )
    return None


def sizes_of_heads(subject: Subject) -> str | None:
    """The maps have the sizes of nnU-Net's targets, one for each stage but the last."""
    own = getattr(subject.factory, "_get_deep_supervision_scales", None)
    if own is not None and not own.__module__.startswith("nnunetv2."):
        raise CheckLeftOut("the trainer has targets of its own (_get_deep_supervision_scales)")
    found, targets = _supervised(subject)
    if sorted(found, reverse=True) != targets:
        raise CheckFailed(
            f"with deep supervision the maps have {', '.join(map(sizes, found))}, nnU-Net's targets "
            f"{', '.join(map(sizes, targets))}",
            "Take strides (the plan's) as an argument, with one head for each stage but the last; or keep "
            "deep_supervision off in the trainer; or override _get_deep_supervision_scales in the trainer.",
        )
    return None


def flags(subject: Subject) -> str | None:
    """The same parameters with and without deep supervision, and nnU-Net's switch works."""
    network = subject.heads()
    if network is None:
        return "one head"
    alone = subject.make()
    differing = sorted(set(shapes(network).items()) ^ set(shapes(alone).items()))
    if differing:
        raise CheckFailed(
            f"with deep supervision the state dict differs in {some(sorted({name for name, _ in differing}))}",
            "Make all heads always: nnU-Net predicts without deep supervision and loads the weights strictly.",
        )
    decoder: Any = getattr(network, "decoder", None)
    if not hasattr(decoder, "deep_supervision"):
        raise CheckFailed(
            "has no network.decoder.deep_supervision",
            "That is the switch that nnU-Net turns off to validate; or override set_deep_supervision_enabled in the "
            "trainer.",
        )
    decoder.deep_supervision = False
    with torch.no_grad():
        if not isinstance(network.eval()(subject.image()), torch.Tensor):
            raise CheckFailed(
                "returns a list though network.decoder.deep_supervision was set to False",
                "Look at network.decoder.deep_supervision in forward; nnU-Net switches it off to validate.",
            )
    return None


def gradients(subject: Subject) -> str | None:
    """Every parameter that trains gets a finite gradient."""
    network = subject.heads() or subject.make()
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (m.float() * torch.randn(m.shape, generator=generator)).sum() for m in maps_of(network.train()(subject.image()))
    )
    if not isinstance(loss, torch.Tensor) or loss.grad_fn is None:
        raise CheckFailed("its output has no gradient", "Look for detach, .data, no_grad and numpy in forward.")
    try:
        loss.backward()
    except Exception as error:
        raise CheckFailed(f"backward fails: {reason(error)}", "Look for in-place changes of stored values.") from error
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if unused := [name for name, p in trained.items() if p.grad is None]:
        raise CheckFailed(
            f"no gradient reaches {some(unused)}",
            "Use the parameter or take it out: training on several GPUs stops at parameters without a gradient.",
        )
    grads = {name: p.grad for name, p in trained.items() if p.grad is not None}
    if bad := [name for name, grad in grads.items() if not torch.isfinite(grad).all()]:
        raise CheckFailed(f"the gradient of {some(bad)} is not finite", "Look for roots, norms and divisions at 0.")
    if zero := [name for name, grad in grads.items() if not grad.abs().max() > 0]:
        raise CheckNoted(f"the gradient of {some(zero)} is zero", "As it should be for a bias before a norm, else not.")
    return None


def input_unchanged(subject: Subject) -> str | None:
    """The image is not written to."""
    network, image = subject.make(), subject.image()
    for mode in (True, False):
        given = image.clone()
        with torch.no_grad():
            network.train(mode)(given)
        if not torch.equal(given, image):
            raise CheckFailed(
                "forward changes the image that it is given",
                "Leave the input alone (no in-place operation before the first layer): nnU-Net's prediction uses the "
                "image again for its mirrored copies.",
            )
    return None


def python_side_state(subject: Subject) -> str | None:
    """A forward pass leaves nothing in attributes that the state dict does not have."""
    network = subject.make().train()
    before = python_state(network)
    with torch.no_grad():
        network(subject.image())
        network.eval()(subject.image())
    after = python_state(network)
    changed = [name for name in after if name not in before or after[name] != before[name]]
    if changed:
        raise CheckFailed(
            f"a forward pass changes {some(changed)}, outside the state dict",
            "Keep what must last in a buffer (register_buffer), which checkpoints store, and the rest in local "
            "variables: attributes are lost at prediction, keep memory, and make torch.compile start over.",
        )
    return None


def evaluation(subject: Subject) -> str | None:
    """In evaluation mode the same image gives the same map, whatever else is in the batch."""
    network, image = subject.make().eval(), subject.image()
    before = torch.get_rng_state()
    with torch.no_grad():
        first, again = network(image.clone()), network(image.clone())
        alone = network(image[:1].clone())
    if not torch.equal(first, again):
        drawn = "" if torch.equal(torch.get_rng_state(), before) else "; it draws random numbers"
        raise CheckFailed(
            f"two passes over one image differ by up to {(first - again).abs().max():.2g} in evaluation mode{drawn}",
            "Let dropout and noise look at self.training.",
        )
    if not torch.allclose(first[:1], alone, rtol=1e-3, atol=1e-3 * float(first.abs().max()) + 1e-6):
        raise CheckFailed(
            "an image's map depends on what else is in the batch in evaluation mode",
            "Normalise and attend within each image; nnU-Net predicts with batches of 1.",
        )
    return None


def pickling(subject: Subject) -> str | None:
    """The network can be pickled, and copies are equal."""
    network = subject.make().eval()
    try:
        copied = pickle.loads(pickle.dumps(network))
    except Exception as error:
        raise CheckFailed(
            f"cannot be pickled: {reason(error)}",
            "Keep no lambda, local class, hook, generator or open file in the modules; use functions of a module.",
        ) from error
    with torch.no_grad():
        if not torch.equal(copied(subject.image()), network(subject.image())):
            raise CheckFailed("a pickled copy gives another output", "Keep all that counts in parameters and buffers.")
    return None


def half_precision(subject: Subject) -> str | None:
    """Logits stay finite under autocast to fp16, which is how nnU-Net trains and predicts on a GPU."""
    network = subject.make().eval()
    first: list[str] = []
    image = 3 * subject.image()

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            tensors = [m for m in maps_of(output) if isinstance(m, torch.Tensor) and m.is_floating_point()]
            if not first and not all(torch.isfinite(m).all() for m in tensors):
                first.append(name or "the network's own forward")

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.float16):
            output = network(image)
    except RuntimeError as error:
        raise CheckLeftOut(f"not on a CPU: {reason(error)}") from error
    finally:
        for handle in handles:
            handle.remove()
    if not torch.isfinite(output).all():
        raise CheckFailed(
            f"under fp16 autocast the logits are not finite, from {first[0] if first else 'its end'} on",
            "fp16 ends at 65504: scale queries before the product, and run softmax, norms and powers in float32 "
            "inside torch.autocast(x.device.type, enabled=False).",
        )
    return None


def compilation(subject: Subject) -> str | None:
    """torch.compile, which nnU-Net uses on a GPU, takes the network as one graph."""
    network, image = subject.make().eval(), subject.image()
    torch.compiler.reset()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exact = network(image.clone())
            compiled = torch.compile(network, fullgraph=True, backend="eager")(image.clone())
    except Exception as error:
        raise CheckFailed(
            f"does not compile in one graph: {reason(error)}",
            "Take .item(), numpy, print and decisions on values out of forward; or let the trainer's _do_i_compile "
            "return False.",
        ) from error
    finally:
        torch.compiler.reset()
    if not torch.allclose(exact, compiled, rtol=1e-3, atol=1e-3 * float(exact.abs().max()) + 1e-6):
        raise CheckFailed("gives another output when compiled", "Look for state that changes with each pass.")
    return None


def export(subject: Subject) -> str | None:
    """torch.export takes the network, as nnunet-attn export needs."""
    network = subject.make().eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.export(network, (subject.image(batch=1),), strict=False)
    except Exception as error:
        raise CheckFailed(
            f"cannot be exported: {reason(error)}",
            "Take decisions on values and numpy out of forward; sizes may be read from x.shape.",
        ) from error
    return None


def names(subject: Subject) -> str | None:
    """Initialisation renames nothing, and heads are where nnU-Net's -pretrained_weights leaves them out."""
    network: Any = subject.make()
    if hasattr(network, "initialize"):
        before = shapes(network)
        network.apply(network.initialize)
        if shapes(network) != before:
            raise CheckFailed(
                "initialize changes names or shapes of parameters",
                "Let initialize set values only: nnU-Net calls it on every module, in training and at prediction.",
            )
    more = shapes(subject.make(classes=CLASSES + 2))
    of_classes = [name for name, shape in shapes(network).items() if more.get(name) != shape]
    if elsewhere := [name for name in of_classes if ".seg_layers." not in name]:
        raise CheckNoted(
            f"{some(elsewhere)} depends on the number of classes",
            "For nnU-Net's -pretrained_weights from a dataset with other classes, keep heads in a ModuleList called "
            "seg_layers, below the network's decoder.",
        )
    return None


def memory(subject: Subject) -> str | None:
    """What training keeps for backward, beside nnU-Net's own network; counted, not run."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    patch = LARGE[subject.dims]
    plan = default_configuration(patch)
    image = torch.empty(1, CHANNELS, *patch, device="meta")
    try:
        network = subject.make(plan).to("meta")
        kept = saved_bytes(network, image)
    except Exception as error:
        raise CheckLeftOut(f"cannot be counted on the device meta: {reason(error)}") from error
    with torch.device("meta"):
        stock = nnUNetTrainer.build_network_architecture(None, plan, CHANNELS, CLASSES, False)
    ratio = kept / saved_bytes(stock, image)
    return f"{kept / 2**20:.0f} MiB kept a sample of {sizes(patch)} in fp32, {ratio:.2f} times nnU-Net's network's"
