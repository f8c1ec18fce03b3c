"""Training of any system on PyTorch Lightning, which does the loop."""

import logging
import time
import warnings

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

from ..modules.depthwise import has_bfloat16_kernels
from .crops import DRAWS, Crops
from .levers import WeightedSampler, freeze, parameter_groups
from .loading import eval_loader, train_loader
from .scores import torso_of

# What Lightning says of every run, and what nobody needs to hear of it.
QUIET = (
    ".*does not have many workers.*",
    ".*exists and is not empty.*",
    ".*find_unused_parameters=True was specified.*",
    ".*smaller than the logging interval.*",
    ".*treespec, LeafSpec.*",
    ".*have no `val_dataloader`.*",
    ".*in eval mode at the start of training.*",  # what a phase keeps still
)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Phase(pl.LightningModule):
    """One phase of a system's training.

    Args:
        system (System): is trained.
        skeleton (Skeleton): of its joints.
        recipe (Recipe): how.
        number (int): of the phase.
        people (int): how many there are to train on.
        steps (int, optional): of the phase, where epochs differ.
    """

    def __init__(self, system, skeleton, recipe, number, people, steps=None):
        super().__init__()
        self.steps = steps
        self.system, self.recipe, self.people = system, recipe, people
        self.number, self.name = number, system.phases[number]
        self.torso = torso_of(skeleton)
        self.crops = Crops(system, skeleton, recipe.augmentation)
        self.pck, self.bad = {}, set()

    def configure_optimizers(self):
        groups = parameter_groups(self.system, self.recipe.lr, self.recipe.lr_factors)
        optimizer = torch.optim.AdamW(groups, self.recipe.lr, weight_decay=self.recipe.weight_decay)
        steps = self.steps or int(self.trainer.estimated_stepping_batches)
        rates = [group["lr"] for group in groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rates, max(steps, 2), pct_start=0.05, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self):
        freeze(self.system, self.recipe.freeze)
        # All that is random in an epoch follows from its number: a run that was killed goes on as it would have.
        seed = (self.recipe.seed * 1009 + self.number) * 100_003 + self.current_epoch
        torch.manual_seed(seed * 64 + self.global_rank)
        generator = torch.Generator().manual_seed(seed)
        self.draws = torch.rand(self.people, DRAWS, generator=generator).to(self.device)

    def training_step(self, loaded, _):
        self.bad.update(loaded.bad)
        if len(loaded) == 0:
            return 0.0 * sum(p.sum() for p in self.system.parameters() if p.requires_grad)
        with self.trainer.profiler.profile("crops"):
            batch, _ = self.crops(loaded, self.draws[loaded.index])
        with self.trainer.profiler.profile("forward and loss"):
            terms = self.system.losses(batch, self.name)
            loss = sum(terms.values())
        logged = {f"loss_{name}": term.detach() for name, term in terms.items()} if len(terms) > 1 else {}
        self.log_dict(
            logged | {"loss": loss.detach()}, on_step=False, on_epoch=True, batch_size=len(loaded), sync_dist=True
        )
        return loss

    def validation_step(self, loaded, _):
        self.bad.update(loaded.bad)
        if len(loaded) == 0:
            return
        batch, transforms = self.crops(loaded)
        loss = sum(self.system.losses(batch, self.name).values())
        self.log("val_loss", loss, on_epoch=True, batch_size=len(loaded), sync_dist=True)
        visible = loaded.visible > 0
        torso = metrics.torso_size(loaded.keypoints, self.torso)
        norm = torso.masked_fill(~visible[:, list(self.torso)].all(1), float("nan"))
        for stage, peaks in enumerate(self.system.poses(batch.images)):
            pred = geometry.transform_points(peaks.coords.float(), transforms)
            self.pck.setdefault(stage, metrics.PCK(threshold=0.2)).update(
                pred, loaded.keypoints, visible=visible, norm=norm
            )

    def on_validation_epoch_end(self):
        values = {f"val_pck_{stage + 1}": pck.compute()["mean"].float() for stage, pck in sorted(self.pck.items())}
        self.log_dict(values | {"val_pck": list(values.values() or [torch.tensor(float("nan"))])[-1]})
        self.pck = {}


