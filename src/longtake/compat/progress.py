"""The progress bar of a pipeline: tqdm's, if that is installed."""

from __future__ import annotations

from typing import Any


class ProgressBars:
    """A pipeline's bars, one for each section."""

    _bar_settings: dict[str, Any] | None = None

    def set_progress_bar_config(
        self,
        disable: bool | None = None,
        desc: str | None = None,
        leave: bool | None = None,
        position: int | None = None,
        ncols: int | None = None,
        dynamic_ncols: bool | None = None,
        ascii: bool | str | None = None,
        unit: str | None = None,
        colour: str | None = None,
        mininterval: float | None = None,
        bar_format: str | None = None,
        file: Any = None,
    ) -> None:
        """Choose the look of each section's bar, in tqdm's words."""
        given = {
            "disable": disable,
            "desc": desc,
            "leave": leave,
            "position": position,
            "ncols": ncols,
            "dynamic_ncols": dynamic_ncols,
            "ascii": ascii,
            "unit": unit,
            "colour": colour,
            "mininterval": mininterval,
            "bar_format": bar_format,
            "file": file,
        }
        self._bar_settings = {key: value for key, value in given.items() if value is not None}

    def progress_bar(self, iterable: Any = None, total: int | None = None) -> Any:
        """A progress bar over an iterable or of `total` steps."""
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return NoBar(iterable)
        return tqdm(iterable, total=total, **(self._bar_settings or {}))


class NoBar:
    """A bar that shows nothing, without tqdm."""

    def __init__(self, iterable: Any = None) -> None:
        self.iterable = iterable

    def __iter__(self) -> Any:
        return iter(self.iterable or ())

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
