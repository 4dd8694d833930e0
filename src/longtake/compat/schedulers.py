"""The field's schedulers over our sampling room: each can stand in for its namesake in diffusers.

Networks and pipelines of ours use `longtake.sampling` itself; these classes are for folders (`scheduler_config.json`)
and for code that was written for diffusers. The arithmetic is diffusers' where the two differ from FramePack's.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from longtake.backend import ops
from longtake.config import read_json
from longtake.errors import JobError, ModelError
from longtake.models.outputs import Output
from longtake.sampling import sigmas as schedules
from longtake.sampling.solvers import SNR_TIME, Point, unipc_update
from longtake.weights.folder import find_model
from longtake.weights.hub import HubOptions, Part

CONFIG_NAME = "scheduler_config.json"
# What the two kinds of schedulers call the static shift of the noise levels.
SHIFTS = ("shift", "flow_shift")


@dataclass
class SchedulerOutput(Output):
    """The latents after a step."""

    prev_sample: Any


class SchedulerConfig(dict[str, Any]):
    """A scheduler's settings, by key and by attribute; read only.

    A `dict`, since diffusers' `from_config` asks for one.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the scheduler has no setting {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles would else be filled key by key, which is refused.
        return type(self), (dict(self),)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "a scheduler's config is read only; build another with from_config(config, name=value)"
        )

    __setattr__ = __setitem__ = __delitem__ = update = pop = setdefault = clear = _refuse


