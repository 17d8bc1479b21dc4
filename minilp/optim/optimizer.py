"""The base of all optimizers: parameter groups, state, saving. A subclass writes one method, ``update``."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np

from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter
from minilp.formats.rounding import Stream, clock
from minilp.optim.job import Job
from minilp.watch import watchers


class Optimizer:
    """Walks the parameters and lets a subclass update each one in place.

    The default options become one *parameter group* unless ``params`` already is a list of groups; every option of a
    group may differ, e.g. ``SGD([{"params": weights}, {"params": biases, "weight_decay": 0.0}], lr=0.1)``.

    Some attributes of a parameter are honoured whatever the optimizer:

    * ``weight_decay`` (float or None): replaces the group's weight decay for this parameter;
    * ``bounds`` ((low, high) or None): the parameter is clamped to this closed interval after its update;
    * ``code`` (a parameter that lives as codes): W <- Q(U(W, gradient)), the update of a decoded copy, encoded again
      with a scale that follows the tensor's maximum (or stays, where the parameter says so), rounded as its
      ``rounding`` says; no float copy outlives the step;
    * ``state_role`` (Role or None): what the optimizer remembers of the parameter is brought to that format's values
      after every step.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        Leaves that require gradients; or groups, each a dict with the key ``"params"`` and its own options.
    defaults : dict
        Options of groups that do not name them; plain JSON values (tuples allowed).

    Attributes
    ----------
    param_groups : list of dict
        ``"params"`` and the options. Schedules write ``"lr"`` here.
    state : dict of int to dict
        What the optimizer remembers of parameter number i (counted over all groups in order): arrays and numbers.

    Raises
    ------
    TypeError
        If something that is not a Tensor is to be optimized.
    ValueError
        If there is no parameter, one appears twice, one is no leaf, or a group names an unknown option.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], defaults: dict[str, Any]) -> None:
        if isinstance(params, (Tensor, Mapping)):
            raise TypeError(f"params: expected a list of parameters or of groups, got a single {type(params).__name__}")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[int, dict[str, Any]] = {}
        self._scratch_memory: dict[tuple[np.dtype, int], np.ndarray] = {}
        self._clock: tuple[int, int, int] | None = None
        self._calls = 0
        entries = list(params)
        if not entries:
            raise ValueError("params: got an empty list; was model.parameters() already consumed?")
        if isinstance(entries[0], Mapping):
            for group in entries:
                self.add_param_group(cast("dict[str, Any]", group))
        else:
            self.add_param_group({"params": entries})

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group of parameters with options of its own.

        Parameters
        ----------
        group : dict
            ``"params"`` (a Tensor or an iterable of them) and any of the options; the others take the defaults.

        Raises
        ------
        TypeError, ValueError
            As the constructor.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"params: a group must be a dict with the key 'params', got {group!r}")
        unknown = set(group) - set(self.defaults) - {"params"}
        if unknown:
            raise ValueError(f"params: {type(self).__name__} has no option {sorted(unknown)}; "
                             f"it has {sorted(self.defaults)}")
        given = group["params"]
        members = [given] if isinstance(given, Tensor) else list(given)
        seen = {id(p) for other in self.param_groups for p in other["params"]}
        for i, p in enumerate(members):
            if not isinstance(p, Tensor):
                raise TypeError(f"params[{i}]: expected a Parameter or Tensor, got {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError(f"params[{i}]: only leaves can be optimized, this one is the result of an operation")
            if id(p) in seen:
                raise ValueError(f"params[{i}]: the parameter of shape {p.shape} appears twice")
            seen.add(id(p))
        merged = {**self.defaults, **group, "params": members}
        self.check_options(merged)
        self.param_groups.append(merged)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse impossible options; a subclass extends it.

        Parameters
        ----------
        group : dict
            One complete parameter group.

        Raises
        ------
        ValueError
            Naming the option, what came and what was expected.
        """
        for name in ("lr", "weight_decay", "eps"):
            if name in group and not group[name] >= 0:
                raise ValueError(f"{name}: expected a number >= 0, got {group[name]!r}")

    def update(self, p: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: dict[str, Any],
               weight_decay: float) -> None:
        """Update one parameter in place. The method a subclass writes.

        Parameters
        ----------
        p : ndarray
            The parameter's array; to be changed in place.
        grad : ndarray
            Its gradient, same shape and dtype; must not be changed.
        state : dict
            What this parameter remembers; empty the first time. Arrays and numbers only.
        group : dict
            Options of its group.
        weight_decay : float
            The weight decay of this parameter (its own or the group's).
        """
        raise TypeError(f"{type(self).__name__} must define update(p, grad, state, group, weight_decay)")

    def cost(self, param: Tensor, group: dict[str, Any], weight_decay: float) -> dict[str, int]:
        """Operations an element of one update, for :mod:`minilp.energy`; a subclass writes it.

        Parameters
        ----------
        param, group, weight_decay
            See :meth:`update`.

        Raises
        ------
        NotImplementedError
            By default: an unknown operation is an error, never free.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say which operations an update takes: define cost")

    def step(self) -> None:
        """Update every parameter that has a gradient, then clamp those with bounds.

        Raises
        ------
        ValueError
            If an update of a parameter that lives as codes is not finite; the message names it.
        """
        now = clock()
        self._calls = self._calls + 1 if now is self._clock else 0
        self._clock = now
        index = 0
        for group in self.param_groups:
            jobs = []
            for param in group["params"]:
                if param.grad is not None:
                    own = getattr(param, "weight_decay", None)
                    decay = group.get("weight_decay", 0.0) if own is None else own
                    jobs.append(Job(param, index, self.state.setdefault(index, {}), decay))
                index += 1
            self.update_floats([job for job in jobs if getattr(job.param, "code", None) is None], group)
            for job in jobs:
                try:
                    self._finish(job, group)
                except ValueError as error:
                    raise job.named(error) from error
                for watcher in watchers:
                    watcher.updated(self, job.param, job.state, group, job.weight_decay)

    def update_floats(self, jobs: list[Job], group: dict[str, Any]) -> None:
        """Update the ``jobs`` of one group whose parameters are float arrays; by default one after the other."""
        for job in jobs:
            try:
                self.update(job.param.data, job.grad, job.state, group, job.weight_decay)
            except ValueError as error:
                raise job.named(error) from error

    def _finish(self, job: Job, group: dict[str, Any]) -> None:
        """What comes after the update of floats: that of codes, bounds, the state's format."""
        param, index, state, decay = job
        bounds = getattr(param, "bounds", None)
        if isinstance(param, Parameter) and param.code is not None:
            stream = self._stream(index, "update") if param.rounding == "stochastic" else None
            self.update_codes(param, job.grad, state, group, decay, stream)
            if bounds is not None:
                param.write(np.clip(param.data, *bounds))
        elif bounds is not None:
            np.maximum(param.data, bounds[0], out=param.data)  # both take half the time of numpy.clip
            np.minimum(param.data, bounds[1], out=param.data)
        role = getattr(param, "state_role", None)
        if role is not None:
            arrays = [value for value in state.values() if isinstance(value, np.ndarray)]
            for number, array in enumerate(arrays):
                stream = self._stream(index, "state", number) if role.rounding == "stochastic" else None
                array[...] = role.format.encode(array, stream=stream).decode()

    def _stream(self, index: int, role: str, piece: int = 0) -> Stream:
        """The rounding stream of one parameter in this step; without a clock, steps are counted."""
        seed, when, _ = clock()
        return Stream(seed, when, piece, index, self._calls, role)

    def update_codes(self, param: Parameter, grad: np.ndarray, state: dict[str, Any], group: dict[str, Any],
                     weight_decay: float, stream: Stream | None) -> None:
        """Update one parameter that lives as codes; by default a decoded copy is updated and encoded again.

        Parameters
        ----------
        param : Parameter
            With a ``code``; to be changed by ``write`` or by assigning codes.
        grad, state, group, weight_decay
            See :meth:`update`.
        stream : Stream or None
            Rounds stochastically; None to nearest.
        """
        values = param.data.copy(order="K")
        self.update(values, grad, state, group, weight_decay)
        param.write(values, stream=stream)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients.

        Parameters
        ----------
        set_to_none : bool
            Drop the arrays (default), or fill them with zeros.
        """
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad[...] = 0

    def scratch(self, like: np.ndarray, slot: int = 0) -> np.ndarray:
        """Working memory of the shape and dtype of ``like``, reused by all parameters; content undefined.

        Parameters
        ----------
        like : ndarray
            Model for shape and dtype.
        slot : int
            Arrays of different slots never overlap.

        Returns
        -------
        ndarray
            Uninitialised, C order.
        """
        key = (like.dtype, slot)
        memory = self._scratch_memory.get(key)
        if memory is None or memory.size < like.size:
            memory = self._scratch_memory[key] = np.empty(like.size, like.dtype)
        return memory[:like.size].reshape(like.shape)

    def state_dict(self) -> dict[str, Any]:
        """A snapshot: copies of the state arrays, and the options.

        Returns
        -------
        dict
            ``{"state": {i: {name: array or number}}, "param_groups": [{option: value, "params": [i, ...]}]}``,
            arrays and plain JSON values only.
        """
        groups, index = [], 0
        for group in self.param_groups:
            groups.append({**group, "params": list(range(index, index + len(group["params"])))})
            index += len(group["params"])
        state = {i: {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in entry.items()}
                 for i, entry in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, also after a trip through JSON (string keys, lists for tuples).

        Parameters
        ----------
        state_dict : mapping
            With the keys ``"state"`` and ``"param_groups"``. Arrays are copied.

        Raises
        ------
        ValueError
            If the groups differ in number or size, an index is unknown, or an array has another shape than its
            parameter. Nothing is changed then.
        """
        groups = state_dict["param_groups"]
        sizes, have = [len(g["params"]) for g in groups], [len(g["params"]) for g in self.param_groups]
        if sizes != have:
            raise ValueError(f"state_dict: groups of {sizes} parameters do not fit this optimizer's groups of {have}")
        params = [p for group in self.param_groups for p in group["params"]]
        state: dict[int, dict[str, Any]] = {}
        for key, entry in state_dict["state"].items():
            index = int(key)
            if not 0 <= index < len(params):
                raise ValueError(f"state_dict: state of parameter {index}, but there are only {len(params)} parameters")
            state[index] = {}
            for name, value in entry.items():
                if isinstance(value, np.ndarray):
                    if value.shape != params[index].shape:
                        raise ValueError(f"state_dict: {name} of parameter {index} has shape {value.shape}, "
                                         f"the parameter has {params[index].shape}")
                    value = value.copy()
                state[index][name] = value
        for group, saved in zip(self.param_groups, groups, strict=True):
            for name, value in saved.items():
                if name != "params":
                    group[name] = tuple(value) if isinstance(group.get(name), tuple) else value
        self.state = state

    def __repr__(self) -> str:
        lines = [", ".join([f"  group {i}: {len(group['params'])} parameters",
                            *(f"{k}={v!r}" for k, v in group.items() if k != "params")])
                 for i, group in enumerate(self.param_groups)]
        return "\n".join([f"{type(self).__name__} (", *lines, ")"])
