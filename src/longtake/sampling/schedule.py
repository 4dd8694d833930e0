"""Schedules as data: what scheduler_config.json says, and the noise levels and the solver that it asks for.

A class of diffusers is a frozen dataclass here, whose fields have the published names. The loop reads one and needs no
scheduler object; `compat.schedulers` makes such an object of it for code that was written for diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from longtake.config import class_of, read_json
from longtake.errors import JobError, ModelError
from longtake.sampling import sigmas as noise_levels
from longtake.sampling.solvers import SNR_TIME, Solver, Steps, UniPC, Velocity, euler, unipc_with

CONFIG_NAME = "scheduler_config.json"
SHIFTS = {"shift": "flow_shift", "flow_shift": "shift"}
"""The static shift's name in each of the two classes, and its name in the other one."""

KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a word", tuple: "a list"}

S = TypeVar("S", bound="Schedule")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The settings that both classes have; `use_dynamic_shifting` shifts by the number of tokens, not by `static`."""

    published_class: ClassVar[str] = ""
    """The class in diffusers."""
    fixed: ClassVar[Mapping[str, Any]] = {}
    """Settings of that class that exist here at their default alone."""

    num_train_timesteps: int = 1000
    use_dynamic_shifting: bool = False
    time_shift_type: str = "exponential"

    def __post_init__(self) -> None:
        _one_of("time_shift_type", self.time_shift_type, ("exponential", "linear"))
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), field.default)
        if self.num_train_timesteps < 1:
            raise ModelError(
                f"num_train_timesteps must be 1 or more; {self.num_train_timesteps} was asked for."
            )
        if self.static <= 0:
            raise ModelError(f"The shift of a schedule must be above 0; {self.static} was asked for.")

    @classmethod
    def names(cls) -> set[str]:
        """Names of all settings, the fixed ones included."""
        return {field.name for field in fields(cls)} | set(cls.fixed)

    @classmethod
    def of(cls: type[S], **settings: Any) -> S:
        """Build from settings by their published names; raises ModelError for one that does not exist here."""
        for key, value in settings.items():
            if key not in cls.names():
                known = ", ".join(sorted(cls.names()))
                raise ModelError(f"{cls.published_class} has no setting {key!r}; it has {known}.")
            if key in cls.fixed and value != cls.fixed[key]:
                raise ModelError(
                    f"{cls.published_class} supports {key} = {cls.fixed[key]!r} only; {value!r} was asked for."
                )
        own: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in settings.items()
            if key not in cls.fixed
        }
        return cls(**own)

    @classmethod
    def from_config(cls: type[S], config: Mapping[str, Any], **changes: Any) -> S:
        """Build from the settings of this class or of the other one, and `changes` to them.

        Settings that only the other class has are left out.
        Unlike the reference: the shift of the noise levels goes along under the other class's name for it.
        """
        foreign = set().union(*(kind.names() for kind in CLASSES.values())) - cls.names()
        kept = {key: config[key] for key in config if not key.startswith("_") and key not in foreign}
        for own, other in SHIFTS.items():
            if own in cls.names() and own not in config and other in config:
                kept[own] = config[other]
        return cls.of(**{**kept, **changes})

    @staticmethod
    def read(values: Mapping[str, Any], class_name: str | None = None, **changes: Any) -> Schedule:
        """Read the content of a scheduler_config.json, with `changes` to its settings.

        `class_name` goes before the class that it names itself. Raises ModelError for a class that is none of the two,
        and for settings that do not exist here.
        """
        named = class_name or class_of(values)
        if named not in CLASSES:
            raise ModelError(f"There is no scheduler {named} here; there are: {', '.join(CLASSES)}.")
        return CLASSES[named].from_config(values, **changes)

    @staticmethod
    def read_folder(folder: Path | str, class_name: str | None = None, **changes: Any) -> Schedule:
        """`read` the scheduler_config.json in `folder`; its name stands in the errors."""
        file = Path(folder) / CONFIG_NAME
        values = read_json(file)
        try:
            return Schedule.read(values, class_name, **changes)
        except ModelError as error:
            raise ModelError(f"{file}: {error}") from error

    def settings(self) -> dict[str, Any]:
        """All settings by their published names, as JSON values."""
        own = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**self.fixed, **own}

    def published(self) -> dict[str, Any]:
        """The content of scheduler_config.json, which diffusers reads too."""
        return {"_class_name": self.published_class, **self.settings()}

    @property
    def static(self) -> float:
        """The static shift, which does not depend on the number of tokens."""
        raise NotImplementedError

    def shifted_by(self: S, shift: float) -> S:
        """The same schedule under this static shift."""
        if not shift > 0:
            raise JobError(f"The shift of a schedule must be above 0; {shift} was asked for.")
        name = next(name for name in SHIFTS if name in self.names())
        return replace(self, use_dynamic_shifting=False, **{name: float(shift)})  # type: ignore[arg-type]

    def mu(self, tokens: float) -> float:
        """Logarithm of the dynamic shift for so many tokens of the window."""
        return mu_of(self.settings(), tokens)

    def sigmas(
        self, steps: int | None = None, sigmas: Sequence[float] | None = None, tokens: float | None = None
    ) -> list[float]:
        """Noise levels: `steps` even ones or `sigmas` (without the last 0), shifted; then 0.

        >>> [round(sigma, 4) for sigma in FlowMatchEuler(shift=7.0).sigmas(2)]
        [1.0, 0.875, 0.0]
        """
        plain = np.linspace(1.0, 0.0, count(steps) + 1)[:-1] if sigmas is None else np.asarray(sigmas)
        mu = self.mu(tokens) if self.use_dynamic_shifting and tokens is not None else None
        return [*self.levels(plain, mu).tolist(), 0.0]

    def levels(self, sigmas: Sequence[float] | np.ndarray, mu: float | None) -> np.ndarray:
        """The shifted `sigmas`, without the last 0, in the precision that diffusers has them in."""
        raise NotImplementedError

    def timesteps(self, levels: np.ndarray) -> np.ndarray:
        """The network's timesteps at these levels."""
        raise NotImplementedError

    def solve(self) -> Solver:
        """The solver over `sigmas(...)`: a generator function (velocity, latents, sigmas) -> Steps."""
        raise NotImplementedError

    def shifted(self, sigmas: np.ndarray, mu: float | None) -> np.ndarray:
        """`sigmas` under the static shift, or under `mu` if the schedule asks for the dynamic one."""
        if not sigmas.size:
            raise JobError("A schedule needs at least one sigma.")
        if not self.use_dynamic_shifting:
            return noise_levels.shifted(sigmas, self.static)
        if mu is None:
            raise JobError(
                f"{self.published_class} shifts dynamically, so it needs mu or the number of tokens."
            )
        return noise_levels.shifted(sigmas, math.exp(mu) if self.time_shift_type == "exponential" else mu)


