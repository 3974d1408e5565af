"""The registry of tasks, and the checks of their data and results."""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, NotRequired, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticSchemaGenerationError
from typing_extensions import TypedDict

from app.core.configs.app import QUEUE_NAME
from app.core.db.base import utcnow
from app.core.exceptions import ConfigError
from app.core.metrics import OTHER
from app.core.services.failures import describe_faults
from app.core.services.queue.injection import dependencies_of, injected, path_of
from app.core.services.queue.interface import BaseTask, PermanentFailure, checked_priority, schedule_of
from app.core.services.secret_types import holds_secret

T = TypeVar("T", bound=type[BaseTask])

MAX_KEY_LENGTH = 255


class TaskDataError(ValueError):
    """Pushed data does not fit the task's `run`: a fault of the code that pushes, not of a client."""


class UnknownTask(LookupError):
    """A job names a task this process does not have."""


class TaskResultError(PermanentFailure):
    """A result is not what the task declares, or no JSON. The work is done: a retry would not help."""


class RegisteredTask:
    """A task class with its schedule, and the adapters that check its data and its result."""

    def __init__(self, cls: type[BaseTask]) -> None:
        self.cls = cls
        self.name = cls.__task_name__
        self.schedule = None if cls.__schedule__ is None else schedule_of(cls.__schedule__)

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """The parameters of `run` that are pushed: neither `self` nor a dependency."""
        own = list(inspect.signature(self.cls.run, eval_str=True).parameters.values())[1:]
        injected_names = dependencies_of(self.cls.run)
        return [parameter for parameter in own if parameter.name not in injected_names]

    @cached_property
    def adapter(self) -> TypeAdapter[dict[str, Any]]:
        """Checks pushed data. Built on first use: annotations may name what is defined after the class."""
        hints = get_type_hints(self.cls.run, include_extras=True)
        fields: dict[str, Any] = {}
        for parameter in self.parameters:
            hint = hints.get(parameter.name, Any)
            fields[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
        data_type = TypedDict("TaskData", fields)  # type: ignore[misc]  # made from the signature
        strict: Any = with_config(ConfigDict(extra="forbid", hide_input_in_errors=True))(data_type)
        return TypeAdapter(strict)

    @cached_property
    def result_adapter(self) -> TypeAdapter[Any]:
        """Checks results against what `run` says it returns."""
        return TypeAdapter(get_type_hints(self.cls.run, include_extras=True).get("return", Any))

    def dump(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Check pushed data and return it as JSON; TaskDataError if it does not fit."""
        try:
            payload = _dump(self.adapter, dict(data))
            self.load(payload)  # what could not be read back, NaN say, is refused here, not when it runs
            return dict(payload)
        except ValidationError as exc:
            raise TaskDataError(f"data for task {self.name} does not fit: {describe_faults(exc)}") from exc
        except ValueError as exc:
            raise TaskDataError(f"data for task {self.name} is no JSON") from exc

    def load(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments of `run` from a stored payload."""
        return dict(self.adapter.validate_python(dict(payload), by_alias=False, by_name=True))

    def limit_key(self, payload: Mapping[str, Any]) -> str | None:
        """Return the limit key of this payload; raises TaskDataError if the key is too long or not printable."""
        key = self.cls._get_limit_key(payload) if self.cls.limit else None
        if key is not None and not (0 < len(key) <= MAX_KEY_LENGTH and key.isprintable()):
            raise TaskDataError(f"the limit key of {self.name} must be 1 to {MAX_KEY_LENGTH} printable characters")
        return key

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        """Run the task once, with the dependencies it asks for; return its result as JSON."""
        async with injected(self.cls.run) as dependencies:
            result = await self.cls().run(**arguments, **dependencies)
            try:  # inside, so that a unit of work is rolled back with a result that cannot be stored
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
        """Register `cls`; ConfigError if it is no complete task or its name is taken."""
        task = _checked(cls)
        taken = self._tasks.setdefault(task.name, task)
        if taken.cls is not cls:
            raise ConfigError(f"task name {task.name!r} is used by {path_of(taken.cls)} and by {path_of(cls)}")

    def get(self, name: str) -> RegisteredTask:
        """Return the task called `name`, now or formerly, or raise UnknownTask."""
        return self._called(name)[0]

    def label(self, name: str) -> str:
        """Return the present name of a task, for metrics; one name for all that a row of another version may hold."""
        try:
            return self.get(name).name
        except UnknownTask:
            return OTHER

    def read(self, name: str, payload: Mapping[str, Any]) -> tuple[RegisteredTask, dict[str, Any]]:
        """Return the task of a stored job and the arguments of its `run`; ValidationError if the payload does not fit.

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
        """Return the task of this name first, then those that had it."""
        found = [task for task in self if name in task.cls.__former_names__]
        found = [self._tasks[name], *found] if name in self._tasks else found
        if not found:
            raise UnknownTask(f"no task is registered as {name!r}: is its module installed here?")
        return found

    def of(self, cls: type[BaseTask]) -> RegisteredTask:
        """Return the registration of `cls`; TypeError if `@queued` is missing."""
        task = self._tasks.get(getattr(cls, "__task_name__", ""))
        if task is None or task.cls is not cls:
            raise TypeError(f"{path_of(cls)} is not registered: decorate it with @queued")
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


def check_queue(path: str, queue: str) -> None:
    """Refuse what is no name of a queue by a ConfigError."""
    if not QUEUE_NAME.fullmatch(queue):
        raise ConfigError(f"{path}.queue = {queue!r}: small letters, digits, '-', '_' and '.', 64 at most")


def _checked(cls: type[BaseTask]) -> RegisteredTask:
    if not (isinstance(cls, type) and issubclass(cls, BaseTask)):
        raise ConfigError(f"@queued takes a subclass of BaseTask, not {cls!r}")
    path = path_of(cls)
    if not getattr(cls, "__task_name__", ""):
        raise ConfigError(f"{path} has no __task_name__")
    if not inspect.iscoroutinefunction(getattr(cls, "run", None)):
        raise ConfigError(f"{path} has no `async def run(self, ...)`")
    try:
        checked_priority(cls.priority)
    except ValueError as exc:
        raise ConfigError(f"{path}.priority = {cls.priority!r}: {exc}") from exc
    check_queue(path, cls.queue)
    try:
        task = RegisteredTask(cls)
        if task.schedule:
            task.schedule.next_after(utcnow())
    except (ValueError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{path}.__schedule__ = {cls.__schedule__!r}: {exc}") from exc
    with suppress(NameError):  # an annotation may name what is defined after the class
        _check_annotations(task, path)
    return task


def _check_annotations(task: RegisteredTask, path: str) -> None:
    for parameter in task.parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"{path}.run takes {parameter.name!r}, which cannot be pushed by name")
        if holds_secret(parameter.annotation):
            raise ConfigError(f"{path}.run takes {parameter.name!r}: no row may hold a secret")
    if holds_secret(inspect.signature(task.cls.run, eval_str=True).return_annotation):
        raise ConfigError(f"{path}.run returns a secret: no row may hold one")
    try:
        _ = task.adapter, task.result_adapter
    except PydanticSchemaGenerationError as exc:
        raise ConfigError(f"{path}.run takes or returns what cannot be stored as JSON: {exc.message}") from exc
    if task.schedule and (needed := [each.name for each in task.parameters if each.default is each.empty]):
        raise ConfigError(f"{path} runs by the clock, nobody gives its run {', '.join(needed)}")
