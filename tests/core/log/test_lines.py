"""Lines: formats, levels, ids, the standard library's loggers."""

import asyncio
import errno
import io
import logging
import threading
import traceback
from typing import Any

import pytest
import structlog

from app.core.configs import AppConfig
from app.core.services.log import LogServiceInterface, configure_logging, conversation_id, correlation, logger
from app.core.services.log import request_id as current_request_id
from app.core.services.log.service import Forward, LogService
from tests.core.log.capture import captured_log


class TestJson:
    def test_one_object_a_line(self) -> None:
        with captured_log() as lines:
            logger.info("stored", user_id=7, tags=["a", "b"])
        line = lines.one("stored")
        assert (line["level"], line["user_id"], line["tags"]) == ("info", 7, ["a", "b"])
        assert line["timestamp"].endswith("+00:00")

    def test_secrets_and_line_breaks_stay_out(self) -> None:
        with captured_log() as lines:
            logger.info("hello\r\nworld \x1b[31m", password="hunter2", url="/?token=hunter2")
        assert lines.text.count("\n") == 1
        assert "hunter2" not in lines.text
        assert "\x1b" not in lines.text

    def test_values_do_not_replace_what_the_line_says_of_itself(self) -> None:
        with captured_log() as lines:
            logger.info("stored", level="high", timestamp="never")
        line = lines.one("stored")
        assert (line["level"], line["level_"], line["timestamp_"]) == ("info", "high", "never")

    def test_exceptions_carry_their_traceback(self) -> None:
        with captured_log() as lines:
            try:
                raise ValueError("password=hunter2")
            except ValueError:
                logger.exception("failed")
        line = lines.one("failed")
        assert line["level"] == "error"
        assert "test_lines.py" in line["exception"]
        assert "hunter2" not in line["exception"]

    def test_an_exception_given_as_such_is_shown_too(self) -> None:
        with captured_log() as lines:
            logger.error("failed", exc_info=ValueError("given"))
            logger.error("nothing handled", exc_info=True)
        assert "ValueError: given" in lines.one("failed")["exception"]
        assert "exception" not in lines.one("nothing handled")

    def test_lines_of_many_threads_do_not_mix(self) -> None:
        def write() -> None:
            for _ in range(50):
                logger.info("x" * 2000)

        with captured_log() as lines:
            threads = [threading.Thread(target=write) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(lines.all("x" * 2000)) == 200


class Unshowable:
    """What a log line may be given and cannot show."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Unreadable(dict[str, int]):
    """A mapping that fails when it is read, as one of a closed session does."""

    def items(self) -> Any:
        raise RuntimeError("no")


class Full(io.BytesIO):
    """A disk without space."""

    def write(self, _: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class TestValues:
    def test_may_have_any_name(self) -> None:
        values = dict.fromkeys(("self", "event", "level", "timestamp", "method_name", "args", "name", "msg"), "x")
        with captured_log() as lines:
            logger.info("told", **values)
            logger.log("info", "told too", **values)
        expected = {"self", "event_", "level_", "timestamp_", "method_name", "args", "name", "msg"}
        assert expected <= lines.one("told").keys()
        assert lines.one("told")["level"] == "info"
        assert expected <= lines.one("told too").keys()

    async def test_may_have_any_name_in_the_async_forms(self) -> None:
        with captured_log() as lines:
            await logger.a_error("told", event=1, self=2)
            await logger.a_exception("told too", event=1, self=2)
            await logger.a_log("info", "told three", event=1, level=2)
        assert [line["event_"] for line in lines.all()] == [1, 1, 1]

    def test_that_cannot_be_shown_do_not_stop_the_call(self) -> None:
        with captured_log() as lines:
            logger.info("told", a=Unshowable(), b=[Unshowable()], c=Unreadable(), d={"e": Unshowable()}, exc_info=(1,))
            logger.info(Unshowable())  # type: ignore[arg-type]  # what a careless caller does
        line = lines.all()[0]
        what = "<Unshowable that cannot be shown>"
        assert (line["a"], line["b"], line["d"]) == (what, [what], {"e": what})
        assert line["c"] == "<Unreadable that cannot be shown>"
        assert lines.all()[1]["event"] == what

    def test_a_line_that_cannot_be_written_does_not_stop_the_call(self) -> None:
        with captured_log():
            configure_logging(AppConfig(LOG_LEVEL="INFO"), Full())
            logger.info("told")


class TestArguments:
    def test_are_put_into_the_text(self) -> None:
        with captured_log() as lines:
            logger.info("hello %s, you are %d", "Ann", 7, key="value")
            logger.info("hello %(name)s", {"name": "Bob"})
            logger.info("100% sure")
        assert [line["event"] for line in lines.all()] == ["hello Ann, you are 7", "hello Bob", "100% sure"]
        assert lines.all()[0]["key"] == "value"

    async def test_are_in_every_form(self) -> None:
        with captured_log(LOG_LEVEL="DEBUG") as lines:
            for name in ("debug", "info", "warning", "error", "critical", "exception"):
                getattr(logger, name)("%s", name)
                await getattr(logger, f"a_{name}")("%s", name)
            logger.log(logging.CRITICAL, "%s", "critical")
            await logger.a_log("warning", "%s", "warning")
        assert [line["event"] for line in lines.all()] == [
            *(name for name in ("debug", "info", "warning", "error", "critical", "exception") for _ in range(2)),
            *("critical", "warning"),
        ]
        assert [line["level"] for line in lines.all()][-4:] == ["error", "error", "critical", "warning"]

    def test_secrets_in_them_stay_out(self) -> None:
        with captured_log() as lines:
            logger.info("calling %s", "https://ann:hunter2@host/?token=hunter2")
        assert "hunter2" not in lines.text

    @pytest.mark.parametrize("arguments", [("x",), ("a", "b"), (Unshowable(),)])
    def test_that_do_not_fit_are_shown_behind_it(self, arguments: tuple[object, ...]) -> None:
        with captured_log() as lines:
            logger.info("%d", *arguments)
        assert lines.all()[0]["event"].startswith("%d ")


class TestConsole:
    def test_a_request_begins_with_what_people_read(self) -> None:
        values = {"method": "GET", "route": "/api/v1/profile", "status": 200, "duration_ms": 15.02}
        with captured_log(LOG_FORMAT="console") as lines, correlation("a" * 32, "b" * 32):
            logger.info("request", **values, client="192.0.2.1", code="late")
        said = lines.text.split("] ", 1)[1]
        assert said.split() == [
            *("GET", "/api/v1/profile", "200", "15", "ms", "code=late", "client=192.0.2.1"),
            *(f"request_id={'a' * 32}", f"conversation_id={'b' * 8}"),
        ]
        assert len(lines.text) < 180

    def test_the_other_format_is_as_before(self) -> None:
        values = {"method": "GET", "route": "/", "status": 200, "duration_ms": 15.02, "client": "192.0.2.1"}
        with captured_log() as lines, correlation("a" * 32, "b" * 32):
            logger.info("request", **values)
        line = lines.one("request")
        ids = {"request_id": "a" * 32, "conversation_id": "b" * 32}
        assert list(line) == ["timestamp", "level", "event", *ids, *values]
        assert line.items() >= (values | ids).items()

    def test_plain_where_no_terminal_reads_it(self) -> None:
        with captured_log(LOG_FORMAT="console") as lines:
            logger.warning("full", disk="/var")
        assert "full" in lines.text
        assert "disk=/var" in lines.text
        assert "\x1b" not in lines.text

    def test_a_forged_line_stays_inside_its_own(self) -> None:
        with captured_log(LOG_FORMAT="console") as lines:
            logger.warning("x\n2026-01-01 [info] all is well", value="y\nz")
        assert lines.text.count("\n") == 1

    def test_development_gets_it_by_default_and_production_json(self) -> None:
        for environment, opening in (("local", "2"), ("production", "{")):
            stream = io.BytesIO()
            with captured_log():
                configure_logging(AppConfig(ENVIRONMENT=environment, LOG_LEVEL="INFO"), stream)
                logger.info("hello")
            assert stream.getvalue().decode().startswith(opening)


class TestLevels:
    @pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
    def test_lines_below_are_dropped(self, level: str) -> None:
        names = ["DEBUG", "INFO", "WARNING", "ERROR"]
        with captured_log(LOG_LEVEL=level) as lines:
            for name in names:
                getattr(logger, name.lower())(name)
        assert [line["event"] for line in lines.all()] == names[names.index(level) :]

    async def test_the_async_forms_drop_and_write_alike(self) -> None:
        with captured_log(LOG_LEVEL="INFO") as lines:
            await logger.a_debug("debug")
            await logger.a_info("info")
            await logger.a_warning("warning")
            await logger.a_error("error")
            try:
                raise ValueError("late")
            except ValueError:
                await logger.a_exception("exception")
        assert [line["event"] for line in lines.all()] == ["info", "warning", "error", "exception"]
        assert "ValueError: late" in lines.one("exception")["exception"]


class TestCorrelation:
    def test_ids_are_in_every_line_of_the_block_only(self) -> None:
        with captured_log() as lines:
            with correlation("r-1", "c-1"):
                logger.info("inside")
                assert (current_request_id(), conversation_id()) == ("r-1", "c-1")
            logger.info("outside")
        assert (lines.one("inside")["request_id"], lines.one("inside")["conversation_id"]) == ("r-1", "c-1")
        assert "request_id" not in lines.one("outside")

    async def test_tasks_do_not_share_them(self) -> None:
        async def work(name: str) -> None:
            with correlation(name, None):
                await asyncio.sleep(0)
                await logger.a_info(name)

        with captured_log() as lines:
            await asyncio.gather(*(work(f"r-{number}") for number in range(10)))
        assert all(line["event"] == line["request_id"] for line in lines.all())
        assert len(lines.all()) == 10

    def test_bound_context_variables_are_shown(self) -> None:
        with captured_log() as lines, structlog.contextvars.bound_contextvars(job_id=3):
            logger.info("inside")
        assert lines.one("inside")["job_id"] == 3


class TestStandardLibrary:
    def test_its_loggers_write_the_same_lines_once(self) -> None:
        with captured_log() as lines:
            logging.getLogger("alembic.runtime").warning("upgrade %s", "token=hunter2")
        line = lines.one("upgrade token=[redacted]")
        assert (line["logger"], line["level"]) == ("alembic.runtime", "warning")

    def test_configuring_twice_does_not_print_twice(self) -> None:
        with captured_log() as first, captured_log() as second:
            logging.getLogger("taskiq").error("once")
        assert first.text == ""
        assert len(second.all("once")) == 1

    def test_handlers_that_servers_brought_are_gone(self) -> None:
        brought = logging.StreamHandler(io.StringIO())
        logging.getLogger("uvicorn").addHandler(brought)
        with captured_log() as lines:
            logging.getLogger("uvicorn").error("up")
        assert brought.stream.getvalue() == ""
        assert len(lines.all("up")) == 1

    @pytest.mark.parametrize("name", ["aiosqlite", "python_multipart.multipart"])
    def test_those_that_would_write_values_and_bytes_are_quiet(self, name: str) -> None:
        with captured_log(LOG_LEVEL="DEBUG") as lines:
            logging.getLogger(name).debug("executing %s", ("$argon2id$...",))
        assert lines.text == ""

    def test_their_exceptions_are_shown(self) -> None:
        with captured_log() as lines:
            try:
                raise KeyError("lost")
            except KeyError:
                logging.getLogger("some.library").exception("broke")
        assert "KeyError" in lines.one("broke")["exception"]

    def test_a_traceback_given_as_text_is_one(self) -> None:
        """What a lifespan raises reaches uvicorn that way."""
        with captured_log(LOG_FORMAT="console") as lines:
            try:
                raise KeyError("lost\x1b[0m")
            except KeyError:
                logging.getLogger("uvicorn.error").error(traceback.format_exc())
        first, *trace = lines.text.splitlines()
        assert "KeyError: " in first
        assert trace[0] == "    Traceback (most recent call last):"
        assert "\x1b[0m" not in lines.text

    def test_levels_of_their_own_do_not_break_the_line(self) -> None:
        with captured_log() as lines:
            logging.getLogger("some.library").log(35, "between")
        assert lines.one("between")["level"] == "warning"

    def test_a_record_that_cannot_be_formatted_does_not_stop_the_program(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        record = logging.LogRecord("some.library", logging.ERROR, __file__, 1, "%d", ("no number",), None)
        with captured_log() as lines:
            Forward(logger.lines).handle(record)
        assert lines.text == ""
        assert "no number" in capsys.readouterr().err


class TestService:
    def test_it_keeps_the_contract(self) -> None:
        assert isinstance(logger, LogServiceInterface)
        assert isinstance(logger, LogService)

    def test_without_a_stream_it_writes_to_standard_output(self, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        with captured_log():
            configure_logging(AppConfig(LOG_LEVEL="INFO", LOG_FORMAT="json"))
            logger.info("hello")
        assert b'"event":"hello"' in capsysbinary.readouterr().out
