"""The field's schedulers over `sampling.schedule`: each can stand in for its namesake in diffusers.

The pipeline itself runs on a `Schedule`, which is data; these classes are for code that was written for diffusers. The
arithmetic is diffusers' where the two differ from FramePack's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from longtake.backend import ops
from longtake.errors import JobError
from longtake.models.outputs import Output
from longtake.sampling.schedule import CONFIG_NAME, FlowMatchEuler, FlowUniPC, Schedule, count
from longtake.sampling.solvers import Past, euler_step, unipc_step
from longtake.weights.folder import find_model
from longtake.weights.hub import HubOptions, Part
from longtake.weights.saving import write_json


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
    """A schedule, and the place in it: what both classes share.

    The settings are those of the schedule's class, by name. `schedule` is the data that the object is over, and
    `step_index` the number of the next step, while a loop drives it too. Raises ModelError for a setting that does not
    exist here.
    """

    kind: ClassVar[type[Schedule]]
    order = 1
    init_noise_sigma = 1.0

    def __init__(self, num_train_timesteps: int = 1000, **settings: Any) -> None:
        self.schedule = self.kind.of(num_train_timesteps=num_train_timesteps, **settings)
        self.config = SchedulerConfig(self.schedule.settings())
        self.num_inference_steps: int | None = None
        self.sigmas: Any = None
        self.timesteps: Any = None
        self._levels: list[float] = []
        self._step_index: int | None = None
        self._begin_index: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> Any:
        """A scheduler with the settings of another's `config`, and `changes` to them.

        Settings that only the other kind of scheduler has are left out, so that one can be made from the other.
        """
        if not isinstance(config, Mapping):
            raise JobError(
                f"from_config takes the config of a scheduler, not {type(config).__name__}; pass scheduler.config."
            )
        return cls(**cls.kind.from_config(config, **changes).settings())

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
        place = find_model(folder, [part], hub=options) / part.folder
        return cls(**Schedule.read_folder(place, cls.kind.published_class, **changes).settings())

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `scheduler_config.json`, which diffusers reads too."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder, CONFIG_NAME), {**self.config, "_class_name": self.kind.published_class})

    @property
    def compatibles(self) -> list[type[Scheduler]]:
        """The classes that can be made of this one's config."""
        return list(Scheduler.__subclasses__())

    @property
    def step_index(self) -> int | None:
        """Number of the next step; None before the first one."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Number of the first step, if `set_begin_index` was told one."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at this step, whatever the timestep of the first one says."""
        self._begin_index = begin_index

    def scale_model_input(self, sample: Any, timestep: Any = None) -> Any:
        """The sample itself; other schedulers scale it."""
        return sample

    def __len__(self) -> int:
        return self.schedule.num_train_timesteps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Make the schedule: `num_inference_steps` even steps or `sigmas` (without the last 0), shifted either way.

        Unlike the reference: own `timesteps` are refused; sigmas say the same.
        """
        if timesteps is not None:
            raise JobError(f"{type(self).__name__} takes sigmas, not timesteps; pass sigmas instead.")
        if sigmas is not None and num_inference_steps not in (None, len(sigmas)):
            raise JobError(f"{len(sigmas)} sigmas do not make {num_inference_steps} steps.")
        levels = (
            self._even(count(num_inference_steps), mu) if sigmas is None else self.schedule.levels(sigmas, mu)
        )
        self._begin(np.append(levels, 0.0), self.schedule.timesteps(levels), device)

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True) -> Any:
        """One step from `timestep` to the next one; returned in the dtype that the namesake has."""
        index = self._index(timestep)
        latents = self._step(model_output, sample, index)
        self._step_index = index + 1
        return SchedulerOutput(prev_sample=latents) if return_dict else (latents,)

    def _even(self, steps: int, mu: float | None) -> np.ndarray:
        """The shifted levels of so many even steps, without the last 0."""
        raise NotImplementedError

    def _step(self, model_output: Any, sample: Any, index: int) -> Any:
        raise NotImplementedError

    def _begin(self, sigmas: np.ndarray, timesteps: np.ndarray, device: Any) -> None:
        """Take a new schedule; `sigmas` end in 0."""
        sigmas = sigmas.astype(np.float32)
        self._levels = sigmas.tolist()
        self.num_inference_steps = len(timesteps)
        self.sigmas = ops.from_numpy(sigmas)
        self.timesteps = ops.from_numpy(timesteps)
        if device is not None:
            self.timesteps = self.timesteps.to(device)
        self._step_index = self._begin_index = None

    def _index(self, timestep: Any) -> int:
        """Number of the step to make, from its timestep if it is the first one."""
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

    kind: ClassVar[type[Schedule]] = FlowMatchEuler
    schedule: FlowMatchEuler

    def __init__(self, num_train_timesteps: int = 1000, shift: float = 1.0, **settings: Any) -> None:
        super().__init__(num_train_timesteps, shift=shift, **settings)
        levels = np.arange(num_train_timesteps, 0, -1, dtype=np.float32) / np.float32(num_train_timesteps)
        if not self.schedule.use_dynamic_shifting:
            levels = self.schedule.shifted(levels, None)
        self.sigma_max, self.sigma_min = float(levels[0]), float(levels[-1])
        self._begin(levels, self.schedule.timesteps(levels), None)
        self.num_inference_steps = None

    @property
    def shift(self) -> float:
        """The static shift."""
        return self.schedule.shift

    def set_shift(self, shift: float) -> None:
        """Change the static shift of schedules to come."""
        self.schedule = replace(self.schedule, shift=float(shift))

    def _even(self, steps: int, mu: float | None) -> np.ndarray:
        # As the reference: between limits that the static shift has moved already, and shifted once more.
        return self.schedule.shifted(np.linspace(self.sigma_max, self.sigma_min, steps), mu).astype(
            np.float32
        )

    def _step(self, model_output: Any, sample: Any, index: int) -> Any:
        # Computed in float32, returned in the dtype of the velocity.
        return euler_step(sample.float(), model_output, self._levels, index).to(model_output.dtype)


class UniPCMultistepScheduler(Scheduler):
    """UniPC along a flow; equals diffusers' class of this name with flow sigmas and flow predictions.

    Unlike the reference: those two are the default, since nothing else exists here; and the last step is of order 1
    always, where the reference's is NaN for `bh1` and infinite without `lower_order_final`.
    """

    kind: ClassVar[type[Schedule]] = FlowUniPC
    schedule: FlowUniPC
    _past: Past | None = None

    def _begin(self, sigmas: np.ndarray, timesteps: np.ndarray, device: Any) -> None:
        super()._begin(sigmas, timesteps, device)
        self._past = None

    def _even(self, steps: int, mu: float | None) -> np.ndarray:
        training = self.schedule.num_train_timesteps
        return self.schedule.levels(np.linspace(1.0, 1.0 / training, steps + 1)[:-1], mu)

    def _step(self, model_output: Any, sample: Any, index: int) -> Any:
        denoised = sample - self._levels[index] * model_output
        latents, self._past = unipc_step(
            sample, denoised, self._levels, index, self._past, self.schedule.options
        )
        return latents.to(sample.dtype)


def scheduler_of(part: Any) -> Any:
    """The scheduler object of a `Schedule`; any other scheduler is itself."""
    if not isinstance(part, Schedule):
        return part
    kinds = {kind.kind: kind for kind in Scheduler.__subclasses__()}
    return kinds[type(part)](**part.settings())
