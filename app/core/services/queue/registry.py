"""Which tasks there are, and what data each takes."""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, NotRequired, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticSchemaGenerationError
from typing_extensions import TypedDict

from app.core.db.base import utcnow
from app.core.exceptions import ConfigError
from app.core.services.failures import describe_faults
from app.core.services.queue.injection import dependencies_of, injected
from app.core.services.queue.interface import BaseTask, PermanentFailure, schedule_of
from app.core.services.secret_types import holds_secret

T = TypeVar("T", bound=type[BaseTask])


class TaskDataError(ValueError):
    """What was pushed does not fit the task's `run`: a fault of the code that pushes, not of a client."""


class UnknownTask(LookupError):
    """A job names a task this process does not have."""


class TaskResultError(PermanentFailure):
    """What a task returned is not what it declares, or no JSON. Its work is done: to repeat it would not help."""


class RegisteredTask:
    """A task class and the adapters that check its data and its result."""

    def __init__(self, cls: type[BaseTask]) -> None:
        self.cls = cls
        self.name = cls.__task_name__
        self.schedule = None if cls.__schedule__ is None else schedule_of(cls.__schedule__)

    @cached_property
    def adapter(self) -> TypeAdapter[dict[str, Any]]:
        """Built on first use: annotations may name what is defined after the class."""
        return TypeAdapter(_data_type(self.cls))

    @cached_property
    def result_adapter(self) -> TypeAdapter[Any]:
        """What `run` says it returns."""
        return TypeAdapter(get_type_hints(self.cls.run, include_extras=True).get("return", Any))

    def dump(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Check pushed data and make JSON of it; TaskDataError where it does not fit."""
        try:
            payload = _dump(self.adapter, dict(data))
            self.load(payload)  # what could not be read back, NaN say, is refused here, not when it runs
            return dict(payload)
        except ValidationError as exc:
            raise TaskDataError(f"data for task {self.name} does not fit: {describe_faults(exc)}") from exc
        except ValueError as exc:
            raise TaskDataError(f"data for task {self.name} is no JSON") from exc

    def load(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of `run` from a stored payload."""
        return dict(self.adapter.validate_python(dict(payload), by_alias=False, by_name=True))

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        """Run the task once, with the dependencies it asks for; what it returned, as JSON."""
        async with injected(self.cls.run) as dependencies:
            # Inside, so that a unit of work is rolled back with a result that cannot be stored.
            return self._dump_result(await self.cls().run(**arguments, **dependencies))

    def _dump_result(self, result: Any) -> Any:
        try:
            return _dump(self.result_adapter, result)
        except ValidationError as exc:
            raise TaskResultError(f"{self.name} returned what it does not declare: {describe_faults(exc)}") from exc
        except ValueError as exc:
            raise TaskResultError(f"{self.name} returned what is no JSON") from exc


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
        """The task called `name`, now or formerly, or UnknownTask."""
        return self._called(name)[0]

    def read(self, name: str, payload: Mapping[str, Any]) -> tuple[RegisteredTask, dict[str, Any]]:
        """The task of a stored job and the arguments of its `run`; ValidationError where the payload does not fit.

        A name may have been given to another task since: the one that can read the payload is meant.
        """
        first, *others = self._called(name)
        try:
            return first, first.load(payload)
        except ValidationError:
            for other in others:
                with suppress(ValidationError):
                    return other, other.load(payload)
            raise

    def _called(self, name: str) -> list[RegisteredTask]:
        """The task of this name first, then those that had it."""
        found = [task for task in self._tasks.values() if name in task.cls.__former_names__]
        found = [self._tasks[name], *found] if name in self._tasks else found
        if not found:
            raise UnknownTask(f"no task is registered as {name!r}: is its module installed here?")
        return found

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


def _dump(adapter: TypeAdapter[Any], value: Any) -> Any:
    dumped = adapter.dump_python(adapter.validate_python(value), mode="json", by_alias=False)
    json.dumps(dumped, allow_nan=False)  # what the column would refuse is refused here, not at the commit
    return dumped


def _check(cls: type[BaseTask]) -> None:
    if not (isinstance(cls, type) and issubclass(cls, BaseTask)):
        raise ConfigError(f"@queued takes a subclass of BaseTask, not {cls!r}")
    if not getattr(cls, "__task_name__", ""):
        raise ConfigError(f"{_path(cls)} has no __task_name__")
    run = getattr(cls, "run", None)
    if not inspect.iscoroutinefunction(run):
        raise ConfigError(f"{_path(cls)} has no `async def run(self, ...)`")
    with suppress(NameError):  # an annotation may name what is defined after the class
        _check_annotations(cls)
        if cls.__schedule__ and (needed := [each.name for each in _parameters(cls) if each.default is each.empty]):
            raise ConfigError(f"{_path(cls)} runs by the clock, nobody gives its run {', '.join(needed)}")
    _check_schedule(cls)


def _check_annotations(cls: type[BaseTask]) -> None:
    for parameter in _parameters(cls):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"{_path(cls)}.run takes {parameter.name!r}, which cannot be pushed by name")
        if holds_secret(parameter.annotation):
            raise ConfigError(f"{_path(cls)}.run takes {parameter.name!r}: no row may hold a secret")
    if holds_secret(inspect.signature(cls.run, eval_str=True).return_annotation):
        raise ConfigError(f"{_path(cls)}.run returns a secret: no row may hold one")
    try:
        task = RegisteredTask(cls)
        _ = task.adapter, task.result_adapter
    except PydanticSchemaGenerationError as exc:
        raise ConfigError(f"{_path(cls)}.run takes or returns what cannot be stored as JSON: {exc.message}") from exc


def _check_schedule(cls: type[BaseTask]) -> None:
    try:
        if schedule := RegisteredTask(cls).schedule:
            schedule.next_after(utcnow())
    except (ValueError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{_path(cls)}.__schedule__ = {cls.__schedule__!r}: {exc}") from exc


def _parameters(cls: type[BaseTask]) -> list[inspect.Parameter]:
    """What is pushed: neither `self` nor a dependency."""
    own = list(inspect.signature(cls.run, eval_str=True).parameters.values())[1:]
    return [parameter for parameter in own if parameter.name not in dependencies_of(cls.run)]


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
