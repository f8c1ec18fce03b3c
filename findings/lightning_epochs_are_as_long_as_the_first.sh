#!/usr/bin/env bash
# Lightning's Trainer takes the length of the first epoch for that of all: longer ones are cut, and shorter ones are not
# validated.
#
# lightning 2.6.6, torch 2.13.0 (CPU). A sampler with set_epoch may give epochs of different lengths, as for a curriculum or
# a last phase on the cleanest of several data sets; its __len__ is asked once. An epoch with more batches stops after as
# many as the first had. One with fewer is trained whole, but validation waits for the number of batches of the first,
# although check_val_every_n_epoch is 1. No warning is given. The metrics of the last validation stay in
# trainer.callback_metrics, where ModelCheckpoint and EarlyStopping with a monitor find them: an epoch that was not validated
# is never the best. Setting trainer.val_check_batch at the start of every epoch helps the shorter ones.
#
# Seen, with epochs of 6, 2, 2 and 12 batches, the batches trained and after which of them there was a validation:
#   as it is: trained [6, 2, 2, 6], validations after batch [[6], [], [], [6]]
#   val_check_batch set: trained [6, 2, 2, 6], validations after batch [[6], [2], [2], []]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.0 lightning==2.6.6
cat > "$folder/show.py" <<'PYTHON'
import logging
import sys

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
LENGTHS = (6, 2, 2, 12)


class Changing(Sampler):
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return LENGTHS[self.epoch]

    def __iter__(self):
        return iter(range(LENGTHS[self.epoch]))


class Model(pl.LightningModule):
    def __init__(self, helped):
        super().__init__()
        self.layer, self.helped = torch.nn.Linear(1, 1), helped
        self.trained, self.validated = [], []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

    def on_train_epoch_start(self):
        self.trained.append(0)
        self.validated.append([])
        if self.helped:
            self.trainer.val_check_batch = len(self.trainer.train_dataloader)

    def training_step(self, batch, _):
        self.trained[-1] += 1
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, _):
        self.validated[-1].append(self.trained[-1])


data = TensorDataset(torch.rand(max(LENGTHS), 1))
results = {}
for helped in (False, True):
    model = Model(helped)
    trainer = pl.Trainer(
        max_epochs=len(LENGTHS), accelerator="cpu", logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, check_val_every_n_epoch=1,
    )
    trainer.fit(model, DataLoader(data, 1, sampler=Changing()), DataLoader(TensorDataset(torch.rand(1, 1))))
    results[helped] = model.trained, model.validated
    name = "val_check_batch set" if helped else "as it is"
    print(f"{name}: trained {model.trained}, validations after batch {model.validated}")
expected = {False: [[6], [], [], [6]], True: [[6], [2], [2], []]}
sys.exit(any(results[h] != ([6, 2, 2, 6], expected[h]) for h in expected))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/show.py"