class EpochLine(Callback):
    """Prints a line per epoch, which stays where a progress bar goes."""

    def on_train_epoch_start(self, trainer, module):
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer, module):
        if not trainer.is_global_zero:
            return
        value = {name: v.item() for name, v in trainer.callback_metrics.items()}
        parts = [f"{n} {value[n]:.5g}" for n in ("loss", "val_loss", "val_pck") if n in value]
        stages = [f"{value[n]:.1f}" for n in (f"val_pck_{s + 1}" for s in range(len(value))) if n in value]
        if len(stages) > 1:  # the last one may not have been trained yet
            parts[-1] += f" (stages: {' '.join(stages)})"
        seconds = time.monotonic() - self.start
        of = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"{module.name}, epoch {of}: {', '.join(parts)}, {seconds:.1f} s", flush=True)


def make_trainer(
    out, number, system, recipe, *, validated, progress=True, profile=False, devices=1, nodes=1, device="auto"
):
    """Lightning's Trainer for one phase; what it writes goes to the folder ``out``."""
    phase, last = system.phases[number], number == len(system.phases) - 1
    best = {"monitor": "val_pck", "mode": "max"} if last and validated else {}
    checkpoints = ModelCheckpoint(
        dirpath=folder_of(out, number, phase),
        filename="best",
        save_last=True,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
        **best,
    )
    callbacks = [checkpoints, EpochLine(), LearningRateMonitor("epoch")]
    if best and recipe.patience:
        callbacks.append(EarlyStopping("val_pck", mode="max", patience=recipe.patience))
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
        # Not every phase reaches every parameter.
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


def precision_of(recipe, device):
    """The recipe's, but float32 where bfloat16 would be far slower: on CPUs without kernels for it."""
    on_cpu = device == "cpu" or (device == "auto" and not torch.accelerator.is_available())
    if recipe.precision == "bf16-mixed" and on_cpu and not has_bfloat16_kernels():
        print("this CPU has no kernels for bfloat16: float32 in its place", flush=True)
        return "32-true"
    return recipe.precision


def _tensorboard(out, name):
    try:
        return [TensorBoardLogger(out, name="tensorboard", version=name)]
    except ModuleNotFoundError:
        return []


def folder_of(out, number, phase):
    return out / "checkpoints" / f"{number}-{phase}"


class Upright:
    """The training people in upright crops, again and again: what ``System.begin_phase`` measures on."""

    def __init__(self, crops, people, batch, device):
        self.crops, self.loader, self.device = crops, eval_loader(people, batch), device

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for loaded in self.loader:
            if len(loaded):
                yield self.crops(loaded.to(self.device))[0]


def train_phase(
    system, skeleton, recipe, number, train, held_out, out, *, checkpoint=None, workers=None, counts=None, **options
):
    """Trains one phase; afterwards ``system`` is the best on the held-out people (the last phase), or the last epoch's.

    Args:
        system (System): is trained.
        skeleton (Skeleton): of its joints.
        recipe (Recipe): how.
        number (int): of the phase in ``system.phases``.
        train, held_out (People): to train on, and to select the model on (may be None).
        out (Path): the folder.
        checkpoint (Path, optional): of the same phase, to go on from.
        counts (list[int], optional): people of each data set in ``train``, one after the other.
        workers (int, optional): processes that decode pictures; default: none where all are kept in memory.
        options: of :func:`make_trainer`.

    Returns:
        set[str]: the pictures that could not be read, of all ranks.
    """
    pl.seed_everything(recipe.seed + number, verbose=False)
    try:
        trainer = make_trainer(out, number, system, recipe, validated=held_out is not None, **options)
    except (MisconfigurationException, ValueError) as error:
        raise InputError(f"--device, --devices: {str(error).splitlines()[0]}") from None
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
    system.begin_phase(phase.name, Upright(phase.crops, train, recipe.batch, trainer.strategy.root_device))
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
