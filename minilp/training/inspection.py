"""What coding does to a model's own numbers: relative errors, zeros, saturation and groups, per layer and role."""
from __future__ import annotations

import copy
import fnmatch
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minilp import operands, random
from minilp import recipe as recipes
from minilp.autograd import Tensor
from minilp.formats.rounding import Stream, clock, rounding_context
from minilp.models.specimen import Specimen, specimen
from minilp.nn import Module
from minilp.recipe import Recipe
from minilp.report import describe_recipe
from minilp.roles import LayerRecipe, Roles
from minilp.settings import change
from minilp.training import rundir
from minilp.training.config import TrainConfig
from minilp.training.evaluation import restore
from minilp.training.inspection_report import Inspection
from minilp.training.inspection_tally import Tally
from minilp.training.task import Batch, BatchLoader

PLAYED = ("weight", "act", "error", "wgrad")


def inspect(run: str | os.PathLike[str], *, recipe: str | Recipe | None = None, settings: Iterable[str] = (),
            batches: int = 1, layer: str = "*", root: str | os.PathLike[str] | None = None) -> Inspection:
    """Measure what a run's recipe does to its numbers, on the training batches that would come next.

    Writes nothing and trains nothing: the checkpoint's model makes forward and backward passes only.

    Parameters
    ----------
    run : path
        A run directory with a checkpoint.
    recipe : str or Recipe, optional
        Code the same tensors by another recipe: the passes stay those of the run's own recipe, so that two recipes are
        compared on equal numbers. See :func:`inspect_model`.
    settings : iterable of "key=value"
        Changes to that other recipe, by default to the run's own, as for ``train``.
    batches : int
        How many.
    layer : str
        Shell-style pattern of the layers to measure.
    root : path, optional
        Folder of the data sets, if not the one in config.json.

    Returns
    -------
    Inspection
        One row a layer and role.

    Raises
    ------
    ValueError
        If there is no run with a checkpoint, an argument is wrong, or nothing is coded.
    """
    if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
        raise ValueError(f"batches: expected an integer >= 1, got {batches!r}")
    model, directory, meta = restore(run)
    config = TrainConfig.load(directory.file(rundir.CONFIG))
    other = None
    if recipe is not None or settings:
        other = _changed(config.recipe if recipe is None else recipe, settings)
    task = config.task
    loader = task.loader(config, task.load(config, root).train, training=True)
    place = min(meta["batch"] * config.accumulate, len(loader))
    coming = itertools.islice(_coming(loader, meta["epoch"], place), batches)
    return inspect_model(model, coming, recipe=other, layer=layer, seed=config.seed, step=meta["step"], loss=task.loss,
                         name=str(directory.path), says=describe_recipe(config.recipe))


