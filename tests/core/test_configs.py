"""Settings: where they come from, what is refused, what is made."""

import re
import stat
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex, token_urlsafe

import pytest
from pydantic import SecretStr, ValidationError

from app.cli.console import faults_of
from app.core.configs import AppConfig, BaseConfig, Environment, check_settings, local_secret, unknown_env_keys
from app.core.configs.base import _CONSTANTS, PROJECT_ROOT, make_private, shared_secrets
from app.core.configs.safety import weak_secret
from app.core.exceptions import ConfigError

GOOD_SECRET = "5f2c8e1b7d3a496083bfae2d61c7905e"
OTHER = GOOD_SECRET[::-1]
PRODUCTION = f"ENVIRONMENT=production\nSECRET_KEY={GOOD_SECRET}\nFRONTEND_URL=https://shop.example\n"


@pytest.fixture
def clean_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No setting in the environment, an empty settings file."""
    for config in BaseConfig.known:
        for name in config.model_fields:
            monkeypatch.delenv(name, raising=False)
    path = tmp_path / ".env"
    path.touch()
    monkeypatch.setenv("ENV_FILE", str(path))
    return path


class TestIntegrations:
    def test_variables_json_and_file_are_merged(self, clean_env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clean_env.write_text("HTTP_INTEGRATIONS__PAYMENTS__RETRIES=7\nHTTP_INTEGRATIONS__MAPS__GUARDED=true\n")
        given = '{"payments": {"base_url": "https://a.test/v1", "headers": {"A": "1"}, "bearer": "9", "retries": 9}}'
        monkeypatch.setenv("HTTP_INTEGRATIONS", given)
        monkeypatch.setenv("HTTP_INTEGRATIONS__PAYMENTS__BEARER", "0123")
        payments, maps = (AppConfig().HTTP_INTEGRATIONS[name] for name in ("payments", "maps"))
        assert (str(payments.base_url), payments.retries, maps.guarded) == ("https://a.test/v1", 7, True)
        assert payments.bearer == SecretStr("0123")
        assert payments.headers == {"A": SecretStr("1")}
        assert "0123" not in repr(payments)
        assert unknown_env_keys() == []

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            (
                {"BASE_URL": "ftp://a.test"},
                "HTTP_INTEGRATIONS.payments.base_url: URL scheme should be 'http' or 'https'",
            ),
            ({"BASE_URL": "https://ann:pw@a.test"}, "HTTP_INTEGRATIONS.payments: base_url must have no user"),
            ({"BASE_ULR": "https://a.test"}, "HTTP_INTEGRATIONS.payments.base_ulr: Extra inputs are not permitted"),
            ({"BEARER": GOOD_SECRET}, "HTTP_INTEGRATIONS.payments: base_url is missing"),
            ({"BASE_URL": "https://a.test", "BASIC": GOOD_SECRET}, "HTTP_INTEGRATIONS.payments: basic must be user:"),
            ({"GUARDED": "true", "BEARER": "a\nb"}, "HTTP_INTEGRATIONS.payments: bearer, basic and headers must be"),
            (
                {"GUARDED": "true", "HEADERS": '{"A B": "1"}'},
                "HTTP_INTEGRATIONS.payments: headers has a malformed",
            ),
            (
                {"GUARDED": "true", "BEARER": "a", "BASIC": "a:b"},
                "HTTP_INTEGRATIONS.payments: bearer and basic are both",
            ),
        ],
    )
    def test_what_cannot_be_used_is_named_without_its_value(
        self, clean_env: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], said: str
    ) -> None:
        for name, value in fields.items():
            monkeypatch.setenv(f"HTTP_INTEGRATIONS__PAYMENTS__{name}", value)
        with pytest.raises(ValidationError) as caught:
            AppConfig()
        [fault] = faults_of(caught.value)
        assert fault.startswith(said)
        assert GOOD_SECRET not in str(caught.value)

    @pytest.mark.parametrize("name", ["HTTP_INTEGRATIONS", "HTTP_INTEGRATIONS__PAYMENTS__HEADERS"])
    def test_json_that_is_none_is_named_without_its_value(
        self, clean_env: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, f'{{"{GOOD_SECRET}')
        with pytest.raises(ConfigError, match='"HTTP_INTEGRATIONS"') as caught:
            AppConfig()
        assert GOOD_SECRET not in "".join(traceback.format_exception(caught.value))

    def test_credentials_in_the_clear_stop_a_start(self, clean_env: Path) -> None:
        clean_env.write_text(
            f"{PRODUCTION}HTTP_INTEGRATIONS__OPEN__BASE_URL=http://a.test\nHTTP_INTEGRATIONS__OPEN__BEARER=x\n"
            "HTTP_INTEGRATIONS__HERE__BASE_URL=http://localhost:1\nHTTP_INTEGRATIONS__HERE__BEARER=x\n"
            "HTTP_INTEGRATIONS__ANY__GUARDED=true\nHTTP_INTEGRATIONS__ANY__BEARER=x\n"
        )
        found = [fault for fault in AppConfig().problems() if fault.startswith("HTTP_INTEGRATIONS")]
        assert [fault.split(" ")[0] for fault in found] == ["HTTP_INTEGRATIONS.open", "HTTP_INTEGRATIONS.any"]


class TestSources:
    def test_environment_wins_over_file_wins_over_default(
        self, clean_env: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert AppConfig().PORT == 8000
        clean_env.write_text("PORT=9001\nPROJECT_NAME=From file\n")
        assert AppConfig().PORT == 9001
        monkeypatch.setenv("PORT", "9002")
        assert AppConfig().PORT == 9002
        assert AppConfig().PROJECT_NAME == "From file"

    def test_empty_counts_as_unset(self, clean_env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clean_env.write_text("PORT=\nDATABASE_URL=\n")
        monkeypatch.setenv("REDIS_URL", "")
        settings = AppConfig()
        assert (settings.PORT, settings.DATABASE_URL, settings.redis_url) == (8000, None, None)

    def test_testing_reads_the_test_file(self) -> None:
        assert AppConfig().ENVIRONMENT is Environment.TESTING
        assert AppConfig().RATE_LIMITER_ENABLED is False

    @pytest.mark.parametrize("text", ["http://a.test,http://b.test", '["http://a.test", "http://b.test"]'])
    def test_lists_are_commas_or_json(self, clean_env: Path, text: str) -> None:
        clean_env.write_text(f"BACKEND_CORS_ORIGINS={text}\n")
        assert AppConfig().BACKEND_CORS_ORIGINS == ["http://a.test", "http://b.test"]

    def test_unknown_key_is_reported_with_the_likely_name(self, clean_env: Path) -> None:
        clean_env.write_text("DATABASE_ULR=sqlite:///x.db\nPORT=1\n")
        assert unknown_env_keys() == [".env: unknown setting 'DATABASE_ULR'; did you mean DATABASE_URL?"]

    @pytest.mark.parametrize("by_file", [True, False])
    def test_a_key_that_names_a_constant_is_reported_with_its_place(
        self, clean_env: Path, monkeypatch: pytest.MonkeyPatch, by_file: bool
    ) -> None:
        if by_file:
            clean_env.write_text("CACHE_MAX_SECONDS=60\n")
        else:
            monkeypatch.setenv("CACHE_MAX_SECONDS", "60")
        said = "CACHE_MAX_SECONDS is no setting: change the constant in app/core/services/cache/store.py"
        assert unknown_env_keys() == [said]

    def test_a_setting_of_a_module_may_have_the_name_of_a_constant(
        self, clean_env: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(BaseConfig, "known", [*BaseConfig.known])

        class ShopConfig(BaseConfig):
            CACHE_MAX_SECONDS: int = 60

        clean_env.write_text("CACHE_MAX_SECONDS=60\n")
        assert unknown_env_keys() == []

    def test_every_constant_is_where_it_is_said_to_be(self) -> None:
        for name, place in _CONSTANTS.items():
            assert re.search(rf"^{name} = ", (PROJECT_ROOT / place).read_text(), re.MULTILINE), name

    def test_a_wrong_value_is_named_and_not_shown(self, clean_env: Path) -> None:
        clean_env.write_text("PORT=hunter2\n")
        with pytest.raises(ValidationError, match="PORT") as caught:
            AppConfig()
        assert "hunter2" not in str(caught.value)

    def test_nothing_inside_a_value_is_replaced(self, clean_env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/root")
        clean_env.write_text("POSTGRES_PASSWORD=pa${HOME}ss$1\nSMTP_USER='q${HOME}'\nPROJECT_NAME=\"${HOME}\"\n")
        settings = AppConfig()
        assert SecretStr("pa${HOME}ss$1") == settings.POSTGRES_PASSWORD
        assert (settings.SMTP_USER, settings.PROJECT_NAME) == ("q${HOME}", "${HOME}")

    def test_words_are_taken_in_any_case(self, clean_env: Path) -> None:
        clean_env.write_text("LOG_LEVEL=debug\nLOG_FORMAT=JSON\nENVIRONMENT=Production\n")
        settings = AppConfig()
        assert (settings.LOG_LEVEL, settings.LOG_FORMAT, settings.ENVIRONMENT) == ("DEBUG", "json", "production")

    @pytest.mark.parametrize("content", [b"SECRET_KEY=\xff\xfehunter2", None])
    def test_a_file_that_cannot_be_read_is_named(self, clean_env: Path, content: bytes | None) -> None:
        clean_env.unlink()
        clean_env.mkdir() if content is None else clean_env.write_bytes(content)
        with pytest.raises(ConfigError, match=r"\.env cannot be read: .*; it must be a text file in UTF-8$") as caught:
            AppConfig()
        assert "hunter2" not in str(caught.value)


class TestUrls:
    def test_default_is_a_file_under_var(self, clean_env: Path) -> None:
        settings = AppConfig()
        assert settings.database_url.drivername == "sqlite+aiosqlite"
        assert settings.database_url.database == str(settings.var_dir / "app.db")

    @pytest.mark.parametrize(
        ("given", "driver"),
        [
            ("postgresql://u:p@h/d", "postgresql+psycopg"),
            ("postgres://u:p@h/d", "postgresql+psycopg"),
            ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg"),
            ("sqlite:///x.db", "sqlite+aiosqlite"),
        ],
    )
    def test_plain_urls_get_the_driver(self, clean_env: Path, given: str, driver: str) -> None:
        clean_env.write_text(f"DATABASE_URL={given}\n")
        assert AppConfig().database_url.drivername == driver

    def test_separate_parts(self, clean_env: Path) -> None:
        clean_env.write_text("POSTGRES_SERVER=db\nPOSTGRES_PASSWORD=p%40ss@/\nPOSTGRES_DB=shop\nREDIS_HOST=cache\n")
        settings = AppConfig()
        assert (settings.database_url.host, settings.database_url.password) == ("db", "p%40ss@/")
        assert settings.redis_url == "redis://cache:6379/0"

    @pytest.mark.parametrize(
        "line",
        [
            "DATABASE_URL=not a url hunter2",
            "DATABASE_URL=mysql://u:hunter2@h/d",
            "DATABASE_URL=postgresql+asyncpg://u:hunter2@h/d",
            "DATABASE_URL=sqlite://",
            "DATABASE_URL=sqlite:///:memory:",
            "DATABASE_URL=postgresql://u:hunter2/d",
            "REDIS_URL=http://hunter2",
            "REDIS_URL=redis://u:hunter2/0",
        ],
    )
    def test_a_wrong_url_is_named_and_not_shown(self, clean_env: Path, line: str) -> None:
        clean_env.write_text(f"{line}\n")
        with pytest.raises(ValidationError, match=line.split("=", maxsplit=1)[0]) as caught:
            AppConfig()
        assert "hunter2" not in str(caught.value)

    def test_secrets_do_not_show(self, clean_env: Path) -> None:
        clean_env.write_text("DATABASE_URL=postgresql://u:hunter2@h/d\nSMTP_PASSWORD=hunter2\n")
        assert "hunter2" not in repr(AppConfig())


class TestCopies:
    """`get_settings().model_copy(update=...)` is how tests set what they need."""

    def test_what_is_derived_follows_the_new_values(self) -> None:
        settings = AppConfig(DATABASE_URL=SecretStr("sqlite:///one.db"))
        assert settings.database_url.database == "one.db"
        other = settings.model_copy(update={"DATABASE_URL": SecretStr("sqlite:///other.db")})
        assert other.database_url.database == "other.db"
        assert settings.database_url.database == "one.db"

    def test_a_derived_value_can_be_set_itself(self) -> None:
        secret = SecretStr("another key, as long as it has to be")
        assert AppConfig().model_copy(update={"secret_key": secret}).secret_key is secret


class TestRunnerPlace:
    @pytest.mark.parametrize(
        ("lines", "in_app"),
        [
            ("ENVIRONMENT=production", True),
            ("ENVIRONMENT=local\nREDIS_URL=redis://h", True),
            ("ENVIRONMENT=local\nREDIS_URL=redis://h\nWORKER_IN_APP=false", False),
            ("ENVIRONMENT=production\nREDIS_URL=redis://h", False),
            ("ENVIRONMENT=production\nREDIS_URL=redis://h\nWORKER_IN_APP=true", True),
            ("WORKER_IN_APP=false", False),
        ],
    )
    def test_in_the_app_unless_a_worker_is_expected(self, clean_env: Path, lines: str, in_app: bool) -> None:
        clean_env.write_text(f"{lines}\n")
        assert AppConfig().worker_in_app is in_app


class TestMail:
    @pytest.mark.parametrize(
        ("lines", "starttls"),
        [("", True), ("SMTP_TLS=false", False), ("SMTP_SSL=true", False), ("SMTP_SSL=true\nSMTP_TLS=false", False)],
    )
    def test_starttls_unless_told_otherwise(self, clean_env: Path, lines: str, starttls: bool) -> None:
        clean_env.write_text(f"{lines}\n")
        assert AppConfig().smtp_starttls is starttls

    def test_two_kinds_of_tls_are_refused_everywhere(self, clean_env: Path) -> None:
        clean_env.write_text("SMTP_TLS=true\nSMTP_SSL=true\n")
        with pytest.raises(ValidationError, match="SMTP_TLS and SMTP_SSL are both true"):
            AppConfig()

    @pytest.mark.parametrize(
        "line",
        ["EMAIL_SENDER_ADDRESS=nobody", "EMAIL_SENDER_ADDRESS='a@b <c@d>'", 'EMAIL_SENDER_NAME="A\\nBcc: b@c.d"'],
    )
    def test_a_sender_no_header_can_hold_is_refused(self, clean_env: Path, line: str) -> None:
        clean_env.write_text(f"{line}\n")
        with pytest.raises(ValidationError, match="EMAIL_SENDER"):
            AppConfig()

    @pytest.mark.parametrize(
        ("lines", "faults"),
        [
            ("SMTP_USER=u\nSMTP_PASSWORD=p", []),
            ("SMTP_USER=u\nSMTP_PASSWORD=p\nSMTP_SSL=true", []),
            ("SMTP_USER=u\nSMTP_PASSWORD=p\nSMTP_TLS=false", ["SMTP_PASSWORD"]),
            ("SMTP_HOST=localhost\nSMTP_USER=u\nSMTP_PASSWORD=p\nSMTP_TLS=false", []),
            ("SMTP_TLS=false", []),
            ("SMTP_PASSWORD=p", ["SMTP_USER"]),
        ],
    )
    def test_no_password_in_clear(self, clean_env: Path, lines: str, faults: list[str]) -> None:
        clean_env.write_text(f"{PRODUCTION}SMTP_HOST=mail.test\n{lines}\n")
        assert [fault.split()[0] for fault in AppConfig().problems()] == faults


class TestStrictEnvironments:
    def test_every_fault_is_listed_at_once(self, clean_env: Path) -> None:
        clean_env.write_text(
            "ENVIRONMENT=production\nSECRET_KEY=changeme-changeme-changeme-changeme\nWEB_CONCURRENCY=2\n"
            "BACKEND_CORS_ORIGINS=*\nCORS_ALLOW_CREDENTIALS=true\n"
        )
        faults = AppConfig().problems()
        assert [fault.split()[0] for fault in faults] == [
            "SECRET_KEY",
            "FRONTEND_URL",
            "BACKEND_CORS_ORIGINS",
            "REDIS_URL",
            "DATABASE_URL",
        ]

    def test_a_good_configuration_has_none(self, clean_env: Path) -> None:
        clean_env.write_text(PRODUCTION)
        assert AppConfig().problems() == []

    @pytest.mark.parametrize("value", ["*", "proxy.local", "10.0.0.1/8", "10.0.0.1,any"])
    def test_only_addresses_and_networks_are_trusted(self, clean_env: Path, value: str) -> None:
        clean_env.write_text(f"{PRODUCTION}TRUSTED_PROXIES={value}\n")
        assert [fault.split()[0] for fault in AppConfig().problems()] == ["TRUSTED_PROXIES"]

    def test_addresses_and_networks_are(self, clean_env: Path) -> None:
        proxies = "10.0.0.1,10.1.0.0/16,2001:db8::/32"
        clean_env.write_text(f"{PRODUCTION}TRUSTED_PROXIES={proxies}\n")
        assert AppConfig().problems() == []

    @pytest.mark.parametrize(
        "value",
        [
            *("0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "0.0.0.0/2,64.0.0.0/2,128.0.0.0/1", "::ffff:0:0/96"),
            *("10.0.0.1,8.0.0.0/8", "2000::/3"),
        ],
    )
    def test_a_large_part_of_the_internet_is_not_trusted(self, clean_env: Path, value: str) -> None:
        clean_env.write_text(f"{PRODUCTION}TRUSTED_PROXIES={value}\n")
        (fault,) = AppConfig().problems()
        assert fault.startswith("TRUSTED_PROXIES trusts a large part of the internet")

    @pytest.mark.parametrize(
        "proxies",
        [
            "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
            "104.16.0.0/13,172.64.0.0/13,162.158.0.0/15,2400:cb00::/32",
        ],
    )
    def test_private_networks_and_those_of_a_delivery_network_are(self, clean_env: Path, proxies: str) -> None:
        clean_env.write_text(f"{PRODUCTION}TRUSTED_PROXIES={proxies}\n")
        assert AppConfig().problems() == []

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("http://shop.example", "must begin with https"),
            *((f"https://{host}", "names this machine") for host in ("localhost:3000", "app.localhost", "127.0.0.2")),
            *((f"https://{host}/x", "names this machine") for host in ("[::1]", "0.0.0.0", "[::ffff:127.0.0.1]")),
        ],
    )
    def test_links_in_mails_lead_to_people_over_https(self, clean_env: Path, url: str, reason: str) -> None:
        clean_env.write_text(f"{PRODUCTION}FRONTEND_URL={url}\n")
        (fault,) = AppConfig().problems()
        assert fault.startswith(f"FRONTEND_URL {reason}")

    @pytest.mark.parametrize(
        ("lines", "pair"),
        [
            (f"JWT_SECRET_KEY={GOOD_SECRET}", "JWT_SECRET_KEY and SECRET_KEY"),
            (
                f"JWT_SECRET_KEY={OTHER}\nJWT_PREVIOUS_SECRET_KEY={GOOD_SECRET}",
                "JWT_PREVIOUS_SECRET_KEY and SECRET_KEY",
            ),
            (f"JWT_SECRET_KEY={OTHER}\nSMTP_PASSWORD={GOOD_SECRET}", "SECRET_KEY and SMTP_PASSWORD"),
            (f"JWT_SECRET_KEY={OTHER}\nJWT_PREVIOUS_SECRET_KEY={OTHER}", "JWT_PREVIOUS_SECRET_KEY and JWT_SECRET_KEY"),
            (f"JWT_SECRET_KEY={OTHER}\nPOSTGRES_PASSWORD=p\nSMTP_PASSWORD=p", ""),
        ],
    )
    def test_no_key_serves_twice(self, clean_env: Path, lines: str, pair: str) -> None:
        clean_env.write_text(f"{PRODUCTION}{lines}\n")
        assert shared_secrets() == ([f"{pair} are the same: set different values"] if pair else [])

    @pytest.mark.parametrize(
        ("lines", "name"),
        [
            ("DATABASE_URL=postgresql://postgres:postgres@db/app", "DATABASE_URL"),
            ("DATABASE_URL=postgresql://shop:Shop@db/app", "DATABASE_URL"),
            ("POSTGRES_SERVER=db\nPOSTGRES_PASSWORD=changeme", "POSTGRES_PASSWORD"),
            ("REDIS_URL=redis://:redis@cache:6379/0", "REDIS_URL"),
            ("SMTP_HOST=mail.test\nSMTP_USER=admin\nSMTP_PASSWORD=admin", "SMTP_PASSWORD"),
        ],
    )
    def test_a_default_password_stops_a_start(self, clean_env: Path, lines: str, name: str) -> None:
        clean_env.write_text(f"{PRODUCTION}{lines}\n")
        assert AppConfig().problems() == [f"{name} has a default password: set a random one"]

    @pytest.mark.parametrize("given", ["postgres:0f3a91c2", "postgres"])
    def test_a_password_of_ones_own_and_none_are_fine(self, clean_env: Path, given: str) -> None:
        clean_env.write_text(f"{PRODUCTION}DATABASE_URL=postgresql://{given}@db/app\n")
        assert AppConfig().problems() == []

    @pytest.mark.parametrize("name", ["PREVIOUS_SECRET_KEY", "NEXT_SECRET_KEY"])
    def test_every_key_of_the_ring_is_strong(self, clean_env: Path, name: str) -> None:
        clean_env.write_text(f"{PRODUCTION}{name}=short-but-random-7f3a\n")
        assert AppConfig().problems() == [f"{name} is shorter than 32 bytes"]

    def test_testing_is_relaxed(self) -> None:
        check_settings()

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("", "missing"),
            ("short-but-random-7f3a", "shorter"),
            ("a" * 40, "placeholder"),
            ("please-change-me-please-change-me-now", "placeholder"),
            ("0123456701234567012345670123456701234567", "pattern"),
            ("passwordpasswordpasswordpassword1", "pattern"),
            ("Password123Password123Password123", "pattern"),
            ("abcdefghijklmnopqrstuvwxyz0123456789", "pattern"),
            ("zyxwvutsrqponmlkjihgfedcba9876543210", "pattern"),
            ("qwertyuiopasdfghjklzxcvbnm1234567890", "pattern"),
            ("11223344556677889900112233445566", "pattern"),
        ],
    )
    def test_weak_secrets(self, value: str, reason: str) -> None:
        found = weak_secret(SecretStr(value))
        assert found is not None
        assert reason in found
        assert weak_secret(SecretStr(GOOD_SECRET)) is None
        assert weak_secret(None) is not None

    @pytest.mark.parametrize("make", [token_hex, token_urlsafe])
    def test_random_ones_are_strong(self, make: Callable[[int], str]) -> None:
        assert {weak_secret(SecretStr(make(24))) for _ in range(500)} == {None}


class TestLocalSecret:
    def test_made_once_and_private(self, tmp_path: Path) -> None:
        first = local_secret("SECRET_KEY", tmp_path)
        assert local_secret("SECRET_KEY", tmp_path) == first
        assert weak_secret(first) is None
        assert stat.S_IMODE((tmp_path / "secrets" / "SECRET_KEY").stat().st_mode) == 0o600

    def test_starting_together_gives_one_value(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(16) as pool:
            made = list(pool.map(lambda _: local_secret("KEY", tmp_path).get_secret_value(), range(64)))
        assert len(set(made)) == 1
        assert list((tmp_path / "secrets").iterdir()) == [tmp_path / "secrets" / "KEY"]

    def test_a_folder_that_cannot_be_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(
            ConfigError, match=r"SECRET_KEY is not set and cannot be kept in VAR_DIR=.*: Not a directory"
        ):
            local_secret("SECRET_KEY", tmp_path / "file" / "var")


class TestPrivateFolder:
    def test_what_is_made_is_its_owner_s_alone(self, tmp_path: Path) -> None:
        make_private(tmp_path / "one" / "two")
        make_private(tmp_path / "one" / "two")
        assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("one", "one/two")] == [0o700, 0o700]

    def test_what_is_there_stays_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "shared").mkdir(mode=0o755)
        make_private(tmp_path / "shared")
        assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o755

    def test_a_file_in_its_place_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(NotADirectoryError):
            make_private(tmp_path / "file")