@dataclass(frozen=True, kw_only=True)
class FlowMatchEuler(Schedule):
    """FlowMatchEulerDiscreteScheduler, which the published FramePack has with a shift of 7."""

    published_class: ClassVar[str] = "FlowMatchEulerDiscreteScheduler"
    fixed: ClassVar[Mapping[str, Any]] = {
        "invert_sigmas": False,
        "shift_terminal": None,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "stochastic_sampling": False,
    }

    shift: float = 1.0
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096

    @property
    def static(self) -> float:
        """The static shift, which does not depend on the number of tokens."""
        return self.shift

    def levels(self, sigmas: Sequence[float] | np.ndarray, mu: float | None) -> np.ndarray:
        """The shifted `sigmas`, in float32 from beginning to end."""
        return self.shifted(np.asarray(sigmas, np.float32), mu)

    def timesteps(self, levels: np.ndarray) -> np.ndarray:
        """The levels in thousandths, float32."""
        return levels.astype(np.float32) * np.float32(self.num_train_timesteps)

    def solve(self) -> Solver:
        """Euler."""
        return euler


@dataclass(frozen=True, kw_only=True)
class FlowUniPC(Schedule):
    """UniPCMultistepScheduler along a flow.

    Unlike the reference: flow sigmas and flow predictions are the default, since nothing else exists here.
    """

    published_class: ClassVar[str] = "UniPCMultistepScheduler"
    fixed: ClassVar[Mapping[str, Any]] = {
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "trained_betas": None,
        "thresholding": False,
        "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0,
        "predict_x0": True,
        "prediction_type": "flow_prediction",
        "solver_p": None,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "use_flow_sigmas": True,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "final_sigmas_type": "zero",
        "rescale_betas_zero_snr": False,
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    }

    solver_order: int = 2
    solver_type: str = "bh2"
    lower_order_final: bool = True
    disable_corrector: tuple[int, ...] = ()
    flow_shift: float = 1.0

    def __post_init__(self) -> None:
        _one_of("solver_type", self.solver_type, ("bh1", "bh2"))
        _one_of("solver_order", self.solver_order, (1, 2, 3))
        super().__post_init__()

    @property
    def static(self) -> float:
        """The static shift, which does not depend on the number of tokens."""
        return self.flow_shift

    @property
    def options(self) -> UniPC:
        """The solver's options: those of the config, in the time of the paper."""
        variant: Any = self.solver_type
        return UniPC(self.solver_order, variant, SNR_TIME, self.lower_order_final, self.disable_corrector)

    def levels(self, sigmas: Sequence[float] | np.ndarray, mu: float | None) -> np.ndarray:
        """The shifted `sigmas` in float64: diffusers makes the timesteps of them before it rounds them."""
        levels = self.shifted(np.array(sigmas, np.float64), mu)
        if abs(levels[0] - 1.0) < 1e-6:
            # At sigma 1 the log of the signal-to-noise ratio is infinite; the reference's way out, to the digit.
            levels[0] -= 1e-6
        return levels

    def timesteps(self, levels: np.ndarray) -> np.ndarray:
        """The levels in thousandths, cut to whole numbers."""
        return (levels * self.num_train_timesteps).astype(np.int64)

    def solve(self) -> Solver:
        """UniPC as diffusers runs it: it steps over float32 sigmas, and the network sees whole timesteps."""

        def solver(velocity: Velocity, latents: Any, sigmas: Sequence[float]) -> Steps:
            rounded = np.asarray(sigmas, np.float32).tolist()
            seen = self.timesteps(np.asarray(sigmas[:-1], np.float64)) / self.num_train_timesteps
            seen_at = dict(zip(rounded, seen.tolist(), strict=False))
            return unipc_with(self.options, lambda x, sigma: velocity(x, seen_at[sigma]), latents, rounded)

        return solver


CLASSES: dict[str, type[Schedule]] = {kind.published_class: kind for kind in (FlowMatchEuler, FlowUniPC)}


def mu_of(config: Mapping[str, Any], tokens: float) -> float:
    """Logarithm of the dynamic shift that a scheduler's config asks for, as FramePack's pipeline computes it."""
    return noise_levels.dynamic_mu(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )


def count(steps: int | None) -> int:
    """The number of steps; raises JobError if it is none."""
    if steps is None or steps < 1:
        raise JobError(f"A schedule needs a number of steps (1 or more) or sigmas; {steps} was given.")
    return steps


def _one_of(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        raise ModelError(f"{name} must be one of {', '.join(map(str, known))}; {value!r} was asked for.")


def _check_type(name: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the default's: text for a number, a number that is none."""
    kinds: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
    right = isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)
    if not right or (isinstance(value, float) and not math.isfinite(value)):
        raise ModelError(f"{name} must be {KINDS[type(default)]}; {value!r} was asked for.")
