"""Translation: trained like pictures, resumed to the bit, scored, and used from the command line."""
import gzip
import io
import json
import warnings

import numpy as np
import pytest

import minilp
from minilp import cli, data
from minilp.data import multi30k
from minilp.data.vocabulary import BOS, EOS, PAD
from minilp.training import Interrupted, TrainConfig, bleu, checkpoint, compare, evaluate, inspect, train, translate
from minilp.training.session import Session

SMALL = ["model.d_model=16", "model.nhead=2", "model.num_encoder_layers=1", "model.num_decoder_layers=1",
         "model.dim_feedforward=16", "data.pairs=120", "data.held_out=15"]
COLUMNS = ["epoch", "train_loss", "train_acc", "val_loss", "val_acc", "tokens_per_s", "seconds"]


@pytest.fixture
def small():
    """Arguments of a training of a second."""
    return {"data": "numbers", "recipe": "fp32", "epochs": 2, "batch_size": 200, "settings": SMALL, "threads": 1,
            "quiet": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished training."""
    return train("numbers", recipe="fp32", epochs=2, batch_size=200, settings=SMALL, threads=1, quiet=True,
                 out=tmp_path_factory.mktemp("runs") / "numbers")


def test_defaults_of_the_task():
    config = TrainConfig.create("multi30k", recipe="fp32")
    assert (config.model, config.optimizer, config.schedule, config.label_smoothing) == (
        "transformer", "adamw", "inverse_sqrt", 0.1)
    assert config.optimizer_options["betas"] == [0.9, 0.98] and config.momentum is None
    madam = TrainConfig.create("numbers", recipe="lns-madam")
    assert (madam.optimizer, madam.lr, madam.optimizer_options) == ("madam", 1 / 64, {})
    assert TrainConfig.create("numbers", recipe="fp32", optimizer="sgd").momentum == 0.9
    own = TrainConfig.create("numbers", recipe="fp32", settings=["model.d_model=32", "optimizer.eps=1e-6"])
    assert own.model_options["d_model"] == 32 and own.model_options["nhead"] == 4
    assert own.optimizer_options == {"betas": [0.9, 0.98], "eps": 1e-6}
    assert TrainConfig.from_config(json.loads(json.dumps(own.to_config()))) == own


@pytest.mark.parametrize(("arguments", "words"), [
    ({"model": "small_cnn"}, ["model", "numbers is translation", "transformer", "'small_cnn'"]),
    ({"data": "shapes10", "model": "transformer"}, ["model", "image classification", "resnet20"]),
    ({"augment": "crop_flip"}, ["augment", "crop_flip"]),
    ({"train_images": 5}, ["train_images", "no images"]),
    ({"accumulate": 0}, ["accumulate", ">= 1"]),
    ({"label_smoothing": 1.0}, ["label_smoothing", "< 1"]),
    ({"settings": ["decode.beam_size=0"]}, ["beam_size", ">= 1", "0"]),
    ({"settings": ["decode.length_penalty=-1"]}, ["length_penalty", "-1"]),
    ({"data": "shapes10", "settings": ["data.vocab_size=9"]}, ["set", "shapes10", "data.vocab_size"]),
])
def test_errors_name_the_argument(arguments, words):
    with pytest.raises(ValueError, match=words[0]) as caught:
        TrainConfig.create(**{"data": "numbers", "recipe": "fp32", **arguments})
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("setting", ["data.vocab_size=9", "decode.beams=3", "model.width=3", "optimizer.momentum=1"])
def test_unknown_options_are_refused(setting, tmp_path):
    with pytest.raises((ValueError, TypeError), match=setting.split(".")[1].split("=")[0]):
        train("numbers", recipe="fp32", settings=[*SMALL, setting], out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_run_directory_is_self_contained(run, tmp_path, monkeypatch):
    names = {path.name for path in run.path.iterdir()}
    assert {"config.json", "metrics.csv", "log.txt", "checkpoint.safetensors", "result.json",
            "vocabulary.json"} <= names
    assert (run.path / "metrics.csv").read_text().splitlines()[0].split(",") == COLUMNS
    stored = json.loads((run.path / "result.json").read_text())
    assert stored["val_acc"] == run.rows[-1]["val_acc"] and 0 <= stored["exact_match"] <= 1
    assert stored["tokens_per_s"] == run.tokens_per_s > 0 and run.images_per_s is None
    assert stored["energy_pj"] > 0 and stored["energy_pj_per_token"] > 0 and "estimated" in stored["energy_note"]
    monkeypatch.setattr(data, "load_text", None)  # no data is needed
    model = minilp.load(run.path)
    assert model.vocabulary == data.numbers.VOCABULARY and not model.training
    assert translate(model, "four hundred two") == translate(run.path, ["four hundred two"])


def test_bleu_is_recorded_where_sacrebleu_is(needs_text, run):
    assert run.summary["bleu"] == run.bleu and 0 <= run.bleu <= 100
    assert "tok:13a" in run.summary["bleu_signature"] and run.summary["decoding"] == "greedy"


def test_bleu_counts_what_people_read(needs_text, monkeypatch):
    import sacrebleu

    texts, references = ["Ein Hund läuft am Strand.", "Zwei Männer."], ["Ein Hund rennt am Strand.", "Zwei Männer."]
    found = bleu.scores(texts, references)
    assert found["bleu"] == sacrebleu.corpus_bleu(texts, [references]).score and found["exact_match"] == 0.5
    assert bleu.scores(references, references)["bleu"] == pytest.approx(100)
    monkeypatch.setattr(bleu, "require_sacrebleu", lambda: (_ for _ in ()).throw(ImportError))
    assert bleu.scores(texts, references) == {"bleu": None, "bleu_signature": None, "exact_match": 0.5}


def test_evaluation_repeats_everything_to_the_last_bit(run, capsys):
    found = evaluate(run.path)
    assert found.acc == found.recorded == run.rows[-1]["val_acc"] and found.loss == run.rows[-1]["val_loss"]
    assert found.final["exact_match"] == found.final_recorded["exact_match"]
    assert found.count == data.load_text("numbers", pairs=120, held_out=15)[1].tokens
    assert cli.main(["eval", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert "metrics.csv recorded the same" in out and "result.json recorded exact_match the same" in out
    assert "NOT" not in out


def test_another_vocabulary_is_noticed(run, tmp_path):
    import shutil

    shutil.copytree(run.path, tmp_path / "copy")
    path = tmp_path / "copy" / "vocabulary.json"
    words = json.loads(path.read_text())
    path.write_text(json.dumps([words[1], words[0], *words[2:]]))
    with pytest.raises(ValueError, match=r"another vocabulary\.json"):
        evaluate(tmp_path / "copy")
    path.write_text(json.dumps(words[:-1]))
    with pytest.raises(ValueError, match="43 tokens, but the model has 44"):
        minilp.load(tmp_path / "copy")
    path.unlink()
    with pytest.raises(ValueError, match="no vocabulary of the run"):
        minilp.load(tmp_path / "copy")


def test_rows_of_logits_and_labels_are_the_same_tokens(run):
    """What the loss compares: every target token after the begin, none of them padding."""
    config, task = run.config, run.config.task
    x, y = next(iter(task.loader(config, task.load(config).train, training=True).epoch(0)))
    x, y = np.pad(x, ((0, 0), (0, 2))), np.pad(y, ((0, 0), (0, 3)))
    y[0, 3:] = PAD
    y[0, 2] = EOS
    with minilp.no_grad():
        logits = task.outputs(run.model, x, y).data
        whole = run.model(x, y[:, :-1]).data
    place = [(n, t) for n, row in enumerate(y) for t in range(y.shape[1] - 1) if row[t + 1] != PAD]
    assert task.labels(y).tolist() == [y[n, t + 1] for n, t in place] and task.count(y) == len(place) == len(logits)
    np.testing.assert_allclose(logits, [whole[n, t] for n, t in place], rtol=1e-4, atol=1e-5)
    assert (y[:, 0] == BOS).all()


@pytest.mark.parametrize("name", ["fp32", "potq", "mls", "lns-madam", "fp8", "int8"])
def test_every_recipe_trains_and_is_counted(small, tmp_path, name):
    found = train(**{**small, "recipe": name, "epochs": 1}, out=tmp_path / "run")
    assert np.isfinite(found.rows[0]["train_loss"]) and found.energy_pj > 0, found.summary["energy_note"]
    assert evaluate(tmp_path / "run").acc == found.rows[0]["val_acc"]


def test_same_seed_same_numbers_and_a_stop_changes_none(small, tmp_path, contents, monkeypatch):
    """With dropout, stochastic rounding and accumulated gradients."""
    small.update(recipe="potq", accumulate=2, batch_size=100, label_smoothing=0.1,
                 settings=[*SMALL, "model.dropout=0.1", "error.rounding=stochastic"])
    train(**small, out=tmp_path / "whole")
    step = Session.step

    def stop(self, batches):
        if self.step_number == 8:  # in the middle of the second epoch
            raise KeyboardInterrupt
        step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(**small, save_every=3, out=tmp_path / "killed")
    meta = checkpoint.load(tmp_path / "killed" / "checkpoint.safetensors")[1]
    assert (meta["epoch"], meta["batch"], meta["step"]) == (1, 1, 6) and meta["sums"]["seen"] > 0
    train(out=tmp_path / "killed", resume=True, save_every=0, quiet=True)
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert all(whole[name] == killed[name] for name in ("metrics.csv", "log.txt", "vocabulary.json"))
    assert {k: v for k, v in whole["result.json"].items() if k != "config"} == {
        k: v for k, v in killed["result.json"].items() if k != "config"}  # save_every differs
    one, two = (checkpoint.load(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "killed"))
    assert set(one) == set(two) and all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_ctrl_c_while_the_test_sentences_are_translated(small, tmp_path, contents, monkeypatch):
    train(**small, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("minilp.training.translation.decode_all", lambda *args, **options: None)
        with pytest.raises(Interrupted):
            train(**small, out=tmp_path / "stopped")
    train(out=tmp_path / "stopped", resume=True, quiet=True)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_accumulated_gradients_are_those_of_the_batches_together(small):
    """A step on k batches is a step on their mean gradient over labels, whatever their sizes."""
    config = TrainConfig.create("numbers", recipe="fp32", accumulate=3, batch_size=100, settings=SMALL)
    session = Session(config, config.task.load(config).train)
    assert session.steps == -(-len(session.loader) // 3)
    batches = next(session.coming())
    assert len(batches) == 3
    session.optimizer.step = lambda: None
    counts = [session.task.count(y) for _, y in batches]
    want: dict[str, np.ndarray] = {}
    for batch, count in zip(batches, counts, strict=True):
        session.step([batch])
        for name, param in session.model.named_parameters():
            want[name] = want.get(name, 0) + param.grad * (count / sum(counts))
    session.step(batches)
    for name, param in session.model.named_parameters():
        np.testing.assert_allclose(param.grad, want[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_label_smoothing_is_in_the_training_loss_only(small, tmp_path):
    plain = train(**{**small, "epochs": 1, "lr": 0.0}, out=tmp_path / "plain").rows[0]
    smooth = train(**{**small, "epochs": 1, "lr": 0.0, "label_smoothing": 0.3}, out=tmp_path / "smooth").rows[0]
    assert smooth["val_loss"] == plain["val_loss"] and smooth["train_loss"] != plain["train_loss"]


def test_inspection_reads_sentences(small, tmp_path):
    found = train(**{**small, "recipe": "potq", "epochs": 1}, out=tmp_path / "run")
    rows = inspect(found.path).rows
    assert {row["role"] for row in rows} >= {"weight", "act", "error"} and all(0 <= row["are"] < 1 for row in rows)


def test_comparison_of_translations_and_not_with_pictures(run, small, finished, tmp_path):
    other = train(**{**small, "recipe": "potq"}, out=tmp_path / "potq")
    found = compare([run.path, other.path], plot=None)
    assert [row["val_acc"] for row in found.rows] == [r.rows[-1]["val_acc"] for r in (run, other)]
    lines = str(found).splitlines()
    assert "BLEU" in lines[0] and "tokens/s" in lines[0] and "uJ/token" in lines[0]
    assert len({len(line) for line in lines}) == 1
    with pytest.raises(ValueError, match="no score in common"):
        compare([run.path, finished.path], plot=None)


def test_translating_on_the_command_line(run, capsys, monkeypatch):
    assert cli.main(["translate", str(run.path), "one hundred two", "seven"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == translate(run.path, ["one hundred two", "seven"])
    monkeypatch.setattr("sys.stdin", io.StringIO("one hundred two\nseven\n"))
    assert cli.main(["translate", str(run.path), "--beam", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == translate(run.path, ["one hundred two", "seven"], beam=3)
    assert cli.main(["translate", str(run.path), "one", "x y"]) == 0
    assert "sentence 2: not in the vocabulary: x y" in capsys.readouterr().err
    assert cli.main(["translate", str(run.path), "one", " "]) == 2
    assert "sentences: number 2 is empty" in capsys.readouterr().err


def test_translating_says_what_is_wrong(run, finished):
    with pytest.raises(ValueError, match="expected a run of a translation"):
        translate(finished.path, "one")
    with pytest.raises(ValueError, match="expected a run of a translation, which has a vocabulary; got a SmallCNN"):
        translate(finished.model, "one")
    with pytest.raises(ValueError, match="beam_size"):
        translate(run.path, "one", beam=0)
    with pytest.warns(UserWarning, match="11 tokens and is cut off after 9"):
        cut = translate(run.path, "one " * 11)
    assert cut == translate(run.path, "one " * 9)
    assert translate(run.path, []) == []


def test_a_recipe_without_a_cache_says_so(small, tmp_path):
    found = train(**{**small, "recipe": "potq", "epochs": 1}, out=tmp_path / "run")
    with pytest.warns(UserWarning, match="without a key/value cache"):
        translate(found.path, "seven")


def test_the_progress_bar_counts_tokens(small, tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    train(**{**small, "quiet": False}, out=tmp_path / "run")
    assert "tok/s" in terminal.getvalue()
    lines = capsys.readouterr().out.splitlines()
    assert any("tokens/s" in line and "val loss" in line for line in lines if line.startswith("epoch 2/2"))
    assert any("120 training, 15 validation and 15 test pairs, words to digits" in line for line in lines)


@pytest.mark.slow
def test_it_learns_to_read_numbers_it_has_never_seen(tmp_path):
    """Five epochs, a third of the default; a model that only copies the commonest digits has next to none right."""
    found = train("numbers", recipe="fp32", epochs=5, quiet=True, out=tmp_path / "run")
    assert found.summary["exact_match"] > 0.6
    (said,) = translate(found.path, "four hundred two")
    assert said.replace(" ", "").isdigit()


def test_multi30k_from_files_to_translations(needs_text, tmp_path):
    """The whole way with sub-words, on sentences that fit on a page."""
    pairs = [(f"A {a} {v}.", f"Ein {x} {y}.") for a, x in (("dog", "Hund"), ("bird", "Vogel"), ("cat", "Kater"))
             for v, y in (("runs", "rennt"), ("sleeps", "schläft"), ("waits", "wartet"))]
    (tmp_path / "multi30k").mkdir()
    for stem in multi30k.FILES.values():
        for side, which in enumerate(multi30k.LANGUAGES):
            text = "\n".join(pair[side] for pair in pairs)
            (tmp_path / "multi30k" / f"{stem}.{which}.gz").write_bytes(gzip.compress(text.encode()))
    found = train("multi30k", recipe="fp32", epochs=120, batch_size=64, root=tmp_path, lr=0.01, label_smoothing=0.0,
                  settings=[*SMALL[:-2], "model.dropout=0", "data.vocab_size=100", "data.max_len=20"], quiet=True,
                  out=tmp_path / "run")
    assert found.bleu > 99 and found.summary["exact_match"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert translate(found.path, "A bird sleeps.") == ["Ein Vogel schläft."]
    assert (found.path / "vocabulary.model").exists()


def test_multi30k_asks_for_sacrebleu_before_it_trains(needs_text, multi30k_root, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"pip install 'minilp\[text\]'"):
        train("multi30k", recipe="fp32", root=multi30k_root, out=tmp_path / "run", quiet=True)
    assert cli.main(["train", "--data", "multi30k", "--root", str(multi30k_root), "--out", str(tmp_path / "run")]) == 2
