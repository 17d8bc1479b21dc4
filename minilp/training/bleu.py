"""How good translations are."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def require_sacrebleu() -> Any:
    """The sacrebleu module. Raises ImportError that says how to get it."""
    try:
        import sacrebleu
    except ImportError as error:
        raise ImportError("BLEU needs sacrebleu, which is not installed: pip install 'minilp[text]'") from error
    return sacrebleu


def scores(translations: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """BLEU and exact matches of translations with one reference each.

    Parameters
    ----------
    translations, references : sequence of str
        Detokenised, as people write them; equally many.

    Returns
    -------
    dict
        ``bleu``, 0 to 100 by sacrebleu's defaults (Post 2018; Papineni et al. 2002), None without sacrebleu;
        ``bleu_signature``, what those were; ``exact_match``, the share of translations that are the reference, in
        [0, 1].
    """
    same = sum(text == reference for text, reference in zip(translations, references, strict=True))
    found: dict[str, Any] = {"bleu": None, "bleu_signature": None, "exact_match": same / len(references)}
    try:
        metric = require_sacrebleu().BLEU()
    except ImportError:
        return found
    found["bleu"] = float(metric.corpus_score(list(translations), [list(references)]).score)
    found["bleu_signature"] = str(metric.get_signature())
    return found