def inspect_model(model: Module, batches: Iterable[Batch], *, recipe: Recipe | None = None, layer: str = "*",
                  seed: int = 0, step: int = 0,
                  loss: Callable[[Module, np.ndarray, np.ndarray], Tensor] = Specimen.loss,
                  name: str = "model", says: str = "") -> Inspection:
    """Measure what a model's formats do to its numbers in forward and backward passes on some batches.

    The passes run on a copy in training mode; the model, its gradients and its statistics stay as they are.

    Parameters
    ----------
    model : Module
        A recipe may be applied, or not.
    batches : iterable of (x, y)
        What ``loss`` takes beside the model, by default as :class:`minilp.models.specimen.Specimen` has it: images and
        labels, say.
    recipe : Recipe, optional
        Code the tensors by this recipe instead of the model's own, which goes on to decide what the tensors are. It
        gets each tensor as the model's format got it, behind the transforms of the model's recipe; its own transforms
        are left out. A weight gradient is measured where the model codes it;
        blocks along a sum lie as in the output and the input gradient.
    layer : str
        Shell-style pattern of the layers to measure.
    seed, step : int
        Clock of the rounding streams; the step counts up from batch to batch.
    loss : callable
        Model, x and y to a scalar Tensor.
    name, says : str
        What the report calls the model, and its recipe in words.

    Returns
    -------
    Inspection

    Raises
    ------
    ValueError
        If the pattern matches no layer, or nothing is coded.
    """
    twin = copy.deepcopy(model).train()
    layers = {key: module for key, module in twin.named_modules() if hasattr(module, "set_recipe")}
    chosen = [key for key in layers if fnmatch.fnmatchcase(key, layer)]
    if not chosen:
        raise ValueError(f"layer: {layer!r} matches no layer; layers are {', '.join(layers)}")
    roles: dict[str, Roles | None] = {}
    for index, (key, module) in enumerate(layers.items()):
        roles[key] = module.q.roles if module.q else None
        if recipe is not None:
            roles[key] = recipe.for_layer(key, index, len(layers))
        if module.q is not None:
            module.q.name = key
        elif recipe is not None:
            module.set_recipe(LayerRecipe(Roles(), key, index))  # float32 as before, but by way of the observers
    tallies: dict[tuple[str, str], Tally] = {}

    def watch(which: LayerRecipe, role: str, x: np.ndarray, own: Any) -> None:
        played = getattr(roles[which.name], role, None)
        if which.name not in chosen or played is None:
            return
        coded = own
        if recipe is not None:
            stream = Stream(*clock(), which.index, role=role) if played.rounding == "stochastic" else None
            if played.format.blocks_along_sum:
                coded = played.format.encode_along(x, 1, stream=stream)  # as in the output and the input gradient
            else:
                coded = played.format.encode(x, keep=played.keep, stream=stream)
        tally = tallies.setdefault((which.name, role), Tally(coded.format))
        tally.add(x, coded)
        if recipe is not None and own is not None:
            tally.compare(x, own)

    with operands.observe(watch, floats=recipe is not None):
        for number, (x, y) in enumerate(batches):
            with rounding_context(seed, step + number):
                twin.zero_grad()
                loss(twin, x, y).backward()
    if not tallies:
        raise ValueError(f"recipe: nothing is coded in {layer!r} of {name}; name a recipe whose formats shall be tried")
    order = sorted(tallies, key=lambda entry: (list(layers).index(entry[0]), PLAYED.index(entry[1])))
    rows = tuple({"layer": key, "role": role, **tallies[key, role].row()} for key, role in order)
    return Inspection(name, describe_recipe(recipe) if recipe is not None else says, rows, recipe is not None)


def inspect_recipe(model: str, recipe: str | Recipe, settings: Iterable[str] = (), *, batch_size: int = 8,
                   image: tuple[int, int, int] = (3, 32, 32)) -> Inspection:
    """What each format of a recipe does to the tensors of a fresh model on random data: for groups and sizes.

    Parameters
    ----------
    model : str
        A name that :func:`minilp.models.build` knows.
    recipe : str or Recipe
        A preset's name, or a recipe.
    settings : iterable of "key=value"
        Changes to the recipe.
    batch_size : int
        Images or sentences.
    image : (int, int, int)
        Channels, height and width of an image.

    Returns
    -------
    Inspection
        Its errors are those of random numbers; shapes, groups and bits are those of any training.
    """
    chosen = _changed(recipe, settings)
    seeds = random.get_state()
    try:
        made = specimen(model, batch_size, image=image)
        built = chosen.apply(made.model)
    finally:
        random.set_state(seeds)
    return inspect_model(built, [(made.x, made.y)], name=f"{model}, batch {batch_size}", says=describe_recipe(chosen))


def _changed(recipe: str | Recipe, settings: Iterable[str]) -> Recipe:
    """A recipe with "key=value" changes. Raises ValueError where one is wrong."""
    return change(recipe if isinstance(recipe, Recipe) else recipes.get(recipe), settings)[0]


def _coming(loader: BatchLoader, epoch: int, batch: int) -> Iterator[Batch]:
    """The batches from a place in the training on, without end."""
    while True:
        yield from loader.epoch(epoch, batch)
        epoch, batch = epoch + 1, 0
