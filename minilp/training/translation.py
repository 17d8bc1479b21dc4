"""The task of translating sentences."""
from __future__ import annotations

import copy
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minilp import data as data_sets
from minilp.autograd import Tensor
from minilp.data import ParallelText, TokenLoader
from minilp.data.vocabulary import EOS, PAD, from_file
from minilp.models.transformer import Transformer
from minilp.nn import Module
from minilp.training import bleu
from minilp.training.decode import check_decoding, decode_all, describe_decoding
from minilp.training.task import Splits, Task

if TYPE_CHECKING:
    from minilp.training.config import TrainConfig

# AdamW with the Transformer's betas (Vaswani et al. 2017, section 5.3), its warm-up and label smoothing. Sizes and
# rates are our own choice. Madam's rate was the best of 1/16, 1/64 and 1/256 in the first epochs of numbers; for
# CNNs it is 1/16.
ADAMW = {"lr": 1e-3, "weight_decay": 1e-2, "optimizer_options": {"betas": [0.9, 0.98]}}
MADAM = {"lr": 1 / 64}
DEFAULTS: dict[str, dict[str, Any]] = {
    "multi30k": {
        "epochs": 12, "batch_size": 2048, "lr": 0.1, "schedule": "inverse_sqrt", "label_smoothing": 0.1,
        "optimizer": "adamw", "optimizers": {"adamw": ADAMW, "madam": MADAM},
        "model_options": {"d_model": 256, "nhead": 4, "num_encoder_layers": 3, "num_decoder_layers": 3,
                          "dim_feedforward": 512, "dropout": 0.2}},
    "numbers": {
        "epochs": 15, "batch_size": 512, "lr": 0.1, "schedule": "onecycle", "label_smoothing": 0.0,
        "optimizer": "adamw", "optimizers": {"adamw": {**ADAMW, "lr": 3e-3}, "madam": MADAM},
        "model_options": {"d_model": 64, "nhead": 4, "num_encoder_layers": 2, "num_decoder_layers": 2,
                          "dim_feedforward": 128, "dropout": 0.0}},
}
POSITIONS = 2
"""Places that a model needs beyond a sentence: its begin or end, and one to spare."""


class Translation(Task):
    """Sentence pairs: Multi30k and number words."""

    name, unit, held_out, ignore_index = "translation", "token", "val", PAD
    final = ("bleu", "bleu_signature", "exact_match", "decoding")

    def defaults(self, data: str) -> dict[str, Any] | None:
        """See :meth:`Task.defaults`."""
        return {"model": "transformer", **copy.deepcopy(DEFAULTS[data])} if data in DEFAULTS else None

    def fits(self, model: str) -> bool:
        """See :meth:`Task.fits`."""
        return model == "transformer"

    def check(self, config: TrainConfig) -> None:
        """See :meth:`Task.check`."""
        if config.augment != "none":
            raise ValueError(f"augment: sentences have none, got {config.augment!r}")
        if config.train_images is not None:
            raise ValueError(f"train_images: {config.data_name} has no images, got {config.train_images}")
        check_decoding(**config.decode_options)

    def load(self, config: TrainConfig, root: Any = None) -> Splits:
        """See :meth:`Task.load`."""
        train, val, test = data_sets.load_text(config.data, root or config.root, **config.data_options)
        if config.data != "numbers":
            bleu.require_sacrebleu()  # now, not after hours
        return Splits(train, val, test)

    def loader(self, config: TrainConfig, split: ParallelText, training: bool) -> TokenLoader:
        """See :meth:`Task.loader`."""
        return TokenLoader(split, config.batch_size, shuffle=training, seed=config.seed)

    def size(self, split: ParallelText) -> int:
        """See :meth:`Task.size`."""
        return split.tokens

    def describe(self, train: ParallelText) -> dict[str, Any]:
        """See :meth:`Task.describe`."""
        return {"vocabulary": train.vocabulary.file, "vocab_size": train.vocabulary.size,
                "languages": list(train.languages), "max_len": train.max_len}

    def files(self, train: ParallelText) -> dict[str, bytes]:
        """See :meth:`Task.files`: the vocabulary."""
        return {train.vocabulary.file: train.vocabulary.to_bytes()}

    def model_arguments(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`Task.model_arguments`."""
        size = described["vocab_size"]
        return {"src_vocab_size": size, "tgt_vocab_size": size, "max_len": described["max_len"] + POSITIONS,
                "padding_idx": PAD}

    def says(self, splits: Splits) -> list[str]:
        """See :meth:`Task.says`."""
        train = splits.train
        return [f"{len(train)} training, {len(splits.held_out)} validation and {len(splits.test)} test pairs, "
                f"{' to '.join(train.languages)}, {train.vocabulary.size} tokens",
                *(f"note: {note}" for split in (train, splits.held_out, splits.test) for note in split.notes)]

    def labels(self, y: np.ndarray) -> np.ndarray:
        """See :meth:`Task.labels`: every target token after the begin, sentence by sentence, without the padding."""
        after = y[:, 1:]
        return after[after != PAD]

    def outputs(self, model: Module, x: np.ndarray, y: np.ndarray) -> Tensor:
        """See :meth:`Task.outputs`: the model reads the true tokens before each (teacher forcing)."""
        before = np.where(y == EOS, PAD, y)[:, :-1]  # nothing comes after an end
        return model.logits(x, before)[0]

    def equip(self, model: Module, described: Mapping[str, Any], file: Callable[[str], pathlib.Path]) -> None:
        """See :meth:`Task.equip`: the vocabulary."""
        path = file(described["vocabulary"])
        try:
            vocabulary = from_file(path.name, path.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: no vocabulary of the run ({error})") from error
        if vocabulary.size != described["vocab_size"]:
            raise ValueError(f"{path}: {vocabulary.size} tokens, but the model has {described['vocab_size']}")
        model.vocabulary, model.longest = vocabulary, described["max_len"]

    def finish(self, config: TrainConfig, model: Module, splits: Splits, stopped: Callable[[], bool] = lambda: False
               ) -> dict[str, Any] | None:
        """See :meth:`Task.finish`: the test sentences are translated."""
        test = splits.test
        assert isinstance(model, Transformer)
        found = decode_all(model, test.sources, config.batch_size, test.max_len, config.seed,
                           stopped=stopped, **config.decode_options)
        if found is None:
            return None
        texts = [test.vocabulary.decode(ids) for ids in found]
        return {**bleu.scores(texts, [target for _, target in test.texts]),
                "decoding": describe_decoding(**config.decode_options)}
