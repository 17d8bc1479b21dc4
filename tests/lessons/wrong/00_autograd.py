"""Planted wrong answers of lesson 00: exercise, what stands in the solution, what a reader may write instead."""
WRONG = [
    (1, "(f(x + step) - f(x - step)) / (2 * eps)", "(f(x + step) - f(x)) / eps"),
    (1, "/ (2 * eps)", "/ eps"),
    (1, "np.ndindex(x.shape)", "range(len(x))"),
    (1, "        step = np.zeros_like(x)\n        step[index] = eps", "        step = eps"),
    (2, "-node.number", "node.number"),
    (2, "seen, waiting = {root}, [root]", "seen, waiting = set(), [root]"),
    (2, "while waiting:", "if waiting:"),
    (2, """    seen, waiting = {root}, [root]
    while waiting:
        for parent in waiting.pop().parents:
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
""", """    seen = {root}
    for parent in root.parents:
        seen |= set(topological_order(parent))
"""),
    (3, "grad.ndim - len(shape)", "len(shape) - grad.ndim"),
    (3, "keepdims=True", "keepdims=False"),
    (3, "length == 1", "length == 0"),
    (3, "    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))\n", ""),
    (4, "grad @ b.T, a.T @ grad", "a.T @ grad, grad @ b.T"),
    (4, "grad @ b.T, a.T @ grad", "grad @ b, a @ grad"),
    (4, "a.T @ grad", "grad.T @ a"),
    (5, "logits - logits.max(axis=1, keepdims=True)", "logits"),
    (5, "grad * p / len(p)", "grad * p"),
    (5, "grad * p / len(p)", "p / len(p)"),
    (5, "p[np.arange(len(p)), target] -= 1", "p[:, target] -= 1"),
    (5, "p.sum(axis=1, keepdims=True)", "p.sum()"),
    (6, "(1 - sigmoid)", "1"),
    (6, "grad * (sigmoid + x * sigmoid * (1 - sigmoid))", "sigmoid + x * sigmoid * (1 - sigmoid)"),
    (6, "sigmoid + x", "x"),
]
