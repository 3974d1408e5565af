"""Which tasks there are, and what data each takes."""

import inspect
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NotRequired, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, SecretBytes, SecretStr, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from app.core.exceptions import ConfigError
from app.core.services.queue.interface import BaseTask

T = TypeVar("T", bound=type[BaseTask])

_CRON_LINE = re.compile(r"[\d*,/-]+(?: [\d*,/-]+){4}")


class TaskDataError(ValueError):
    """What was pushed does not fit the task's `run`: a fault of the code that pushes, not of a client."""


class UnknownTask(LookupError):
    """A job names a task this process does not have."""


class RegisteredTask:
    """A task class and the adapter that checks its data in both directions."""

    def __init__(self, cls: type[BaseTask]) -> None:
        self.cls = cls
        self.name = cls.__task_name__
        self._adapter: TypeAdapter[dict[str, Any]] | None = None

    @property
    def adapter(self) -> TypeAdapter[dict[str, Any]]:
        """Built on first use: annotations may name what is defined after the class."""
        if self._adapter is None:
            self._adapter = TypeAdapter(_data_type(self.cls))
        return self._adapter

    def dump(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Check pushed data and make JSON of it; TaskDataError where it does not fit."""
        try:
            payload = self.adapter.dump_python(self.adapter.validate_python(dict(data)), mode="json")
        except ValidationError as exc:
            raise TaskDataError(f"data for task {self.name} does not fit: {describe_faults(exc)}") from exc
        return dict(payload)

    def load(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of `run` from a stored payload."""
        return dict(self.adapter.validate_python(dict(payload)))


class TaskRegistry:
    """Tasks by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, RegisteredTask] = {}

    def add(self, cls: type[BaseTask]) -> None:
        """Register `cls`; ConfigError where it is no complete task or its name is taken."""
        _check(cls)
        taken = self._tasks.get(cls.__task_name__)
        if taken and taken.cls is not cls:
            raise ConfigError(f"task name {cls.__task_name__!r} is used by {_path(taken.cls)} and by {_path(cls)}")
        self._tasks[cls.__task_name__] = RegisteredTask(cls)

    def get(self, name: str) -> RegisteredTask:
        """The task called `name`, or UnknownTask."""
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTask(f"no task is registered as {name!r}: is its module installed here?") from None

    def of(self, cls: type[BaseTask]) -> RegisteredTask:
        """The registration of `cls`; TypeError where `@queued` is missing."""
        task = self._tasks.get(getattr(cls, "__task_name__", ""))
        if task is None or task.cls is not cls:
            raise TypeError(f"{_path(cls)} is not registered: decorate it with @queued")
        return task

    def __iter__(self) -> Iterator[RegisteredTask]:
        return iter(list(self._tasks.values()))


tasks = TaskRegistry()


def queued(cls: T) -> T:
    """Register a task class under its `__task_name__`."""
    tasks.add(cls)
    return cls


def describe_faults(error: ValidationError) -> str:
    """What is wrong, without the values that were given."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'data'}: {fault['msg']}" for fault in faults)


def _check(cls: type[BaseTask]) -> None:
    if not (isinstance(cls, type) and issubclass(cls, BaseTask)):
        raise ConfigError(f"@queued takes a subclass of BaseTask, not {cls!r}")
    if not getattr(cls, "__task_name__", ""):
        raise ConfigError(f"{_path(cls)} has no __task_name__")
    run = getattr(cls, "run", None)
    if not inspect.iscoroutinefunction(run):
        raise ConfigError(f"{_path(cls)} has no `async def run(self, ...)`")
    for parameter in _parameters(cls):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"{_path(cls)}.run takes {parameter.name!r}, which cannot be pushed by name")
        if _names_secret(parameter.annotation):
            raise ConfigError(f"{_path(cls)}.run takes {parameter.name!r}: no row may hold a secret")
    if cls.__schedule__ is not None:
        _check_schedule(cls, cls.__schedule__)


def _names_secret(annotation: Any) -> bool:
    """Whether a secret type is named, as `SecretStr | None` or in a list too."""
    return annotation in (SecretStr, SecretBytes) or any(map(_names_secret, get_args(annotation)))


def _check_schedule(cls: type[BaseTask], schedule: str | timedelta) -> None:
    if isinstance(schedule, str):
        if not _CRON_LINE.fullmatch(schedule):
            raise ConfigError(f"{_path(cls)}.__schedule__ is no cron line of five fields: {schedule!r}")
    elif schedule < timedelta(seconds=1) or schedule.microseconds:
        raise ConfigError(f"{_path(cls)}.__schedule__ must be whole seconds, at least one")
    if needed := [parameter.name for parameter in _parameters(cls) if parameter.default is parameter.empty]:
        raise ConfigError(f"{_path(cls)} runs by the clock, nobody gives its run {', '.join(needed)}")


def _parameters(cls: type[BaseTask]) -> list[inspect.Parameter]:
    return list(inspect.signature(cls.run).parameters.values())[1:]  # without self


def _data_type(cls: type[BaseTask]) -> Any:
    hints = get_type_hints(cls.run, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in _parameters(cls):
        hint = hints.get(parameter.name, Any)
        fields[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
    data_type = TypedDict("TaskData", fields)  # type: ignore[misc]  # made from the signature
    return with_config(ConfigDict(extra="forbid", hide_input_in_errors=True))(data_type)


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
