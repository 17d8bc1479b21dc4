"""Transformers: the base model of Vaswani et al. 2017, BERT-base and BERT-large (Devlin et al. 2019)."""
from __future__ import annotations

from minilp.energy.shapes import LayerShape


class Sequence:
    """Layers of a transformer under construction; every method adds those of one part.

    Parameters
    ----------
    width : int
        Features of a token.
    heads : int
        Of the attention; divides ``width``.

    Raises
    ------
    ValueError
        If the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        if width % heads:
            raise ValueError(f"heads: {heads} does not divide the width {width}")
        self.width, self.heads = width, heads
        self.layers: list[LayerShape] = []

    def linear(self, name: str, tokens: int, in_features: int, out_features: int, bias: bool = True,
               shared: bool = False) -> None:
        """A linear layer on every token; ``shared`` means that its weight is counted elsewhere."""
        self.layers.append(LayerShape(name=name, kind="linear", tokens=tokens, in_features=in_features,
                                      out_features=out_features, bias=bias, shared=shared))

    def each(self, name: str, kind: str, tokens: int, features: int | None = None) -> None:
        """An elementwise layer: relu, gelu, tanh, add, mul."""
        self.layers.append(LayerShape(name=name, kind=kind, elements=tokens * (features or self.width)))

    def embedding(self, name: str, tokens: int, rows: int, shared: bool = False) -> None:
        """One learned row for each token."""
        self.layers.append(LayerShape(name=name, kind="embedding", rows=rows, features=self.width,
                                      elements=tokens * self.width, shared=shared))

    def layer_norm(self, name: str, tokens: int) -> None:
        """Layer normalisation with a learned scale and shift."""
        self.layers.append(LayerShape(name=name, kind="layer_norm", features=self.width, elements=tokens * self.width,
                                      bias=True))

    def attention(self, name: str, queries: int, keys: int) -> None:
        """Multi-head attention of ``queries`` tokens over ``keys`` tokens, its residual sum and normalisation.

        A causal mask saves nothing here: dense products, as they are computed.
        """
        width, heads, part = self.width, self.heads, self.width // self.heads
        for which, tokens in (("query", queries), ("key", keys), ("value", keys)):
            self.linear(f"{name}.{which}", tokens, width, width)
        self.layers.append(LayerShape(name=f"{name}.scores", kind="matmul", m=queries, k=part, n=keys, heads=heads,
                                      keys=True))
        self.each(f"{name}.scale", "mul", heads * queries, keys)
        self.layers.append(LayerShape(name=f"{name}.softmax", kind="softmax", elements=heads * queries * keys,
                                      features=keys))
        self.layers.append(LayerShape(name=f"{name}.context", kind="matmul", m=queries, k=keys, n=part, heads=heads))
        self.linear(f"{name}.output", queries, width, width)
        self._close(name, queries)

    def feed_forward(self, name: str, tokens: int, hidden: int, activation: str) -> None:
        """Two linear layers with an activation in between, the residual sum and normalisation."""
        self.linear(f"{name}.linear1", tokens, self.width, hidden)
        self.each(f"{name}.{activation}1", activation, tokens, hidden)
        self.linear(f"{name}.linear2", tokens, hidden, self.width)
        self._close(name, tokens)

    def _close(self, name: str, tokens: int) -> None:
        self.each(f"{name}.add1", "add", tokens)
        self.layer_norm(f"{name}.norm", tokens)


def bert(layers: int, width: int, heads: int, length: int = 384, vocabulary: int = 30522,
         head: bool = False) -> list[LayerShape]:
    """A BERT encoder for sequences of ``length`` tokens (Devlin et al. 2019, section 3), without head by default.

    Its contractions come to L (12 h^2 s + 2 s^2 h) multiply-accumulates: at length 384 35,332,816,896 for base (12
    layers, width 768) and 123,211,874,304 for large (24 layers, width 1024).

    Parameters
    ----------
    layers, width, heads : int
        12, 768, 12 (base) or 24, 1024, 16 (large).
    length : int
        Tokens. 384 is SQuAD's usual length; that the energy table of LNS-Madam uses it is our derivation from the
        ratio of its BERT rows.
    vocabulary : int
        Rows of the word table; 30522 is the uncased English one.
    head : bool
        The two outputs per token of question answering (start and end).

    Returns
    -------
    list of LayerShape
        In execution order. The pooler (a linear layer on the first token) is no part of it: question answering does
        not use it, and L (12 h^2 s + 2 s^2 h) does not hold it.

    Raises
    ------
    ValueError
        If the position table, 512 rows, is shorter than ``length``.
    """
    if not 1 <= length <= 512:
        raise ValueError(f"length: expected 1 to 512 tokens, got {length}")
    net = Sequence(width, heads)
    for table, rows in (("word", vocabulary), ("position", 512), ("token_type", 2)):
        net.embedding(f"embeddings.{table}", length, rows)
    for i in (1, 2):
        net.each(f"embeddings.add{i}", "add", length)
    net.layer_norm("embeddings.norm", length)
    for i in range(layers):
        net.attention(f"encoder.{i}.attention", length, length)
        net.feed_forward(f"encoder.{i}.ffn", length, 4 * width, "gelu")
    if head:
        net.linear("qa_outputs", length, width, 2)
    return net.layers


def transformer_base(source_length: int = 32, target_length: int = 32, vocabulary: int = 37000, layers: int = 6,
                     width: int = 512, heads: int = 8, hidden: int = 2048) -> list[LayerShape]:
    """The base model of Vaswani et al. 2017 (table 3) on one pair of sentences, outputs over the vocabulary included.

    One table serves both embeddings and the output layer (section 3.4), so its weight is counted once. Positions are
    sinusoids: no parameters.

    Parameters
    ----------
    source_length, target_length : int
        Tokens; the papers' notes name no length, so 32 is our assumption.
    vocabulary : int
        About 37000 for English-German (section 5.1).
    layers, width, heads, hidden : int
        Of table 3.

    Returns
    -------
    list of LayerShape
        In execution order.
    """
    net = Sequence(width, heads)
    for side, tokens in (("encoder", source_length), ("decoder", target_length)):
        net.embedding(f"{side}.embedding", tokens, vocabulary, shared=side == "decoder")
        net.each(f"{side}.scale", "mul", tokens)  # by sqrt(width), section 3.4
        net.each(f"{side}.add1", "add", tokens)
        for i in range(layers):
            net.attention(f"{side}.{i}.self_attention", tokens, tokens)
            if side == "decoder":
                net.attention(f"{side}.{i}.cross_attention", tokens, source_length)
            net.feed_forward(f"{side}.{i}.ffn", tokens, hidden, "relu")
    net.linear("output", target_length, width, vocabulary, bias=False, shared=True)
    return net.layers
