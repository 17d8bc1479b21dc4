"""The benchmark's Transformer: ours and torch's are of one size, see the same sentences, and both learn them."""
import numpy as np

from minilp import backend
from minilp.bench import sentences, worker


def test_both_sides_are_one_model(torch):
    from minilp.bench.rival_sentences import Transformer
    from minilp.training import TrainConfig

    model, _, loss = sentences.ours(TrainConfig.create(recipe="fp32"), 2)
    assert sum(p.size for p in model.parameters()) == sum(p.numel() for p in Transformer().parameters())
    assert 3e6 < sum(p.size for p in model.parameters()) < 4.5e6
    assert abs(loss().item() - np.log(sentences.VOCABULARY)) < 1.5
    first, second = sentences.batch(3, 1), sentences.batch(3, 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)) and (first[0] >= 4).all()


def test_steps_of_both_sides_lower_the_loss(torch):
    job = {"model": "transformer", "recipe": "potq", "settings": ["attention=coded"], "batch_size": 2,
           "threads": backend().threads}
    ours, info = worker.minilp_step(job)
    theirs, _ = worker.torch_step({**job, "mode": "eager"})
    for step in (ours, theirs):
        losses = [step() for _ in range(4)]
        assert losses[-1] < losses[0]
    assert "batched_exact" in str(info["calls"]) or "batched_shift" in str(info["calls"])
