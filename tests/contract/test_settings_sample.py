"""`.sample.env` and docs/configuration.md name every setting, and nothing else."""

import re

import pytest
from dotenv import dotenv_values

from app.core.configs import PROJECT_ROOT, BaseConfig
from app.core.modules import parts

pytestmark = pytest.mark.once

list(parts("config"))
CONFIGS = [config for config in BaseConfig.known if config.__module__.startswith("app.")]
NAMES = {name for config in CONFIGS for name in config.model_fields}
SAMPLE = dotenv_values(PROJECT_ROOT / ".sample.env")


class TestSample:
    def test_it_names_every_setting_and_nothing_else(self) -> None:
        assert set(SAMPLE) == NAMES

    @pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
    def test_every_value_is_the_default(self, config: type[BaseConfig]) -> None:
        for name, field in config.model_fields.items():
            default = field.get_default()
            if SAMPLE[name]:
                read = config.__pydantic_validator__.validate_assignment(config.model_construct(), name, SAMPLE[name])
                assert getattr(read, name) == default, name
            else:
                assert default in (None, [], {}), f"{name} has the default {default!r}"


class TestPage:
    def test_it_lists_every_setting_with_its_default(self) -> None:
        page = (PROJECT_ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
        listed = re.findall(r"^\| `([A-Z0-9_]+)` \| (?:`(.+?)` )?\|", page, re.MULTILINE)
        assert dict(listed) == SAMPLE
        assert len(listed) == len(SAMPLE)