class Scheduler:
    """What both schedulers share: config, files, the schedule and the place in it.

    A subclass names its settings in `__init__` and, in `FIXED`, those of its namesake that exist here at their default
    alone. Raises ModelError for any other setting.
    """

    FIXED: ClassVar[Mapping[str, Any]] = {}
    order = 1
    init_noise_sigma = 1.0

    def __init__(self, settings: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
        for key, value in fixed.items():
            if key not in self.FIXED:
                raise ModelError(
                    f"{type(self).__name__} has no setting {key!r}; it has {', '.join(sorted(self.settings()))}."
                )
            if value != self.FIXED[key]:
                raise ModelError(
                    f"{type(self).__name__} supports {key} = {self.FIXED[key]!r} only; {value!r} was asked for."
                )
        self.config = SchedulerConfig({**self.FIXED, **settings})
        self.num_inference_steps: int | None = None
        self.sigmas: Any = None
        self.timesteps: Any = None
        self._levels = np.zeros(0, np.float32)
        self._step_index: int | None = None
        self._begin_index: int | None = None

    @classmethod
    def settings(cls) -> set[str]:
        """Names of all settings, the fixed ones included."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        named = {one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD}
        return named - {"self"} | set(cls.FIXED)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> Any:
        """A scheduler with the settings of another's `config`, and `changes` to them.

        Settings that only the other kind of scheduler has are left out, so that one can be made from the other.
        Unlike the reference: the shift of the noise levels goes along under the other kind's name for it.
        """
        known = set().union(*(kind.settings() for kind in Scheduler.__subclasses__()))
        foreign = known - cls.settings()
        kept = {key: config[key] for key in config if not key.startswith("_") and key not in foreign}
        for own, other in (SHIFTS, SHIFTS[::-1]):
            if own in cls.settings() and own not in config and other in config:
                kept[own] = config[other]
        return cls(**{**kept, **changes})

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        subfolder: str | None = None,
        *,
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
        **changes: Any,
    ) -> Any:
        """The scheduler that `folder[/subfolder]/scheduler_config.json` describes, with `changes` to its settings.

        `folder` may be a model's name on the hub, which is read as the five before `changes` say (`HubOptions`).
        """
        options = HubOptions(revision, cache_dir, local_files_only, token, force_download)
        part = Part(subfolder or "", (CONFIG_NAME,))
        path = find_model(folder, [part], hub=options) / part.folder / CONFIG_NAME
        config = read_json(path)
        try:
            return cls.from_config(config, **changes)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `scheduler_config.json`, which diffusers reads too."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        config = {"_class_name": type(self).__name__, **self.config}
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        Path(folder, CONFIG_NAME).write_text(text, encoding="utf-8")

    @property
    def step_index(self) -> int | None:
        """Number of the next step; None before the first one."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Number of the first step, where `set_begin_index` was told one."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at this step, whatever the timestep of the first one says."""
        self._begin_index = begin_index

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    def _check(self, sigmas: Sequence[float] | None, mu: float | None) -> None:
        if sigmas is not None and len(sigmas) == 0:
            raise JobError("A schedule needs at least one sigma.")
        if self.config.use_dynamic_shifting and mu is None:
            raise JobError(f"{type(self).__name__} shifts dynamically, so set_timesteps needs mu.")

    def _shifted(self, sigmas: np.ndarray, shift: float, mu: float | None) -> np.ndarray:
        """Sigmas under the static `shift`, or under `mu` where the config asks for the dynamic one."""
        if self.config.use_dynamic_shifting and mu is not None:
            shift = math.exp(mu) if self.config.time_shift_type == "exponential" else mu
        return schedules.shifted(sigmas, shift)

    def _begin(self, levels: np.ndarray, timesteps: np.ndarray, device: Any) -> None:
        """Take a new schedule; `levels` (float32) end in 0."""
        self._levels = levels
        self.num_inference_steps = len(timesteps)
        self.sigmas = ops.from_numpy(levels)
        self.timesteps = ops.from_numpy(timesteps)
        if device is not None:
            self.timesteps = self.timesteps.to(device)
        self._step_index = self._begin_index = None

    def _index(self, timestep: Any) -> int:
        """Number of the step to make, from its timestep where it is the first one."""
        if self.num_inference_steps is None:
            raise JobError("set_timesteps must be called before step.")
        if self._step_index is None:
            self._step_index = self._find(float(timestep)) if self._begin_index is None else self._begin_index
        if self._step_index >= self.num_inference_steps:
            raise JobError(f"The schedule has {self.num_inference_steps} steps, and all of them are done.")
        return self._step_index

    def _find(self, timestep: float) -> int:
        known = self.timesteps.tolist()
        if timestep not in known:
            raise JobError(
                f"The timestep {timestep} is none of the schedule's; pass one of scheduler.timesteps."
            )
        # Unlike the reference: the first of equal timesteps, not the second, which loses a step and then overruns.
        return int(known.index(timestep))


class FlowMatchEulerDiscreteScheduler(Scheduler):
    """Euler steps along a flow; equals diffusers' class of this name."""

    FIXED: ClassVar[Mapping[str, Any]] = {
        "invert_sigmas": False,
        "shift_terminal": None,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "stochastic_sampling": False,
    }

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        base_shift: float = 0.5,
        max_shift: float = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        time_shift_type: str = "exponential",
        **fixed: Any,
    ) -> None:
        _one_of("time_shift_type", time_shift_type, ("exponential", "linear"))
        settings = {
            "num_train_timesteps": num_train_timesteps,
            "shift": shift,
            "use_dynamic_shifting": use_dynamic_shifting,
            "base_shift": base_shift,
            "max_shift": max_shift,
            "base_image_seq_len": base_image_seq_len,
            "max_image_seq_len": max_image_seq_len,
            "time_shift_type": time_shift_type,
        }
        super().__init__(settings, fixed)
        self._shift = float(shift)
        training = np.arange(num_train_timesteps, 0, -1, dtype=np.float32) / np.float32(num_train_timesteps)
        levels = training if use_dynamic_shifting else schedules.shifted(training, self._shift)
        self.sigma_max, self.sigma_min = float(levels[0]), float(levels[-1])
        self._begin(levels, levels * np.float32(num_train_timesteps), None)
        self.num_inference_steps = None

    @property
    def shift(self) -> float:
        """The static shift."""
        return self._shift

    def set_shift(self, shift: float) -> None:
        """Change the static shift of schedules to come."""
        self._shift = float(shift)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Make the schedule: `num_inference_steps` even steps or `sigmas` (without the last 0), shifted either way."""
        self._check(sigmas, mu)
        if sigmas is not None:
            if num_inference_steps not in (None, len(sigmas)):
                raise JobError(f"{len(sigmas)} sigmas do not make {num_inference_steps} steps.")
            plain = np.asarray(sigmas, np.float32)
        else:
            # As the reference: between limits that the static shift has moved already; it is applied once more below.
            plain = np.linspace(self.sigma_max, self.sigma_min, _steps(num_inference_steps))
        levels = self._shifted(plain, self._shift, mu).astype(np.float32)
        timesteps = levels * np.float32(self.config.num_train_timesteps)
        self._begin(np.append(levels, np.float32(0.0)), timesteps, device)

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True) -> Any:
        """One step from `timestep` to the next one; computed in float32, returned in the dtype of `model_output`."""
        index = self._index(timestep)
        # The difference in float32, as the reference takes it.
        change = float(self._levels[index + 1] - self._levels[index])
        latents = (sample.float() + change * model_output).to(model_output.dtype)
        self._step_index = index + 1
        return SchedulerOutput(prev_sample=latents) if return_dict else (latents,)


class UniPCMultistepScheduler(Scheduler):
    """UniPC along a flow; equals diffusers' class of this name with flow sigmas and flow predictions.

    Unlike the reference: those two are the default, since nothing else exists here; and the last step is of order 1
    always, where the reference's is NaN for `bh1` and infinite without `lower_order_final`.
    """

    FIXED: ClassVar[Mapping[str, Any]] = {
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

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        solver_order: int = 2,
        solver_type: str = "bh2",
        lower_order_final: bool = True,
        disable_corrector: Sequence[int] = (),
        flow_shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        **fixed: Any,
    ) -> None:
        _one_of("solver_type", solver_type, ("bh1", "bh2"))
        _one_of("solver_order", solver_order, (1, 2, 3))
        _one_of("time_shift_type", time_shift_type, ("exponential", "linear"))
        settings = {
            "num_train_timesteps": num_train_timesteps,
            "solver_order": solver_order,
            "solver_type": solver_type,
            "lower_order_final": lower_order_final,
            "disable_corrector": list(disable_corrector),
            "flow_shift": flow_shift,
            "use_dynamic_shifting": use_dynamic_shifting,
            "time_shift_type": time_shift_type,
        }
        super().__init__(settings, fixed)
        self._points: list[Point] = []
        self._used: list[Point] = []
        self._corrected: Any = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Make the schedule: `num_inference_steps` even steps or `sigmas` (without the last 0), shifted either way."""
        self._check(sigmas, mu)
        training = self.config.num_train_timesteps
        if sigmas is None:
            plain = np.linspace(1.0, 1.0 / training, _steps(num_inference_steps) + 1)[:-1]
        else:
            plain = np.array(sigmas, np.float64)
        levels = self._shifted(plain, self.config.flow_shift, mu)
        if abs(levels[0] - 1.0) < 1e-6:
            # At sigma 1 the log of the signal-to-noise ratio is infinite; the reference's way out, to the digit.
            levels[0] -= 1e-6
        self._begin(np.append(levels, 0.0).astype(np.float32), (levels * training).astype(np.int64), device)
        self._points, self._used, self._corrected = [], [], None

    def scale_model_input(self, sample: Any, timestep: Any = None) -> Any:
        """The sample itself; other schedulers scale it."""
        return sample

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True) -> Any:
        """One step from `timestep` to the next one, after correcting `sample` by the new prediction."""
        index = self._index(timestep)
        sigma, following = float(self._levels[index]), float(self._levels[index + 1])
        denoised = sample - sigma * model_output
        if self._used and index - 1 not in self.config.disable_corrector:
            sample = unipc_update(
                self._corrected, self._used, sigma, self.config.solver_type, SNR_TIME, at_target=denoised
            )
        self._points = [Point(sigma, denoised), *self._points][: self.config.solver_order]
        order = self._order_at(index)
        self._used, self._corrected = self._points[:order], sample
        latents = unipc_update(sample, self._used, following, self.config.solver_type, SNR_TIME)
        latents = latents.to(sample.dtype)
        self._step_index = index + 1
        return SchedulerOutput(prev_sample=latents) if return_dict else (latents,)

    def _order_at(self, index: int) -> int:
        """The order of this step: it grows from 1 and, where the config says so, falls to 1 at the end."""
        left = len(self._levels) - 1 - index if self.config.lower_order_final else self.config.solver_order
        return min(len(self._points), left)


def _steps(steps: int | None) -> int:
    if steps is None or steps < 1:
        raise JobError(f"A schedule needs a number of steps (1 or more) or sigmas; {steps} was given.")
    return steps


def _one_of(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        raise ModelError(f"{name} must be one of {', '.join(map(str, known))}; {value!r} was asked for.")
