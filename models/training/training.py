"""Trains systems with PyTorch Lightning."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from pypose_ops import geometry, metrics
from pypose_ops.errors import InputError
from pypose_ops.skeletons import Skeleton

from ..modules.depthwise import has_bfloat16_kernels
from .crops import DRAWS, Crops
from .levers import WeightedSampler, freeze, one_cycle, parameter_groups, progress
from .loading import eval_loader, train_loader
from .scores import pck_norm

if TYPE_CHECKING:
    from torch import nn

    from pypose_ops.models.systems.system import Batch, System
    from pypose_ops.models.training.recipe import Recipe

# Warnings of Lightning that do not apply here.
QUIET = (
    ".*does not have many workers.*",
    ".*exists and is not empty.*",
    ".*find_unused_parameters=True was specified.*",
    ".*smaller than the logging interval.*",
    ".*treespec, LeafSpec.*",
    ".*have no `val_dataloader`.*",
    ".*in eval mode at the start of training.*",  # frozen parts of a phase
)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Phase(pl.LightningModule):
    """One training phase of a system.

    Args:
        system (System): is trained.
        skeleton (Skeleton): of its joints.
        recipe (Recipe): the options.
        number (int): index of the phase.
        people (int): number of people in the training set.
        steps (list[int], optional): of each epoch, if they differ.
    """

    system: System
    recipe: Recipe
    people: Any
    number: int
    name: str

    def __init__(
        self, system: System, skeleton: Skeleton, recipe: Recipe, number: int, people: Any, steps: Any = None
    ) -> None:
        super().__init__()
        self.steps = steps
        self.system, self.recipe, self.people = system, recipe, people
        self.number, self.name = number, system.phases[number]
        self.skeleton = skeleton
        self.crops: Crops = Crops(system, skeleton, recipe.augmentation)
        self.pck: dict[int, Any] = {}
        self.bad: set[str] = set()
        self.val_loss: list[float] = [0.0, 0]
        self.upright: Iterable[Batch] = ()
        self.others: Batch | None = None

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.system, self.recipe.lr, self.recipe.lr_factors)
        optimizer = torch.optim.AdamW(groups, self.recipe.lr, weight_decay=self.recipe.weight_decay)
        epochs = self.trainer.max_epochs
        steps = self.steps or [max(int(self.trainer.estimated_stepping_batches) // epochs, 1)] * epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(progress(step, steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        freeze(self.system, self.recipe.freeze)
        # Lightning validates after as many batches as the first epoch has: never in the shorter epochs at the end.
        self.trainer.val_check_batch = len(self.trainer.train_dataloader)
        # The random numbers of an epoch depend only on its number, so that interrupted runs continue identically.
        seed = (self.recipe.seed * 1009 + self.number) * 100_003 + self.current_epoch
        torch.manual_seed(seed * 64 + self.global_rank)
        generator = torch.Generator().manual_seed(seed)
        self.draws: torch.Tensor = torch.rand(self.people, DRAWS, generator=generator).to(self.device)

    def training_step(self, loaded: Any, _: Any) -> Any:
        self.bad.update(loaded.bad)
        with self.trainer.profiler.profile("crops"):
            # Where no image could be read other people stand in and weigh nothing: the other ranks wait for this one.
            batch = self.crops(loaded, self.draws[loaded.index])[0] if len(loaded) else self.stand_in()
        with self.trainer.profiler.profile("forward and loss"):
            terms = self.system.losses(batch, self.name)
            loss = sum(terms.values()) if len(loaded) else 0.0 * sum(terms.values())
        logged = {f"loss_{name}": term.detach() for name, term in terms.items()} if len(terms) > 1 else {}
        self.log_dict(
            logged | {"loss": loss.detach()}, on_step=False, on_epoch=True, batch_size=len(loaded), sync_dist=True
        )
        return loss

    def stand_in(self) -> Batch:
        """The first people whose images can be read."""
        if self.others is None:
            self.others = next(iter(self.upright), None)
        if self.others is None:
            raise InputError("none of the images could be read")
        return self.others

    def validation_step(self, loaded: Any, _: Any) -> None:
        self.bad.update(loaded.bad)
        if len(loaded) == 0:
            return
        batch, transforms = self.crops(loaded)
        loss = sum(self.system.losses(batch, self.name).values())
        self.val_loss = [self.val_loss[0] + float(loss) * len(loaded), self.val_loss[1] + len(loaded)]
        visible = loaded.visible > 0
        norm = pck_norm(loaded.keypoints, visible, self.skeleton)
        for stage, peaks in enumerate(self.system.poses_so_far(batch.images, self.name)):
            pred = geometry.transform_points(peaks.coords.float(), transforms)
            self.pck.setdefault(stage, metrics.PCK(threshold=0.2)).update(
                pred, loaded.keypoints, visible=visible, norm=norm
            )

    def on_validation_epoch_end(self) -> None:
        # A rank without readable images takes part too: the others would wait for it.
        ranks = [(len(self.pck), *self.val_loss)]
        if self.trainer.world_size > 1:
            ranks = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(ranks, (len(self.pck), *self.val_loss))
        stages, joints = max(rank[0] for rank in ranks), len(self.skeleton)
        for stage in range(stages):
            if stage not in self.pck:
                nobody = torch.zeros(0, joints, 2, device=self.device)
                self.pck[stage] = metrics.PCK(threshold=0.2)
                self.pck[stage].update(nobody, nobody, visible=nobody[..., 0] > 0, norm=nobody[:, 0, 0])
        values = {f"val_pck_{stage + 1}": pck.compute()["mean"].float() for stage, pck in sorted(self.pck.items())}
        pck = list(values.values() or [torch.tensor(float("nan"))])[-1]
        # Without a PCK the last epoch is kept, as without held-out people; any PCK is better than none.
        chosen = pck if pck.isfinite() else torch.tensor(self.current_epoch - 1e6)
        people = max(sum(rank[2] for rank in ranks), 1)
        loss = torch.tensor(sum(rank[1] for rank in ranks) / people)
        self.log_dict(values | {"val_pck": pck, "val_loss": loss, "selection": chosen})
        self.pck, self.val_loss = {}, [0.0, 0]


class EpochLine(Callback):
    """Prints a line per epoch, which unlike a progress bar remains."""

    def on_train_epoch_start(self, trainer: Any, module: nn.Module) -> None:
        self.start: float = time.monotonic()

    def on_train_epoch_end(self, trainer: Any, module: nn.Module) -> None:
        if not trainer.is_global_zero:
            return
        value = {name: v.item() for name, v in trainer.callback_metrics.items()}
        parts = [f"{n} {value[n]:.5g}" for n in ("loss", "val_loss", "val_pck") if n in value]
        stages = [f"{value[n]:.1f}" for n in (f"val_pck_{s + 1}" for s in range(len(value))) if n in value]
        if len(stages) > 1:  # the last stage may not be trained yet
            parts[-1] += f" (stages: {' '.join(stages)})"
        seconds = time.monotonic() - self.start
        of = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"{module.name}, epoch {of}: {', '.join(parts)}, {seconds:.1f} s", flush=True)
        if trainer.current_epoch == 0 and value.get("val_pck", 0.0) != value.get("val_pck", 0.0):
            print("no held-out person has a labelled torso, so there is no PCK for selection: the last epoch is kept")


class LastEpoch(ModelCheckpoint):
    """A separate class, since Lightning distinguishes the callbacks of a trainer by class."""


class NoScoreGoesOn(EarlyStopping):
    """Early stopping that ignores epochs without a score."""

    def _evaluate_stopping_criteria(self, current: Any) -> Any:
        if float(current) < 0:
            return False, None
        return super()._evaluate_stopping_criteria(current)


def make_trainer(
    out: Path,
    number: int,
    system: System,
    recipe: Recipe,
    *,
    validated: bool,
    progress: bool = True,
    profile: bool = False,
    devices: int = 1,
    nodes: int = 1,
    device: Any = "auto",
) -> Any:
    """Lightning's Trainer for one phase, which writes to the folder ``out``."""
    phase, last = system.phases[number], number == len(system.phases) - 1
    best = {"monitor": "selection", "mode": "max"} if last and validated else {}
    saving = {
        "dirpath": folder_of(out, number, phase),
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    # Lightning's save_last saves only with a better epoch, but runs are resumed from the last one.
    checkpoints = [ModelCheckpoint(filename="best", **saving, **best), LastEpoch(filename="last", **saving)]
    callbacks = [*checkpoints, EpochLine(), LearningRateMonitor("epoch")]
    if best and recipe.patience:
        callbacks.append(NoScoreGoesOn("selection", mode="max", patience=recipe.patience))
    if recipe.ema:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema))
    several = devices != 1 or nodes != 1
    loggers = [
        CSVLogger(out, name=f"logs/{number}-{phase}", flush_logs_every_n_steps=1),
        *_tensorboard(out, f"{number}-{phase}"),
    ]
    return pl.Trainer(
        default_root_dir=out,
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        # Not every phase uses every parameter.
        strategy=DDPStrategy(find_unused_parameters=True) if several else "auto",
        sync_batchnorm=several and torch.cuda.is_available() and device != "cpu",
        use_distributed_sampler=False,
        precision=precision_of(recipe, device),
        max_epochs=recipe.shares(system.phases)[number],
        gradient_clip_val=recipe.clip or None,
        logger=loggers,
        callbacks=callbacks,
        profiler=SimpleProfiler(out, f"profile-{number}-{phase}") if profile else None,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def precision_of(recipe: Recipe, device: Any) -> str:
    """The precision of the recipe, but float32 on CPUs without kernels for bfloat16, where it is far slower."""
    on_cpu = device == "cpu" or (device == "auto" and not torch.accelerator.is_available())
    if recipe.precision == "bf16-mixed" and on_cpu and not has_bfloat16_kernels():
        print("this CPU has no kernels for bfloat16: using float32", flush=True)
        return "32-true"
    return recipe.precision


def _tensorboard(out: Path, name: str) -> Any:
    try:
        return [TensorBoardLogger(out, name="tensorboard", version=name)]
    except ModuleNotFoundError:
        return []


def folder_of(out: Path, number: int, phase: int) -> Path:
    return out / "checkpoints" / f"{number}-{phase}"


class Upright:
    """Upright crops of the training people, re-iterable, for the statistics of ``System.begin_phase``."""

    crops: Any
    loader: Any
    device: Any

    def __init__(self, crops: Any, people: Any, batch: int, device: Any) -> None:
        self.crops, self.loader, self.device = crops, eval_loader(people, batch), device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for loaded in self.loader:
            if len(loaded):
                yield self.crops(loaded.to(self.device))[0]


def train_phase(
    system: System,
    skeleton: Skeleton,
    recipe: Recipe,
    number: int,
    train: Any,
    held_out: Any,
    out: Path,
    *,
    checkpoint: Any = None,
    workers: int | None = None,
    counts: torch.Tensor = None,
    **options: Any,
) -> set[str]:
    """Trains one phase; ``system`` ends as its best epoch on the held-out people (last phase) or its last epoch.

    Args:
        system (System): is trained.
        skeleton (Skeleton): of its joints.
        recipe (Recipe): the options.
        number (int): index of the phase in ``system.phases``.
        train, held_out (People): for training, and for model selection (may be None).
        out (Path): output folder.
        checkpoint (Path, optional): of the same phase, to resume from.
        counts (list[int], optional): numbers of people of the data sets concatenated in ``train``.
        workers (int, optional): processes for image decoding; default: none if all images are in memory.
        options: of :func:`make_trainer`.

    Returns:
        set[str]: the unreadable images of all ranks.
    """
    pl.seed_everything(recipe.seed + number, verbose=False)
    try:
        trainer = make_trainer(out, number, system, recipe, validated=held_out is not None, **options)
    except (MisconfigurationException, ValueError) as error:
        raise InputError(f"device: {str(error).splitlines()[0]}") from None
    sampler = None
    if recipe.data_weights or recipe.last_epochs:
        sampler = WeightedSampler(
            counts or [len(train)], recipe.data_weights, epochs=recipe.shares(system.phases)[number],
            last=recipe.last_epochs, seed=recipe.seed + number, rank=trainer.global_rank, world=trainer.world_size,
        )  # fmt: skip
    phase = Phase(system, skeleton, recipe, number, len(train), sampler and sampler.steps(recipe.batch))
    on_gpu = trainer.strategy.root_device.type != "cpu"
    loading = {"rank": trainer.global_rank, "world": trainer.world_size, "workers": workers, "pin": on_gpu}
    system.train().to(trainer.strategy.root_device, memory_format=torch.channels_last)
    phase.upright = Upright(phase.crops, train, recipe.batch, trainer.strategy.root_device)
    system.begin_phase(phase.name, phase.upright)
    freeze(system, recipe.freeze)
    with warnings.catch_warnings():
        for text in QUIET:
            warnings.filterwarnings("ignore", text)
        trainer.fit(
            phase,
            train_loader(train, recipe.batch, seed=recipe.seed + number, sampler=sampler, **loading),
            None if held_out is None else eval_loader(held_out, recipe.batch, **loading),
            ckpt_path=checkpoint,
            weights_only=True if checkpoint else None,
        )
    best = trainer.checkpoint_callback.best_model_path
    if number == len(system.phases) - 1 and best:
        state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
        phase.load_state_dict(state)
    bad = [phase.bad]
    if trainer.world_size > 1:
        bad = [set()] * trainer.world_size
        torch.distributed.all_gather_object(bad, phase.bad)
    return set().union(*bad)
